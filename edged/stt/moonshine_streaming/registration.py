"""The family's entry in `edged.stt.families`. Imports nothing heavy before it is used."""

from __future__ import annotations

from pathlib import Path

from edged.stt.family import Family, Floats, SpeechCheck, SpeechModel
from edged.stt.moonshine_streaming.build_version import BUILD_VERSION, GRAPH_FILES


def _load(upstream: Path, built: Path, language: str, threads: int) -> SpeechModel:
    from edged.stt.moonshine_streaming.model import MoonshineStreaming

    return MoonshineStreaming.load(upstream, built, language, threads)


def _check(upstream: Path, built: Path, samples: Floats, threads: int) -> SpeechCheck:
    from edged.stt.moonshine_streaming.parity import check

    return check(upstream, built, samples, threads)


LANGUAGES = ("ar", "de", "en", "es", "ja", "tl", "vi", "zh")

FAMILY = Family(
    name="moonshine_streaming",
    architectures=("moonshine-streaming",),
    build_version=BUILD_VERSION,
    graph_files=GRAPH_FILES,
    load=_load,
    check=_check,
    check_languages=LANGUAGES,
)
