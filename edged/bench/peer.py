"""Measures upstream's own library (moonshine-voice) on the same clips, in a process of its own.

Its cost and memory are then its own, and a crash does not affect edged. Each clip is a stream that
is fed 80 ms at a time at the library's sample rate. Only the library's calls are timed.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from edged import SAMPLE_RATE
from edged.bench.manifest import Clip
from edged.bench.measure import frames, peak_rss
from edged.errors import ConfigError, ModelError
from edged.models.catalogue import shipped
from edged.models.store import FileState, ModelStore, default_models_dir, repair_hint

UPDATE_S = 0.5  # how often the library decodes the current line again
PEER_RATE = 16_000
CHUNK = 1_280  # samples: 80 ms


@dataclass(frozen=True, slots=True)
class PeerResult:
    """Final texts of the clips; durations in seconds, memory in bytes."""

    texts: list[str]
    audio_s: float
    cpu_s: float
    peak_rss: int


def upstream_dir(models_dir: Path | None, model: str) -> Path:
    """Returns the folder of upstream's own model files. Raises ModelError if one is missing."""
    store, entry = ModelStore(models_dir or default_models_dir()), shipped().recogniser(model)
    for file in entry.files:
        if store.quick_check(entry, file) is not FileState.READY:
            raise ModelError(f"{store.path(entry, file)} is missing", repair_hint(entry))
    return store.path(entry, entry.files[0]).parent


def measure_peer(clips: Sequence[Clip], model_dir: Path) -> PeerResult:
    """Measures the library. Raises ConfigError if it is not installed or fails."""
    if importlib.util.find_spec("moonshine_voice") is None:
        raise ConfigError(
            "--peer moonshine-voice needs that package: install edged with its extra `peer`"
        )
    request = {"model_dir": str(model_dir), "files": [str(clip.file) for clip in clips]}
    child = subprocess.run(
        [sys.executable, "-P", "-m", "edged.bench.peer"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"moonshine-voice failed (exit {child.returncode}): {last}")
    return PeerResult(**json.loads(child.stdout.splitlines()[-1]))


def _run(model_dir: str, files: Sequence[str]) -> PeerResult:
    from moonshine_voice.moonshine_api import ModelArch
    from moonshine_voice.transcriber import Transcriber

    transcriber = Transcriber(model_dir, ModelArch.TINY, update_interval=UPDATE_S)
    texts: list[str] = []
    audio_s = cpu_s = 0.0
    for file in files:
        samples = _audio(file)
        audio_s += len(samples) / PEER_RATE
        chunks = [samples[at : at + CHUNK].tolist() for at in range(0, len(samples), CHUNK)]
        started = time.process_time()
        texts.append(_stream(transcriber, chunks))
        cpu_s += time.process_time() - started
    return PeerResult(texts, audio_s, cpu_s, peak_rss())


def _stream(transcriber: Any, chunks: Sequence[list[float]]) -> str:
    stream = transcriber.create_stream()
    stream.start()
    for chunk in chunks:
        stream.add_audio(chunk, PEER_RATE)
    transcript = stream.stop()
    stream.close()
    return " ".join(line.text.strip() for line in transcript.lines)


def _audio(file: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    samples = np.concatenate([*frames(Path(file))]).astype(np.float32) / np.float32(2**15)
    return np.asarray(soxr.resample(samples, SAMPLE_RATE, PEER_RATE), np.float32)


if __name__ == "__main__":
    request = json.load(sys.stdin)
    print(json.dumps(asdict(_run(request["model_dir"], request["files"]))))
