"""Measures the daemon: `make daemon-bench ARGS="idle muted"` (all of it without ARGS).

latency: end of a spoken word to its `text` at an MQTT subscriber, beside the delay itself.
flush: a flush every few seconds while somebody speaks: its answer and the steps meanwhile.
mic: the microphone pulled and returned 20 times.     stall: the engine stands still for 3 s.
stereo: a device that gives 48 kHz stereo against one that gives 24 kHz mono, at the same time.
formats: word errors by way of several sample formats.
fuzz: 10 000 wrong commands over the broker.           stop: SIGTERM in the middle of speech.
idle: CPU while nobody speaks.                         muted: CPU, and what the sound server says.

Each is a real `edged run` with real mosquitto, models, speech and, where it says microphone, real
libasound and PulseAudio. Longer measurements are in `tests/bench/daemon_soak.py`. With `--slow 4`,
latency and flush are those of a device on which each run of a model takes four times as long.
"""

from __future__ import annotations

import argparse
import difflib
import json
import random
import re
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from edged import SAMPLE_RATE, STEP_S
from edged.audio.files import open_audio
from edged.ortsession import SLOWDOWN
from tests.bench.daemon_formats import formats
from tests.conftest import SAMPLES
from tests.support.alsa_paced import DEVICE, PacedMicrophone
from tests.support.command_fuzz import fuzzed
from tests.support.daemon_process import DaemonProcess
from tests.support.mosquitto import Mosquitto, Subscriber, until

NO_DELAY = "set_tcp_nodelay true"  # as deploy/mosquitto/edged.conf has it
PULLS, STOPS, FUZZED = 20, 10, 10_000

# Writes when the last sample of each step was due (eight bytes, monotonic clock), and for each word
# the step at which it was emitted and when (eight bytes each).
WITH_TIMES = """
import time, struct
from edged.audio.file_capture import FileCapture
from edged.engine.engine_thread import Engine
from edged.events import Text
_wait, _emit = FileCapture._wait_until, Engine._emit
complete, said = open({folder!r} + "/complete", "ab", 0), open({folder!r} + "/said", "ab", 0)
def wait_until(self, due):
    complete.write(struct.pack("d", due))
    _wait(self, due)
def emit(self, events):
    now = struct.pack("dd", self._steps - 1, time.monotonic())
    said.write(now * sum(isinstance(e, Text) for e in events))
    _emit(self, events)
FileCapture._wait_until, Engine._emit = wait_until, emit
"""
# Real libasound, asked for what such a card would give: what comes is read back and converted.
AS_48_STEREO = """
from dataclasses import replace
from edged.audio import alsa
_open = alsa._open
alsa._open = lambda name, wish: _open(name, replace(wish, rate=48000, channels=2, period=3840))
"""
STALLING = """
import time
from edged.engine.session import Session
_push = Session.push
def push(self, frame, backlog=False):
    if self.step_idx == 60:
        time.sleep(3)
    return _push(self, frame, backlog)
Session.push = push
"""


def clip(path: Path) -> np.ndarray:
    """int16[n], 24 kHz mono."""
    source = open_audio(str(path))
    try:
        return np.concatenate(list(source.frames()))
    finally:
        source.close()


def words_of(ear: Subscriber) -> list[dict[str, Any]]:
    """Each committed word with its times."""
    pairs = zip(ear.on("text"), ear.on("end_text"), strict=False)
    return [text.json() | end.json() for text, end in pairs]


def percent(values: list[float], share: float) -> float:
    return sorted(values)[round(share * (len(values) - 1))]


def spread(name: str, ms: list[float]) -> None:
    shares = ", ".join(f"p{100 * s:g} {percent(ms, s):.0f}" for s in (0.5, 0.9, 0.99, 1))
    print(f"  {name}: {len(ms)}, {shares} ms")


