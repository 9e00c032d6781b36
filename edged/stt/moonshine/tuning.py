"""Settings of the first pass for each delay. README.md in the folder above has the figures."""

from __future__ import annotations

from edged.stt.family import Tuning

LONG_DELAY_FRAMES = 14  # steps of 80 ms from which upstream's encoder is the better one

SHORT_DELAY = Tuning(chunk_frames=10, revised_frames=45, adapted_encoder=True)
LONG_DELAY = Tuning(
    chunk_frames=10,
    revised_frames=220,
    adapted_encoder=False,
    prefix_lag_s=2.0,
    early_commit_s=0.0,
    uncontested_p=1.1,
)


def tuning_for(delay_in_frames: int) -> Tuning:
    """What suits words that are committed `delay_in_frames` steps of 80 ms late."""
    return LONG_DELAY if delay_in_frames >= LONG_DELAY_FRAMES else SHORT_DELAY
