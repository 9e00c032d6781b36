"""The model families there are."""

from __future__ import annotations

from edged.errors import ModelError
from edged.stt.family import Family
from edged.stt.moonshine.registration import FAMILY as MOONSHINE
from edged.stt.moonshine_streaming.registration import FAMILY as MOONSHINE_STREAMING
from edged.stt.whisper.registration import FAMILY as WHISPER

FAMILIES: tuple[Family, ...] = (MOONSHINE, MOONSHINE_STREAMING, WHISPER)


def family_of(architecture: str | None) -> Family:
    """The family of a catalogue entry's `architecture`.

    Raises ModelError if no family has it.
    """
    for family in FAMILIES:
        if architecture in family.architectures:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.architectures)
    raise ModelError(
        f"this version of edged cannot run models of the architecture {architecture!r}"
        f" (it knows {known})"
    )