def latency(folder: Path, speech: Path, minutes: float, slow: float) -> None:
    with (
        Mosquitto(folder / "broker", options=NO_DELAY) as broker,
        Subscriber(broker.port, ("edged/#",)) as ear,
    ):
        daemon = DaemonProcess(folder, broker.port, alsa_device=f"file:{speech}")
        daemon.environment = {SLOWDOWN: f"{slow:g}"}
        daemon.before = WITH_TIMES.format(folder=str(folder))
        with daemon:
            time.sleep(minutes * 60)
            daemon.stop()
        complete = array("d", (folder / "complete").read_bytes())
        noted = array("d", (folder / "said").read_bytes())
        said = list(zip(map(int, noted[::2]), noted[1::2], strict=True))
        came = [h.at for h in ear.on("text")]
        words = words_of(ear)
        steps = [(h.json()["step_idx"], h.at) for h in ear.on("step")]
        health = [h.json() for h in ear.on("state/health")]
    delay_s = 10 * STEP_S
    begins = [at - (n + 1) * STEP_S for n, at in enumerate(complete)]

    whole, waited, worked, carried = [], [], [], []
    for word, at, (step, handed) in zip(words, came, said, strict=True):
        due = word["stop_s"] + delay_s
        if due > len(complete) * STEP_S or step >= len(begins):
            continue  # emitted early, because of the stop
        step_end = (step + 1) * STEP_S
        start = begins[step]
        whole.append((at - start - due) * 1000)
        waited.append((step_end - due) * 1000)
        worked.append((handed - start - step_end) * 1000)
        carried.append((at - handed) * 1000)
    print(f"latency: {minutes:g} min, delay {delay_s:g} s; the end of a word is its `stop_s`")
    spread("from the end of a word to its text at a subscriber, less the delay", whole)
    spread("of which the recogniser's rule waits (stream time)", waited)
    spread("of which capture, computing and waiting for a processor", worked)
    spread("of which publisher, broker and subscriber", carried)
    ours = [a + b for a, b in zip(worked, carried, strict=True)]
    for name, ms in (("in all", whole), ("without the rule", ours)):
        print(f"  later than 150 ms {name}: {sum(x > 150 for x in ms) / len(ms):.2%}")
    _report_steps(steps, begins)
    _report_health(health)


def _report_steps(steps: list[tuple[int, float]], begins: list[float]) -> None:
    """How late each step is behind its last sample. begins: when the stream began, by step."""
    late = [(at - begins[n] - (n + 1) * STEP_S) * 1000 for n, at in steps if n < len(begins)]
    spread("from the end of a step to its `step` at a subscriber", late)


def _report_health(health: list[dict[str, Any]]) -> None:
    if health:
        levels = sorted({h["load_level"] for h in health})
        last = health[-1]
        print(f"  load levels {levels}, rtf {last['rtf']}, audio lost {last['dropped_s']} s")


def flush(folder: Path, speech: Path, minutes: float, slow: float) -> None:
    answers: list[float] = []
    with (
        Mosquitto(folder / "broker", options=NO_DELAY) as broker,
        Subscriber(broker.port, ("edged/#",)) as ear,
    ):
        daemon = DaemonProcess(folder, broker.port, alsa_device=f"file:{speech}")
        daemon.environment = {SLOWDOWN: f"{slow:g}"}
        daemon.before = WITH_TIMES.format(folder=str(folder))
        with daemon:
            until(lambda: ear.on("text"), "words")
            end = time.monotonic() + minutes * 60
            while time.monotonic() < end:
                time.sleep(random.uniform(1.0, 3.0))
                count, sent = len(ear.on("flushed")), time.monotonic()
                ear.publish("edged/device/cmd/flush", json.dumps({"flush_id": count}))
                until(lambda: len(ear.on("flushed")) > count, "flushed")  # noqa: B023
                answers.append((ear.on("flushed")[-1].at - sent) * 1000)
            daemon.stop()
        complete = array("d", (folder / "complete").read_bytes())
        steps = [(h.json()["step_idx"], h.at) for h in ear.on("step")]
        health = [h.json() for h in ear.on("state/health")]
    print(f"flush: {minutes:g} min")
    spread("from cmd/flush to `flushed` at a subscriber", answers)
    _report_steps(steps, [at - (n + 1) * STEP_S for n, at in enumerate(complete)])
    _report_health(health)


