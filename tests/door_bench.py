"""The door's bar, measured: `make door-bench ARGS="live long fuzz opus"` (all, without ARGS).

live: 8 streams in real time for a minute; how late is each step?
long: 2 h of speech through one socket at 20 times real time; drift and memory.
fuzz: 50 000 hostile messages over sockets, beside a stream that must not notice.
opus: word errors of Opus at 24 kbit/s against WAV.

The server is `edged serve` in a process of its own; figures go to standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gradium
import numpy as np
import psutil
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from edged.bench import wer
from edged.bench.manifest import read_manifest
from edged.models.samples import samples
from tests.door_fuzz import hostile_message
from tests.test_door_clients import opus, pcm
from tests.test_door_processes import _is_open as is_open
from tests.test_door_processes import free_port

STEP_S = 0.08
STREAMS, LIVE_S = 8, 60
FASTER = 20
PAUSE = np.zeros(24_000 * 2, np.int16)
# One address may not begin sessions as fast as the fuzzer does.
EDGED = "from edged.server import guard; guard.BURST = 10**9;from edged.cli import main; main()"
SETUP = json.dumps({"type": "setup", "input_format": "pcm"})


@contextlib.contextmanager
def server(streams: int) -> Iterator[tuple[str, psutil.Process]]:
    address = f"127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-c",
        EDGED,
        "serve",
        "--listen",
        address,
        "--max-streams",
        str(streams),
    ]
    process = subprocess.Popen(command, env=os.environ | {"EDGED_LOG_LEVEL": "warning"})
    try:
        while not is_open(f"http://{address}"):
            time.sleep(0.1)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(10)


def speech(first: int = 0) -> list[str]:
    """The sample clips with pauses, as audio messages of one step each, over and over."""
    clips = [np.concatenate([pcm(sample), PAUSE]) for sample in samples()]
    audio = np.concatenate(clips[first:] + clips[:first])
    audio = audio[: len(audio) // 1920 * 1920].reshape(-1, 1920)
    return [
        json.dumps({"type": "audio", "audio": base64.b64encode(step.tobytes()).decode()})
        for step in audio
    ]


async def live_stream(url: str, number: int) -> list[float]:
    """Lateness in ms of each step: from when its last sample was spoken to its message."""
    messages, late = speech(number % 4), []
    async with connect(url, compression=None) as socket:
        await socket.send(SETUP)
        await socket.recv()
        await asyncio.sleep(number * STEP_S / STREAMS)
        start = time.monotonic()

        async def speak() -> None:
            for n in range(round(LIVE_S / STEP_S)):
                await asyncio.sleep(max(0.0, start + (n + 1) * STEP_S - time.monotonic()))
                await socket.send(messages[n % len(messages)])
            await socket.send('{"type": "end_of_stream"}')

        speaker = asyncio.create_task(speak())
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                message = json.loads(text)
                if message["type"] == "step":
                    spoken = start + (message["step_idx"] + 1) * STEP_S
                    late.append((time.monotonic() - spoken) * 1000)
        await speaker
    return late


async def live(url: str) -> None:
    all_late = await asyncio.gather(*(live_stream(url, n) for n in range(STREAMS)))
    flat = sorted(ms for late in all_late for ms in late)
    medians = [statistics.median(late) for late in all_late]
    print(f"live: {STREAMS} streams, {len(flat)} steps in {LIVE_S} s")
    for share in (0.5, 0.9, 0.99, 1.0):
        print(f"  lateness p{share * 100:g}: {flat[round(share * (len(flat) - 1))]:.0f} ms")
    print(f"  later than a step (80 ms): {sum(ms > 80 for ms in flat) / len(flat):.2%}")
    print(f"  medians of the streams: {min(medians):.0f} to {max(medians):.0f} ms")


async def long(url: str, process: psutil.Process, hours: float) -> None:
    messages = speech()
    total = round(hours * 3600 / STEP_S)
    memory, drift, steps = [], [], 0
    period_s = len(messages) * STEP_S
    first: dict[int, float] = {}  # the n-th word of the first round
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
                    steps += 1
                    if steps % (total // 12) == 0:
                        memory.append(process.memory_info().rss / 1e6)
                        print(f"  {steps * STEP_S / 60:.0f} min: {memory[-1]:.0f} MB", flush=True)
                elif message["type"] == "text":
                    offset = message["start_s"] % period_s
                    if message["start_s"] < period_s:
                        first[len(first)] = offset
                    else:
                        drift.append(min(abs(offset - seen) for seen in first.values()))
        await speaker
    took = time.monotonic() - start
    print(f"long: {steps * STEP_S / 3600:.2f} h in {took:.0f} s, {steps * STEP_S / took:.1f} x")
    tail = drift[-len(first) :]
    print(
        f"  words of the last round off those of the first: {statistics.median(tail):.3f} s median"
    )
    print(f"  memory, end against the middle: {memory[-1] - memory[len(memory) // 2 - 1]:+.1f} MB")


async def fuzz(url: str, process: psutil.Process) -> None:
    rng, sent, connections = random.Random(11), 0, 0
    before = process.memory_info().rss / 1e6
    async with connect(url, compression=None) as good:
        await good.send(SETUP)
        quiet = json.dumps({"type": "audio", "audio": base64.b64encode(bytes(3840)).decode()})
        steps = 0
        while sent < 50_000:
            connections += 1
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                async with connect(url, compression=None, max_queue=None) as socket:
                    await socket.send(
                        '{"type": "setup", "input_format": "pcm", "client_req_id": "keep",'
                        ' "close_ws_on_eos": false}'
                    )
                    for _ in range(rng.randrange(1, 200)):
                        sent += 1
                        await socket.send(hostile_message(rng))
            if connections % 20 == 0:
                await good.send(quiet)
                while json.loads(await asyncio.wait_for(good.recv(), 20))["type"] != "step":
                    pass
                steps += 1
    after = process.memory_info().rss / 1e6
    print(
        f"fuzz: {sent} messages on {connections} connections; the good stream had all {steps} steps"
    )
    print(f"  memory: {before:.0f} to {after:.0f} MB")


def opus_errors(address: str, manifest: Path | None) -> None:
    client = gradium.client.GradiumClient(base_url=f"http://{address}/api/", api_key="any")
    found = [SimpleNamespace(path=s.path, text=s.text) for s in samples()]
    if manifest:
        clips = (c for c in read_manifest(manifest) if c.text)
        found = [SimpleNamespace(path=c.file, text=c.text) for c in clips]
    sums = {"wav": wer.Errors(), "opus": wer.Errors()}
    for clip in found:
        for form in sums:
            data = opus(clip, 24_000) if form == "opus" else pcm(clip).tobytes()
            setup = {"input_format": "opus" if form == "opus" else "pcm"}
            text = asyncio.run(client.stt(setup, data)).text
            sums[form] += wer.errors(clip.text, text)
    print(f"opus: {sums['wav'].reference_words} words")
    for form, errors in sums.items():
        print(f"  WER from {form}: {errors.rate:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["live", "long", "fuzz", "opus"])
    parser.add_argument("--manifest", type=Path, help="clips for opus, as edged bench has them")
    parser.add_argument("--hours", type=float, default=2.0, help="of long")
    asked = parser.parse_args()
    with server(STREAMS) as (address, process):
        url = f"ws://{address}/api/speech/asr"
        for what in asked.what:
            match what:
                case "live":
                    asyncio.run(live(url))
                case "long":
                    asyncio.run(long(url, process, asked.hours))
                case "fuzz":
                    asyncio.run(fuzz(url, process))
                case "opus":
                    opus_errors(address, asked.manifest)
                case _:
                    sys.exit(f"door-bench has live, long, fuzz and opus, not {what}")


main()
