"""Measures the API server: `make api-bench ARGS="live first long fuzz same opus memory"`, or all.

live: 8 streams in real time for a minute: how late is each step, and are they treated alike?
first: is the microphone processed in time while the streams take all that is left?
long: 2 h of speech through one socket at 20 times real time: drift and memory.
fuzz: 50 000 hostile messages on each protocol, and 2000 sockets with broken frames, beside a stream
    that goes on.
same: is the text of a file the one of `edged transcribe`?
opus: word errors of Opus at 24 kbit/s against WAV.
memory: what a stream costs.
wyoming: from the end of speech to the final transcript, in real time.
realtime: from the end of a word to its delta, beside the same audio on Gradium's API.

The server is `edged serve` in a process of its own; figures go to standard output. CPU seconds are
the server's own, so they hold on a machine that does other work. Lateness does not, except with
`chrt -r 1` (as root), where the rest of the machine waits for the benchmark. Do not use that for
`first`: real-time threads ignore niceness, by which the microphone goes first. Use
`echo -20 > /proc/self/autogroup` in a session of its own (`setsid`) instead.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import soundfile
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient

from edged.bench import wer
from edged.bench.manifest import read_manifest
from edged.engine.session import Session
from edged.events import Turn
from edged.models.loader import load
from edged.models.samples import samples
from edged.options import Options
from tests.support.api_fuzz import hostile_message
from tests.support.daemon_process import DaemonProcess
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.sample_audio import opus, pcm

MEASUREMENTS = ("live", "first", "long", "fuzz", "same", "opus", "memory", "wyoming", "realtime")
STEP_S = 0.08
STREAMS = 8
APART_S = 0.37
FASTER = 20
PAUSE = np.zeros(24_000 * 2, np.int16)
# The rate of new sessions from one address is lower than that of the fuzzer.
EDGED = (
    "from edged.server import access; access.BURST = 10**9;from edged.cli.main import main; main()"
)
SETUP = json.dumps({"type": "setup", "input_format": "pcm"})


@contextlib.contextmanager
def server(streams: int) -> Iterator[tuple[str, str, psutil.Process]]:
    address, wyoming_address = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [sys.executable, "-c", EDGED, "serve", "--listen", address]
    command += ["--wyoming", wyoming_address]
    process = subprocess.Popen(
        [*command, "--max-streams", str(streams)],
        env=os.environ | {"EDGED_LOG_LEVEL": "warning"},
    )
    try:
        while not _is_open(f"http://{address}"):
            time.sleep(0.1)
        yield address, wyoming_address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(10)


def _is_open(url: str) -> bool:
    with contextlib.suppress(OSError):
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    return False


def cpu_s(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def speech(first: int = 0) -> list[str]:
    """The sample clips with pauses, as audio messages of one step each."""
    clips = [np.concatenate([pcm(sample.path), PAUSE]) for sample in samples()]
    audio = np.concatenate(clips[first:] + clips[:first])
    audio = audio[: len(audio) // 1920 * 1920].reshape(-1, 1920)
    return [
        json.dumps({"type": "audio", "audio": base64.b64encode(step.tobytes()).decode()})
        for step in audio
    ]


async def live_stream(url: str, number: int, streams: int, seconds: float) -> list[float]:
    """Lateness in ms of each step: from sending its last sample to its message."""
    messages = speech(number % 4)
    late: list[float] = []
    async with connect(url, compression=None) as socket:
        await socket.send(SETUP)
        await socket.recv()
        await asyncio.sleep(number * APART_S)  # streams do not begin at the same time
        start = time.monotonic()
        sent_at: list[float] = []

        async def speak() -> None:
            for n in range(round(seconds / STEP_S)):
                await asyncio.sleep(max(0.0, start + (n + 1) * STEP_S - time.monotonic()))
                sent_at.append(time.monotonic())  # the benchmark's own lateness does not count
                await socket.send(messages[n % len(messages)])
            await socket.send('{"type": "end_of_stream"}')

        speaker = asyncio.create_task(speak())
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                if '"step"' in text:
                    late.append((time.monotonic() - sent_at[len(late)]) * 1000)
        await speaker
    return late


async def live(url: str, process: psutil.Process, streams: int, seconds: float) -> None:
    before, start = cpu_s(process), time.monotonic()
    all_late = await asyncio.gather(
        *(live_stream(url, n, streams, seconds) for n in range(streams))
    )
    took, work = time.monotonic() - start, cpu_s(process) - before
    flat = sorted(ms for late in all_late for ms in late)
    print(f"live: {streams} streams, {len(flat)} steps in {seconds:.0f} s")
    print(
        f"  CPU seconds per audio second: {work / len(flat) / STEP_S:.3f}; "
        f"{work / took:.2f} of {os.cpu_count()} cores"
    )
    shares = ", ".join(f"p{p * 100:g} {_at(flat, p):.0f}" for p in (0.5, 0.9, 0.99, 0.999, 1.0))
    print(f"  lateness in ms: {shares}")
    print(f"  later than a step (80 ms): {sum(ms > 80 for ms in flat) / len(flat):.2%}")
    print(f"  later than three (240 ms): {sum(ms > 240 for ms in flat) / len(flat):.2%}")
    medians = [statistics.median(late) for late in all_late]
    means = [statistics.fmean(late) for late in all_late]
    print(
        f"  of the streams: medians {min(medians):.1f} to {max(medians):.1f} ms, "
        f"means {min(means):.1f} to {max(means):.1f} ms"
    )


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[round(share * (len(ordered) - 1))]


async def first(seconds: float) -> None:
    """The daemon plays its sample speech as the microphone; then two files are sent repeatedly, as
    fast as they are accepted."""
    listen = f"127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "broker").mkdir()
        broker = stack.enter_context(Mosquitto(folder / "broker"))
        settings: dict[str, Any] = {"alsa_device": "sample", "listen": listen, "max_streams": 2}
        stack.enter_context(DaemonProcess(folder, broker.port, **settings))
        events = await connect(f"ws://{listen}/api/events", compression=None)
        arrived = []

        async def subscribe() -> None:
            async for text in events:
                message = json.loads(text)
                if message["type"] == "step":
                    arrived.append((message["step_idx"], time.monotonic()))

        subscriber = asyncio.create_task(subscribe())
        await asyncio.sleep(seconds)
        alone = len(arrived)
        processed_s = 0.0

        async def send() -> None:
            nonlocal processed_s
            messages = speech()
            async with connect(f"ws://{listen}/api/speech/asr", compression=None) as socket:
                await socket.send(SETUP)
                sender = asyncio.create_task(_send_all(socket, messages * 1000))
                async for text in socket:
                    processed_s += STEP_S * ('"step"' in text)
                sender.cancel()

        senders = [asyncio.create_task(send()) for _ in range(2)]
        await asyncio.sleep(seconds)
        for task in [*senders, subscriber]:
            task.cancel()
        await asyncio.gather(*senders, subscriber, return_exceptions=True)
        await events.close()
    offset = min(at - step * STEP_S for step, at in arrived)
    late = [(at - step * STEP_S - offset) * 1000 for step, at in arrived]
    assert [step for step, _ in arrived] == list(range(arrived[0][0], arrived[-1][0] + 1))
    print(
        "first: the microphone alone, then beside two files at "
        f"{processed_s / seconds:.1f} x together"
    )
    for name, part in (("alone", late[:alone]), ("beside", late[alone:])):
        flat = sorted(part)
        shares = ", ".join(f"p{p * 100:g} {_at(flat, p):.0f}" for p in (0.5, 0.9, 0.99, 1.0))
        print(f"  {name}: {len(flat)} steps, lateness in ms: {shares}")


async def long(url: str, process: psutil.Process, hours: float) -> None:
    """Repeats the same minute of speech: a word of the last round must have the time of the same
    word a whole number of rounds earlier."""
    messages = speech()
    total = round(hours * 3600 / STEP_S)
    period_s = len(messages) * STEP_S
    memory: list[float] = []
    rounds: dict[int, list[tuple[str, float]]] = {}
    steps = 0
    before = cpu_s(process)
    async with connect(url, compression=None) as socket:
        await socket.send(SETUP)
        start = time.monotonic()

        async def speak() -> None:
            for n in range(total):
                early = start + n * STEP_S / FASTER - time.monotonic()
                if early > 0:
                    await asyncio.sleep(early)
                await socket.send(messages[n % len(messages)])
            await socket.send('{"type": "end_of_stream"}')

        speaker = asyncio.create_task(speak())
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                message = json.loads(text)
                if message["type"] == "step":
                    assert message["step_idx"] == steps
                    assert abs(message["total_duration_s"] - (steps + 1) * STEP_S) < 1e-3
                    steps += 1
                    if steps % (total // 12) == 0:
                        memory.append(process.memory_info().rss / 1e6)
                        print(f"  {steps * STEP_S / 60:.0f} min: {memory[-1]:.0f} MB", flush=True)
                elif message["type"] == "text":
                    number, offset = divmod(message["start_s"], period_s)
                    rounds.setdefault(int(number), []).append((message["text"], offset))
        await speaker
    took, work = time.monotonic() - start, cpu_s(process) - before
    assert steps == total
    print(
        f"long: {steps * STEP_S / 3600:.2f} h in {took:.0f} s: {steps * STEP_S / took:.1f} x; "
        f"{work:.0f} CPU s: {steps * STEP_S / work:.1f} x on one core of its own"
    )
    whole = sorted(rounds)[:-1]  # the last one is incomplete
    late, alike = _drift(rounds[whole[1]], rounds[whole[-1]])
    late.sort(key=abs)
    print(
        f"  round {whole[-1] + 1} against round 2, {(whole[-1] - 1) * period_s / 60:.0f} min "
        f"before: {len(late)} of {alike} words are there within 1 s, off by "
        f"{statistics.median(late) * 1000:+.0f} ms in median, 9 in 10 by at most "
        f"{abs(_at(late, 0.9)) * 1000:.0f} ms"
    )
    counts = [len(rounds[number]) for number in whole]
    print(f"  words a round: {min(counts)} to {max(counts)}")
    hour = [mb for n, mb in enumerate(memory) if n >= len(memory) // 2]
    print(f"  memory in the second half: {min(hour):.1f} to {max(hour):.1f} MB")


def _drift(
    first: list[tuple[str, float]], last: list[tuple[str, float]]
) -> tuple[list[float], int]:
    """How much later each word of `last` is than the nearest same word of `first`, if that is
    within 1 s; and how many words `last` has."""
    late = []
    for word, offset in last:
        others = [offset - seen for text, seen in first if text == word]
        nearest = min(others, key=abs, default=9.0)
        if abs(nearest) < 1.0:
            late.append(nearest)
    return late, len(last)


async def fuzz(url: str, wyoming_url: str, process: psutil.Process) -> None:
    rng, sent, connections = random.Random(11), 0, 0
    before = process.memory_info().rss / 1e6
    async with connect(url, compression=None) as good:
        await good.send(SETUP)
        quiet = json.dumps({"type": "audio", "audio": base64.b64encode(bytes(3840)).decode()})
        steps = 0

        async def alive() -> None:
            nonlocal steps
            await good.send(quiet)
            while json.loads(await asyncio.wait_for(good.recv(), 20))["type"] != "step":
                pass
            steps += 1

        while sent < 50_000:
            connections += 1
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                async with connect(url, compression=None, max_queue=None) as socket:
                    await socket.send(
                        '{"type": "setup", "input_format": "pcm", "client_req_id": "keep",'
                        ' "close_ws_on_eos": false}'
                    )
                    # few: what follows an error that closes the socket is not read
                    for _ in range(rng.randrange(1, 12)):
                        sent += 1
                        await socket.send(hostile_message(rng))
            if connections % 100 == 0:
                await alive()
        wyoming_events = 0
        while wyoming_events < 50_000:
            wyoming_events += await broken_events(wyoming_url, rng)
            if wyoming_events % 50 == 0:
                await alive()
        realtime_events = 0
        realtime_url = url.replace("/api/speech/asr", "/v1/realtime?intent=transcription")
        while realtime_events < 50_000:
            realtime_events += await broken_realtime(realtime_url, rng)
            await alive()
        for number in range(2000):
            await broken_frames(url, rng)
            if number % 100 == 0:
                await alive()
    after = process.memory_info().rss / 1e6
    print(
        f"fuzz: {sent} Gradium messages on {connections} connections, {wyoming_events} Wyoming and "
        f"{realtime_events} realtime events, 2000 sockets of broken frames; "
        f"the good stream had all {steps} steps"
    )
    print(f"  memory: {before:.0f} to {after:.0f} MB")


WYOMING = (
    b'{"type": "describe"}\n',
    b'{"type": "transcribe", "data": {"language": "en"}}\n',
    b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 1}}\n',
    b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}, '
    b'"payload_length": 8}\n12345678',
    b'{"type": "audio-stop"}\n',
    b'{"type": "ping", "data_length": 2}\n{}',
)


async def broken_events(url: str, rng: random.Random) -> int:
    """Wyoming events on one connection, some of them damaged, until it is closed."""
    host, _, port = url.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    count = rng.randrange(1, 60)
    data = bytearray(b"".join(rng.choice(WYOMING) for _ in range(count)))
    for _ in range(rng.randrange(3)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(bytes(data))
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 5)
    writer.transport.abort()
    return count


async def broken_realtime(url: str, rng: random.Random) -> int:
    """Events of OpenAI's realtime API on one socket, with wrong values in them."""
    names = ("type", "audio", "session", "event_id", "input", "format", "turn_detection")
    values: list[Any] = [None, 1, -1.5, "", "AAAA", "audio/pcm", [], {}, {"input": {}}, True, "x"]
    types = ("append", "commit", "clear")
    count = rng.randrange(1, 200)
    with contextlib.suppress(ConnectionClosed, TimeoutError):
        async with connect(url, compression=None, max_queue=None) as socket:
            for _ in range(count):
                message = {name: rng.choice(values) for name in rng.sample(names, 4)}
                message["type"] = f"input_audio_buffer.{rng.choice(types)}"
                if rng.random() < 0.3:
                    message["type"] = rng.choice(("session.update", "transcription_session.update"))
                text = json.dumps(message)
                await socket.send(text if rng.random() < 0.8 else text[: rng.randrange(len(text))])
    return count


