"""The sample speech that comes with edged, for `edged run --demo`, `models verify` and tests."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from edged import resources
from edged.errors import ModelError


@dataclass(frozen=True)
class Sample:
    """One recording (FLAC, 16 kHz mono). `text` is what is said, without punctuation."""

    path: Path
    language: str
    text: str
    speaker: str
    source: str
    licence: str
    sha256: str


def samples(language: str | None = "en") -> list[Sample]:
    """Returns the recordings in a language, or all, in the order of samples.toml.

    Raises ModelError if one is missing.
    """
    folder = resources.sample_speech()
    try:
        tables = tomllib.loads((folder / "samples.toml").read_text(encoding="utf-8"))["sample"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise ModelError(
            f"the sample speech in {folder} is missing", "Install edged again."
        ) from error
    found = [
        Sample(
            path=folder / table["file"],
            language=table.get("language", "en"),
            text=table["text"],
            speaker=table["speaker"],
            source=table["source"],
            licence=table["licence"],
            sha256=table["sha256"],
        )
        for table in tables
    ]
    return [sample for sample in found if language in (None, sample.language)]