def mic(folder: Path) -> None:
    back, reported = [], []
    with Mosquitto(folder / "broker") as broker, Subscriber(broker.port, ("edged/#",)) as ear:
        with PacedMicrophone() as paced:
            daemon = DaemonProcess(folder, broker.port, alsa_device=DEVICE)
            daemon.environment = paced.environment
            with daemon:
                until(lambda: ear.on("step"), "steps")
                for _ in range(PULLS):
                    time.sleep(random.uniform(0.5, 3.0))
                    ear.heard.clear()
                    pulled = time.monotonic()
                    paced.unplug()
                    until(lambda: _mic(ear) == "lost", "the loss is reported")
                    reported.append(time.monotonic() - pulled)
                    time.sleep(random.uniform(0.2, 6.0))
                    ear.heard.clear()
                    returned = time.monotonic()
                    paced.plug()
                    until(lambda: _mic(ear) == "running" and ear.on("step"), "it runs")
                    back.append(time.monotonic() - returned)
                assert daemon.process is not None
                assert daemon.process.poll() is None
                daemon.stop()
    print(f"mic: pulled and returned {PULLS} times, one process")
    median = statistics.median(reported)
    print(f"  reported after {median:.2f} s median, {max(reported):.2f} s at most")
    print(f"  heard again after {statistics.median(back):.2f} s median, {max(back):.2f} s at most")


def _mic(ear: Subscriber) -> str:
    found = ear.on("state/mic")
    return str(found[-1].json()["state"]) if found else ""


def stall(folder: Path, speech: Path) -> None:
    """Two daemons hear the same microphone; the engine of one stands still in the middle."""
    found = {}
    with PacedMicrophone() as paced:
        for name, ear, daemon in _two(folder, paced, {"steady": "", "stalled": STALLING}, speech):
            found[name] = (words_of(ear), ear, daemon)
    (steady, *_), (stalled, ear, _) = found["steady"], found["stalled"]
    steps = [h.json()["step_idx"] for h in ear.on("step")]
    arrival = [h.at for h in ear.on("step")]
    late = [at - arrival[0] - n * STEP_S for n, at in enumerate(arrival)]
    caught = next(n for n in range(61, len(late)) if late[n] < 0.2)
    health = ear.on("state/health")[-1].json()
    print(
        f"stall: 3 s at step 60; latest step {max(late):.2f} s late, caught up {caught - 60}"
        f" steps on, {arrival[caught] - arrival[60]:.2f} s after the stall"
    )
    print(
        f"  xruns {health['xruns']}, dropped {health['dropped_s']} s, "
        f"steps gapless: {steps == list(range(steps[0], steps[0] + len(steps)))}"
    )
    _compare("stalled", stalled, "steady", steady)


def stereo(folder: Path, speech: Path) -> None:
    found, shapes = {}, {}
    with PacedMicrophone() as paced:
        programs = {"24 kHz mono": "", "48 kHz stereo": AS_48_STEREO, "24 kHz mono too": ""}
        for name, ear, _ in _two(folder, paced, programs, speech):
            found[name] = words_of(ear)
            shapes[name] = ear.on("state/mic")[-1].json()["format"]
    for name, shape in shapes.items():
        print(f"stereo: {name} negotiated {shape}")
    # The third is the measure of the second: no two begin at the same sample.
    for other in ("48 kHz stereo", "24 kHz mono too"):
        _compare(other, found[other], "24 kHz mono", found["24 kHz mono"])


def _two(
    folder: Path, paced: PacedMicrophone, programs: dict[str, str], speech: Path
) -> list[tuple[str, Subscriber, DaemonProcess]]:
    """Two daemons on one microphone, into which all of `speech` is played."""
    clips = [clip(p) for p in sorted(speech.glob("*.flac"))]
    pause = np.zeros(2 * SAMPLE_RATE, np.int16)
    audio = np.concatenate([part for c in clips for part in (pause, c)] + [pause])[
        : 300 * SAMPLE_RATE
    ]
    made = []
    for n, (name, program) in enumerate(programs.items()):
        (folder / str(n)).mkdir()
        broker = Mosquitto(folder / f"broker{n}").start()
        ear = Subscriber(broker.port, ("edged/#",)).__enter__()
        daemon = DaemonProcess(folder / str(n), broker.port, alsa_device=DEVICE, health_every_s=5)
        daemon.environment = paced.environment
        daemon.before = program
        made.append((name, ear, daemon, broker))
    for _, ear, daemon, _ in made:
        daemon.start()
        until(partial(ear.on, "step"), "steps")
    paced.play(audio)
    time.sleep(len(audio) / SAMPLE_RATE + 6)
    for _, _, daemon, broker in made:
        daemon.stop()
        time.sleep(0.5)
        broker.stop()
    return [(name, ear, daemon) for name, ear, daemon, _ in made]


