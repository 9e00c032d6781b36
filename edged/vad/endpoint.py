"""Decides that a turn is over."""

from __future__ import annotations

from dataclasses import dataclass

# How long to wait, in units of the silence setting (see models/README.md):
SOON = 0.7  # where the model is sure
LATE = 1.6  # where it stays unsure
CAP = 2.6  # where it expects more: nobody waits longer, however sure it is of that
# Where the wait begins to shrink and where it is shortest, of the way from the threshold to 1;
# what is unsure, of that to 0.
SURER = 0.4
SURE = 0.6
UNSURE = 0.5


@dataclass(slots=True)
class Endpoint:
    """The surer it is that nobody speaks for 2 s, the less silence closes a turn.

    Above `threshold` (from SURER to SURE of the way to 1) the wait shrinks from LATE to SOON times
    `silence_s`; below and shortly above it, the model is unsure, and LATE bounds the wait; far
    below, CAP does. Nothing closes before SOON: words have gaps, too.
    """

    threshold: float = 0.5
    silence_s: float = 0.7

    def wait_s(self, p_silent: float) -> float:
        """Silence that closes a turn at this P(nobody speaks for 2 s)."""
        if p_silent <= UNSURE * self.threshold:
            return CAP * self.silence_s
        above = (p_silent - self.threshold) / (1 - self.threshold) if self.threshold < 1 else 0.0
        sure = min(max((above - SURER) / (SURE - SURER), 0.0), 1.0)
        return (LATE - (LATE - SOON) * sure) * self.silence_s

    def is_over(
        self,
        p_silent: float,
        silence_s: float | None,
        unfinished: bool = False,
        answer: bool = False,
    ) -> bool:
        """silence_s: since the last speech, None before any. unfinished: what was said surely
        calls for more, so the speaker may think as long as CAP allows. answer: a word or two that
        are complete, so SOON is enough if the model finds an end likely at all."""
        if silence_s is None:
            return False
        if unfinished:
            return silence_s >= CAP * self.silence_s
        if answer and p_silent > self.threshold:
            return silence_s >= SOON * self.silence_s
        return silence_s >= self.wait_s(p_silent)
