"""Settings of the first pass for each delay. README.md in this folder has the figures."""

from __future__ import annotations

from edged.stt.family import Tuning

LONG_DELAY_FRAMES = 14  # steps of 80 ms from which more lookahead is worth its cost

SHORT_DELAY = Tuning(
    chunk_frames=25,
    backlog_chunk_frames=50,
    revised_frames=100,
    adapted_encoder=False,
)
LONG_DELAY = Tuning(
    chunk_frames=25,
    backlog_chunk_frames=50,
    revised_frames=125,
    adapted_encoder=False,
    prefix_lag_s=2.0,
)


def tuning_for(delay_in_frames: int) -> Tuning:
    """What suits words that are committed `delay_in_frames` steps of 80 ms late."""
    return LONG_DELAY if delay_in_frames >= LONG_DELAY_FRAMES else SHORT_DELAY
