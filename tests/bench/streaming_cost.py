"""What a step of Moonshine's streaming models costs, beside tiny-en's, on one thread.

    python -m tests.bench.streaming_cost [--sizes tiny,small] [--seconds 12]

The models have the real sizes, 8 bits and random weights. Their text hardly depends on the audio,
so that the drafts of the last update are right, as they mostly are with real weights.
Times are CPU times of the thread, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edged.audio.files import read_samples
from edged.audio.sample_history import SampleHistory
from edged.export.moonshine_streaming import build
from edged.models.loader import load as load_models
from edged.models.samples import samples
from edged.options import Options
from edged.ortsession import limit_malloc_growth, release_memory
from edged.stt.family import RATE, Floats, SpeechModel
from edged.stt.moonshine_streaming.model import MoonshineStreaming
from edged.stt.recogniser import Recogniser
from edged.stt.second_pass import transcribe
from tests.support.streaming_models import REAL, write_model

STEP = RATE * 80 // 1000
ROWS = 60  # tokens that are in the decoder's cache when a run is measured


@dataclass(frozen=True)
class Cost:
    """CPU seconds: of the encoder and of the whole first pass for each second of audio, of the
    second pass likewise; of the dearest step; of a decoder run of 1 and of 8 tokens. runs: of the
    decoder, for each second of audio."""

    encoder: float
    first_pass: float
    second_pass: float
    worst_step: float
    run_of_1: float
    run_of_8: float
    runs: float


def speech(seconds: float) -> Floats:
    """The sample speech, as often as needed."""
    parts = [read_samples(str(sample.path))[0][:, 0] for sample in samples()]
    whole: Floats = np.concatenate(parts * 9)
    return whole[: int(seconds * RATE) // STEP * STEP]


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def timed(work: Callable[[], Any]) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started


def measure(model: SpeechModel, audio: Floats) -> Cost:
    """audio: float32[n] at 16 kHz, one segment of at most 15 s."""
    seconds = len(audio) / RATE
    tuning = model.tuning(10)
    encoder = model.streaming_encoder(tuning, int(seconds / model.timing.frame_s) + 20)
    spent, covered, output = 0.0, 0, None
    for start in range(0, len(audio), STEP):
        encoder.push(audio[start : start + STEP])
        if encoder.frames - covered >= tuning.chunk_frames:
            covered = encoder.frames
            started = time.thread_time()
            output = encoder.update()
            spent += time.thread_time() - started
    assert output is not None
    step = model.decoder_step(ROWS + 80)
    step.attend_to(output)
    step.read([5] * ROWS, [range(row + 1) for row in range(ROWS)], 0, 4)
    runs = []
    for count in (1, 8):
        times = []
        for _ in range(20):
            step.keep(range(ROWS))
            branches = [range(ROWS, ROWS + n + 1) for n in range(count)]
            started = time.thread_time()
            step.read([5] * count, branches, ROWS, 4)
            times.append(time.thread_time() - started)
        runs.append(float(np.median(times)))
    recogniser, history = Recogniser(model, Options()), SampleHistory(60 * RATE)
    recogniser.begin(0)
    steps = []
    for start in range(0, len(audio), STEP):
        history.append(audio[start : start + STEP])
        steps.append(timed(lambda: recogniser.advance(history, history.end)))
    steps.append(timed(lambda: recogniser.finish(history, history.end)))
    tokens = recogniser.finished[-1].tokens
    second = timed(lambda: transcribe(model, audio, draft=tokens))
    return Cost(
        spent / seconds,
        sum(steps) / seconds,
        second / seconds,
        max(steps),
        runs[0],
        runs[1],
        recogniser.runs / seconds,
    )


def random_model(folder: Path, size: str, rewired: bool) -> MoonshineStreaming:
    """A model of the real size. rewired: else as it was published."""
    if not (folder / "tokenizer.bin").exists():
        write_model(folder, REAL[size], bits=8)
    out = folder / ("rewired" if rewired else "published")
    if not out.exists():
        build(folder, out, None, "en", rewired)
    model = MoonshineStreaming.load(folder, out, "en", 1)
    bounds = replace(model.confidence, short_p=0.0, long_p=0.0)  # random weights are never sure
    return replace(model, confidence=bounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="tiny,small")
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--folder", type=Path, help="where the models are kept, to run it again")
    given = parser.parse_args()
    limit_malloc_growth()
    audio = speech(given.seconds)
    print(
        "CPU s a second of audio: encoder | first pass | second pass | real time / first pass;"
        " ms: dearest step | run of 1 token | of 8; runs a second; MB that it makes resident"
    )

    def show(name: str, load: Callable[[], SpeechModel]) -> None:
        before = resident_mb()
        model = load()
        measure(model, audio)  # warms up
        c = measure(model, audio)
        print(
            f"{name:28} {c.encoder:.3f} | {c.first_pass:.3f} | {c.second_pass:.3f} |"
            f" {1 / c.first_pass:.1f}; {c.worst_step * 1e3:.0f} | {c.run_of_1 * 1e3:.1f} |"
            f" {c.run_of_8 * 1e3:.1f}; {c.runs:.1f}; {resident_mb() - before:.0f}",
            flush=True,
        )

    show("tiny-en", lambda: load_models().recogniser)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        for rewired in (True, False):
            for size in given.sizes.split(","):
                form = "rewired" if rewired else "as published"
                random_model(folder / size, size, rewired)  # builds it
                gc.collect()
                release_memory()
                load = functools.partial(random_model, folder / size, size, rewired)
                show(f"streaming {size}, {form}", load)


if __name__ == "__main__":
    main()
