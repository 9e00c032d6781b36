"""Settings of the first pass for each delay. README.md in the folder above has the figures."""

from __future__ import annotations

from edged.stt.family import Tuning

TUNING = Tuning(
    chunk_frames=25,
    backlog_chunk_frames=50,
    revised_frames=75,
    adapted_encoder=False,
)


def tuning_for(delay_in_frames: int) -> Tuning:
    """What suits words that are committed `delay_in_frames` steps of 80 ms late."""
    return TUNING