def _compare(one: str, first: list[Any], other: str, second: list[Any]) -> None:
    """Words in common, and how far their starts are from each other."""
    texts = [[re.sub(r"\W", "", w["text"].lower()) for w in words] for words in (first, second)]
    matcher = difflib.SequenceMatcher(None, texts[0], texts[1], autojunk=False)
    blocks = matcher.get_matching_blocks()
    pairs = [(first[b.a + n], second[b.b + n]) for b in blocks for n in range(b.size)]
    offsets = [a["start_s"] - b["start_s"] for a, b in pairs]
    middle = statistics.median(offsets)  # they were not started at the same moment
    apart = sorted(abs(o - middle) * 1000 for o in offsets)
    print(
        f"  {one}: {len(first)} words, {other}: {len(second)}, {len(pairs)} of them the same; "
        f"their starts differ by {percent(apart, 0.5):.0f} ms median, {apart[-1]:.0f} at most"
    )
    for kind, a1, a2, b1, b2 in matcher.get_opcodes():
        if kind != "equal":
            print(f"    {' '.join(texts[0][a1:a2])!r} for {' '.join(texts[1][b1:b2])!r}")


def fuzz(folder: Path) -> None:
    dice = random.Random(3)
    with Mosquitto(folder / "broker") as broker, Subscriber(broker.port, ("edged/#",)) as ear:
        with DaemonProcess(
            folder, broker.port, step_every=0, alsa_device="file:/nowhere.wav"
        ) as daemon:
            until(lambda: ear.on("state/settings"), "settings")
            settings = ear.on("state/settings")[-1].payload
            session = until(ear.events, "the error about the microphone")[0]["session"]
            refused = sent = 0
            started = time.monotonic()
            while sent < FUZZED:
                ear.heard.clear()
                for _ in range(20):  # a flood beyond 64 at once is dropped and counted
                    name, payload = fuzzed(dice)
                    ear.client.publish(f"edged/device/cmd/{name}", payload, 1)
                    sent += 1
                until(lambda: len(ear.on("result")) >= 20, f"answers up to {sent}")
                answers = [h.json() for h in ear.on("result")]
                refused += sum(a["ok"] is False and bool(a["error"]) for a in answers)
                assert not ear.on("state/settings"), ear.on("state/settings")
                assert not ear.on("availability"), "disconnected"
            ear.heard.clear()
            ear.publish("edged/device/cmd/config", '{"temp": 0.5}')
            changed = until(lambda: ear.on("state/settings"), "a right one still works")[-1].json()
            before = json.loads(settings)
            only = {k: v for k, v in changed.items() if before[k] != v}
            took = time.monotonic() - started
            print(f"fuzz: {sent} sent, {refused} answered with an error, in {took:.0f} s")
            print(f"  afterwards one right command changed {only}")
            ear.publish("edged/device/cmd/flush", "1")
            same = until(lambda: ear.on("flushed"), "flushed")[-1].json()["session"] == session
            print(f"  the same process: {same}, stopped in {daemon.stop():.1f} s")
            assert refused == FUZZED


def idle(folder: Path) -> None:
    for name, level in (("digital silence", 0), ("a quiet room, -60 dBFS", 33)):
        sub = folder / name.split()[0]
        sub.mkdir()
        with Mosquitto(sub / "broker") as broker, Subscriber(broker.port, ("edged/#",)) as ear:
            with PacedMicrophone() as paced:
                noise = np.random.default_rng(1).normal(0, level, 90 * SAMPLE_RATE)
                paced.play(noise.astype(np.int16))
                daemon = DaemonProcess(sub, broker.port, alsa_device=DEVICE)
                daemon.environment = paced.environment
                with daemon:
                    until(lambda: ear.on("step"), "steps")
                    time.sleep(5)
                    share, threads = _cpu(daemon, 60)
                    print(f"idle: {name}: {share:.2%} of one core; {len(ear.on('text'))} texts")
                    print(f"  by thread: {threads}")
                    daemon.stop()