async def broken_frames(url: str, rng: random.Random) -> None:
    host, _, port = url.split("/")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        "GET /api/speech/asr HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    writer.write(head.encode() + rng.randbytes(rng.randrange(1, 300)))
    with contextlib.suppress(ConnectionError, TimeoutError):
        await asyncio.wait_for(reader.read(200), 5)
    writer.transport.abort()


def clips(manifest: Path | None) -> list[Any]:
    if manifest is None:
        return [SimpleNamespace(path=s.path, text=s.text) for s in samples()]
    return [SimpleNamespace(path=c.file, text=c.text) for c in read_manifest(manifest) if c.text]


async def transcribed(url: str, form: str, data: bytes) -> list[tuple[str, float]]:
    """Words and times of a file through a socket, in messages of an odd size."""
    async with connect(url, compression=None, max_queue=None) as socket:
        await socket.send(json.dumps({"type": "setup", "input_format": form}))
        for at in range(0, len(data), 9999):
            part = base64.b64encode(data[at : at + 9999]).decode()
            await socket.send(json.dumps({"type": "audio", "audio": part}))
        await socket.send('{"type": "end_of_stream"}')
        words = []
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                message = json.loads(text)
                assert message["type"] != "error", message
                if message["type"] == "text":
                    words.append((message["text"], message["start_s"]))
        return words


