"""Decides that a turn is over."""

from __future__ import annotations

from dataclasses import dataclass

# How long to wait, in units of the silence setting (see models/README.md):
SOON = 0.7  # where the model is sure
LATE = 1.8  # where it stays unsure
CAP = 2.6  # where it expects more: nobody waits longer, however sure it is of that
# What is sure: of the way from the threshold to 1, and of that to 0.
SURE = 0.7
UNSURE = 0.5


@dataclass(slots=True)
class Endpoint:
    """The surer it is that nobody speaks for 2 s, the less silence closes a turn.

    Above `threshold` the wait shrinks from LATE to SOON times `silence_s`; shortly below it, the
    model is unsure, and LATE bounds the wait; far below, CAP does. Nothing closes before SOON:
    words have gaps, too.
    """

    threshold: float = 0.5
    silence_s: float = 0.7

    def wait_s(self, p_silent: float) -> float:
        """Silence that closes a turn at this P(nobody speaks for 2 s)."""
        if p_silent <= UNSURE * self.threshold:
            return CAP * self.silence_s
        scale = SURE * (1 - self.threshold)
        sure = min(max((p_silent - self.threshold) / scale, 0.0), 1.0) if scale > 0 else 0.0
        return (LATE - (LATE - SOON) * sure) * self.silence_s

    def is_over(self, p_silent: float, silence_s: float | None, unfinished: bool = False) -> bool:
        """silence_s: since the last speech, None before any. unfinished: what was said surely
        calls for more, so the speaker may think as long as CAP allows."""
        if silence_s is None:
            return False
        return silence_s >= (CAP * self.silence_s if unfinished else self.wait_s(p_silent))
