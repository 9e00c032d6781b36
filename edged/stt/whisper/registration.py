"""The family's entry in `edged.stt.families`. Imports nothing heavy before it is used."""

from __future__ import annotations

from pathlib import Path

from edged.stt.family import Family, Floats, SpeechCheck, SpeechModel
from edged.stt.whisper.build_version import BUILD_VERSION, GRAPH_FILES


def _load(upstream: Path, built: Path, language: str, threads: int) -> SpeechModel:
    from edged.stt.whisper.model import Whisper

    return Whisper.load(upstream, built, threads)


def _check(upstream: Path, built: Path, samples: Floats, threads: int) -> SpeechCheck:
    from edged.stt.whisper.parity import check

    return check(upstream, built, samples, threads)


FAMILY = Family(
    name="whisper",
    architectures=("whisper",),
    build_version=BUILD_VERSION,
    graph_files=GRAPH_FILES,
    load=_load,
    check=_check,
    check_languages=("many",),
)