def muted(folder: Path) -> None:
    with Mosquitto(folder / "broker") as broker, Subscriber(broker.port, ("edged/#",)) as ear:
        with PacedMicrophone() as paced:
            daemon = DaemonProcess(folder, broker.port, alsa_device=DEVICE)
            daemon.environment = paced.environment
            with daemon:
                until(lambda: ear.on("step"), "steps")
                before = len(paced.recorders())
                ear.publish("edged/device/cmd/mute", "on")
                until(lambda: _mic(ear) == "muted", "muted")
                after = len(paced.recorders())
                time.sleep(2)
                steps = len(ear.on("step"))
                share, threads = _cpu(daemon, 60)
                print(f"muted: recorders at the sound server {before} -> {after}")
                print(f"  {share:.2%} of one core, {len(ear.on('step')) - steps} steps; {threads}")
                daemon.stop()


def _cpu(daemon: DaemonProcess, seconds: float) -> tuple[float, str]:
    """Share of one core over that time, and who used it (by the threads' numbers)."""
    assert daemon.process is not None
    process = psutil.Process(daemon.process.pid)

    def by_thread() -> dict[str, float]:
        names = {}
        for t in process.threads():
            path = Path(f"/proc/{process.pid}/task/{t.id}/comm")
            names[f"{path.read_text().strip()}-{t.id}"] = t.user_time + t.system_time
        return names

    first, began = sum(process.cpu_times()[:2]), by_thread()
    time.sleep(seconds)
    used = sum(process.cpu_times()[:2]) - first
    ended = by_thread()
    shares = [f"{(ended[t] - began.get(t, 0)) / seconds:.2%}" for t in ended]
    return used / seconds, ", ".join(shares)


def stop(folder: Path) -> None:
    took, lost = [], 0
    for n in range(STOPS):
        sub = folder / str(n)
        sub.mkdir()
        with Mosquitto(sub / "broker") as broker, Subscriber(broker.port, ("edged/#",)) as ear:
            with DaemonProcess(sub, broker.port) as daemon:
                until(lambda: len(ear.on("text")) > n + 1, "words")  # noqa: B023
                took.append(daemon.stop())
                until(lambda: ear.on("availability")[-1].payload == b"offline", "offline")
                kinds = [e["type"] for e in ear.events()]
                lost += kinds[-2:] != ["turn", "end_of_stream"] or "did not end" in daemon.log()
    print(
        f"stop: {STOPS} in mid sentence, {statistics.median(took):.2f} s median, "
        f"{max(took):.2f} s at most; without the last turn: {lost}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*")
    parser.add_argument("--speech", type=Path, default=SAMPLES, help="a folder of clips")
    parser.add_argument("--manifest", type=Path, help="clips of formats, as edged bench has them")
    parser.add_argument("--minutes", type=float, default=5, help="of latency and flush")
    parser.add_argument("--slow", type=float, default=1, help="as a device so many times slower")
    asked = parser.parse_args()
    cases: dict[str, Callable[[Path], None]] = {
        "latency": lambda folder: latency(folder, asked.speech, asked.minutes, asked.slow),
        "flush": lambda folder: flush(folder, asked.speech, asked.minutes, asked.slow),
        "mic": mic,
        "stall": lambda folder: stall(folder, asked.speech),
        "stereo": lambda folder: stereo(folder, asked.speech),
        "formats": lambda folder: formats(asked.manifest),
        "fuzz": fuzz,
        "idle": idle,
        "muted": muted,
        "stop": stop,
    }
    for what in asked.what or cases:
        if what not in cases:
            sys.exit(f"daemon-bench has {', '.join(cases)}, not {what}")
        with tempfile.TemporaryDirectory(prefix="edged-") as folder:
            cases[what](Path(folder))


if __name__ == "__main__":
    main()
