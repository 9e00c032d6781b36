"""Settings of the first pass for each delay. README.md in this folder says what they rest on."""

from __future__ import annotations

from edged.stt.family import Tuning

LONG_DELAY_FRAMES = 14  # steps of 80 ms from which words may wait for a second update

# Frames of 20 ms: an update every 240 ms. The last 16 frames wait for lookahead in any case.
SHORT_DELAY = Tuning(chunk_frames=12, backlog_chunk_frames=48, revised_frames=0)
LONG_DELAY = Tuning(
    chunk_frames=12,
    backlog_chunk_frames=48,
    revised_frames=0,
    prefix_lag_s=2.0,
    early_commit_s=0.0,
    uncontested_p=1.1,
)


def tuning_for(delay_in_frames: int) -> Tuning:
    """What suits words that are committed `delay_in_frames` steps of 80 ms late."""
    return LONG_DELAY if delay_in_frames >= LONG_DELAY_FRAMES else SHORT_DELAY