def same(url: str, manifest: Path | None) -> None:
    """Each clip as WAV at its own rate and number of channels, and as it is where it is Opus."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, clip in enumerate(clips(manifest)):
            if clip.path.suffix == ".opus":
                files.append(clip.path)
                continue
            audio, rate = soundfile.read(clip.path, dtype="int16")
            files.append(Path(folder) / f"{number}.wav")
            soundfile.write(files[-1], audio, rate, subtype="PCM_16")
        ran = subprocess.run(
            [sys.executable, "-c", EDGED, "transcribe", "--format", "events", *map(str, files)],
            stdout=subprocess.PIPE,
            check=True,
        )
        expected: dict[str, list[tuple[str, float]]] = {str(file): [] for file in files}
        for line in ran.stdout.splitlines():
            event = json.loads(line)
            if event["type"] == "text":
                expected[event["file"]].append((event["text"], event["start_s"]))
        equal: Counter[str] = Counter()
        for file in files:
            form = {".wav": "wav", ".opus": "opus"}[file.suffix]
            words = asyncio.run(transcribed(url, form, file.read_bytes()))
            key = "equal" if words == expected[str(file)] else "different"
            equal[f"{form} {key}"] += 1
            if key == "different":
                print(f"  {file}:\n    {expected[str(file)]}\n    {words}")
        word_count = sum(map(len, expected.values()))
        print(f"same: {len(files)} files, {word_count} words with their times: {dict(equal)}")


def opus_errors(url: str, manifest: Path | None, save: Path | None) -> None:
    sums = {"wav": wer.Errors(), "opus": wer.Errors()}
    texts_of_clips = []
    for clip in clips(manifest):
        audio = pcm(clip.path) if _is_mono(clip.path) else None
        if audio is None:
            continue
        buffer = io.BytesIO()
        soundfile.write(buffer, audio, 24_000, format="WAV", subtype="PCM_16")
        texts = {}
        for form, data in (("wav", buffer.getvalue()), ("opus", opus(clip.path, 24_000))):
            words = asyncio.run(transcribed(url, form, data))
            texts[form] = " ".join(word for word, _ in words)
            sums[form] += wer.errors(clip.text, texts[form])
        texts_of_clips.append({"file": str(clip.path), "text": clip.text, **texts})
    print(f"opus: {len(texts_of_clips)} clips, {sums['wav'].reference_words} words")
    for form, errors in sums.items():
        print(f"  WER from {form}: {errors.rate:.2%}")
    if save is not None:
        save.write_text("\n".join(map(json.dumps, texts_of_clips)))


def _is_mono(path: Path) -> bool:
    return bool(soundfile.info(path).channels == 1)


async def memory(url: str, process: psutil.Process) -> None:
    """Each stream processes a minute of speech before the next one begins."""
    messages = speech()
    print("memory:")
    print(f"  no stream: {process.memory_info().rss / 1e6:.0f} MB")
    async with contextlib.AsyncExitStack() as stack:
        for number in range(1, STREAMS + 1):
            socket = await stack.enter_async_context(connect(url, compression=None))
            await socket.send(SETUP)
            sender = asyncio.create_task(_send_all(socket, messages))
            steps = 0
            while steps < len(messages):
                steps += json.loads(await socket.recv())["type"] == "step"
            await sender
            print(f"  {number} open: {process.memory_info().rss / 1e6:.0f} MB", flush=True)


async def _send_all(socket: Any, messages: list[str]) -> None:
    with contextlib.suppress(ConnectionClosed):
        for message in messages:
            await socket.send(message)


async def wyoming(url: str, manifest: Path | None, save: Path | None) -> None:
    """Each clip in real time: once until the turn ends by itself, once with `audio-stop` 0.3 s
    after the last word, which is when the end of speech is detected by others at the earliest."""
    host, _, port = url.rpartition(":")
    models = load()
    waits: dict[str, list[float]] = {"turn end": [], "audio-stop": []}
    for clip in clips(manifest):
        if not _is_mono(clip.path):
            continue
        audio = pcm(clip.path)
        session = Session(models, Options())
        frames = audio[: len(audio) // 1920 * 1920].reshape(-1, 1920)
        events = [e for frame in frames for e in session.push(frame, True)] + session.end()
        turns = [e for e in events if isinstance(e, Turn) and e.words]
        if len(turns) != 1:
            continue
        end_s = turns[0].words[-1].stop_s
        for name, silence_s in (("turn end", 3.0), ("audio-stop", 0.3)):
            spoken = audio[: round((end_s + silence_s) * 24_000)].tobytes()
            missing = round((end_s + silence_s) * 48_000) // 2 * 2 - len(spoken)
            async with AsyncTcpClient(host, int(port)) as client:
                receiver = asyncio.create_task(_transcript_at(client))
                started = time.monotonic()
                await _send_paced(client, spoken + bytes(max(0, missing)), receiver)
                stopped = time.monotonic()
                if not receiver.done():
                    await client.write_event(AudioStop().event())
                arrived = await receiver
            since = started + end_s if name == "turn end" else stopped
            waits[name].append((arrived - since) * 1000)
    for name, values in waits.items():
        flat = sorted(values)
        print(
            f"wyoming, {name}: {len(flat)} clips, final transcript after "
            f"{statistics.median(flat):.0f} ms in median, p90 {_at(flat, 0.9):.0f} ms"
        )
    if save is not None:
        save.write_text(json.dumps(waits))


async def realtime(address: str) -> None:
    """The sample clips in real time, on Gradium's API and OpenAI's realtime API at once."""
    late: dict[str, list[float]] = {"Gradium's API": [], "OpenAI's realtime API": []}
    between: list[float] = []
    for sample in samples():
        audio = np.concatenate([pcm(sample.path), PAUSE])
        async with (
            connect(f"ws://{address}/api/speech/asr", compression=None) as gradium,
            connect(f"ws://{address}/v1/realtime?intent=transcription", compression=None) as openai,
        ):
            await gradium.send(SETUP)
            await gradium.recv()
            started = time.monotonic()
            readers = [
                asyncio.create_task(_words_at(gradium, "text", "text")),
                asyncio.create_task(_words_at(openai, "delta", "delta")),
            ]
            for n, at in enumerate(range(0, len(audio) - 1919, 1920), 1):
                await asyncio.sleep(max(0.0, started + n * STEP_S - time.monotonic()))
                part = base64.b64encode(audio[at : at + 1920].tobytes()).decode()
                await gradium.send(json.dumps({"type": "audio", "audio": part}))
                append = {"type": "input_audio_buffer.append", "audio": part}
                await openai.send(json.dumps(append))
            await asyncio.sleep(1.0)
        first, second = await asyncio.gather(*readers)
        stops = first.pop("stops")
        if [word for word, _ in first["words"]] != [word for word, _ in second["words"]]:
            print(f"  {sample.path.name}: the words differ")
            continue
        for stop_s, (_, at), (_, delta_at) in zip(
            stops, first["words"], second["words"], strict=True
        ):
            late["Gradium's API"].append((at - started - stop_s) * 1000)
            late["OpenAI's realtime API"].append((delta_at - started - stop_s) * 1000)
            between.append((delta_at - at) * 1000)
    for name, values in late.items():
        flat = sorted(values)
        print(
            f"realtime, {name}: {len(flat)} words, from the end of a word "
            f"{statistics.median(flat):.0f} ms in median, p90 {_at(flat, 0.9):.0f} ms"
        )
    flat = sorted(between)
    print(
        f"  a word's delta after its text: {statistics.median(flat):.1f} ms in median, "
        f"p90 {_at(flat, 0.9):.1f}, p99 {_at(flat, 0.99):.1f} ms"
    )


async def _words_at(socket: Any, kind: str, key: str) -> dict[str, Any]:
    """Words with the time at which each came, and where they stop in the audio, if that is told."""
    words: list[tuple[str, float]] = []
    stops: list[float] = []
    with contextlib.suppress(ConnectionClosed):
        async for text in socket:
            message = json.loads(text)
            assert message["type"] != "error", message
            if message["type"].rpartition(".")[2] == kind:
                words.append((message[key].strip(), time.monotonic()))
            elif message["type"] == "end_text":
                stops.append(message["stop_s"])
    return {"words": words, "stops": stops}


async def _send_paced(client: AsyncTcpClient, audio: bytes, until: asyncio.Task[float]) -> None:
    start, step = time.monotonic(), 3840
    await client.write_event(AudioStart(24_000, 2, 1).event())
    for n, at in enumerate(range(0, len(audio), step), 1):
        if until.done():
            return
        await asyncio.sleep(max(0.0, start + n * STEP_S - time.monotonic()))
        await client.write_event(AudioChunk(24_000, 2, 1, audio[at : at + step]).event())


async def _transcript_at(client: AsyncTcpClient) -> float:
    while (event := await client.read_event()) is not None:
        assert event.type != "error", event.data
        if Transcript.is_type(event.type):
            return time.monotonic()
    raise ConnectionError("closed without a transcript")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=MEASUREMENTS)
    parser.add_argument(
        "--manifest", type=Path, help="clips for same, opus and wyoming, as edged bench's"
    )
    parser.add_argument("--hours", type=float, default=2.0, help="of long")
    parser.add_argument("--seconds", type=float, default=60.0, help="of live and first")
    parser.add_argument("--streams", type=int, default=STREAMS, help="of live")
    parser.add_argument(
        "--save",
        type=Path,
        help="the texts of opus, as lines of JSON, or the times of wyoming, in ms",
    )
    arguments = parser.parse_args()
    for what in arguments.what:
        if what not in MEASUREMENTS:
            sys.exit(f"api-bench has {', '.join(MEASUREMENTS)}, not {what}")
        with server(max(STREAMS, arguments.streams)) as (address, wyoming_url, process):
            url = f"ws://{address}/api/speech/asr"
            match what:
                case "live":
                    asyncio.run(live(url, process, arguments.streams, arguments.seconds))
                case "first":
                    asyncio.run(first(arguments.seconds))
                case "long":
                    asyncio.run(long(url, process, arguments.hours))
                case "fuzz":
                    asyncio.run(fuzz(url, wyoming_url, process))
                case "same":
                    same(url, arguments.manifest)
                case "opus":
                    opus_errors(url, arguments.manifest, arguments.save)
                case "wyoming":
                    asyncio.run(wyoming(wyoming_url, arguments.manifest, arguments.save))
                case "realtime":
                    asyncio.run(realtime(address))
                case "memory":
                    asyncio.run(memory(url, process))


if __name__ == "__main__":
    main()
