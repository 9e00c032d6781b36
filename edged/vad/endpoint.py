"""Decides that a turn is over."""

from __future__ import annotations

from dataclasses import dataclass

# How much silence closes a turn, in units of the setting `turn_silence_ms` (README.md).
SHORTEST_WAIT = 0.7  # where the turn model is sure of the end
UNSURE_WAIT = 1.6  # where it is unsure
LONGEST_WAIT = 2.3  # where it expects more speech; nobody waits longer
# The wait shrinks between these two points of the way from the threshold to 1.
SHRINKS_FROM, SHRINKS_TO = 0.2, 0.4
EXPECTS_MORE = 0.5  # below this share of the threshold the model expects more speech


@dataclass(slots=True)
class Endpoint:
    """Closes a turn after a silence that is the shorter, the surer the turn model is of the end.

    threshold: P(nobody speaks for 2 s) above which the end is likely.
    silence_s: the setting that scales all waits.

    From `SHRINKS_FROM` to `SHRINKS_TO` of the way from `threshold` to 1, the wait shrinks from
    UNSURE_WAIT to SHORTEST_WAIT. Around the threshold it is UNSURE_WAIT, and far below it
    LONGEST_WAIT. Nothing closes before SHORTEST_WAIT, because words have gaps, too.
    """

    threshold: float = 0.5
    silence_s: float = 0.7

    def wait_s(self, p_silent: float) -> float:
        """Seconds of silence that close a turn at this P(nobody speaks for 2 s)."""
        if p_silent <= EXPECTS_MORE * self.threshold:
            return LONGEST_WAIT * self.silence_s
        above = (p_silent - self.threshold) / (1 - self.threshold) if self.threshold < 1 else 0.0
        sureness = min(max((above - SHRINKS_FROM) / (SHRINKS_TO - SHRINKS_FROM), 0.0), 1.0)
        return (UNSURE_WAIT - (UNSURE_WAIT - SHORTEST_WAIT) * sureness) * self.silence_s

    def is_over(
        self,
        p_silent: float,
        silence_s: float | None,
        unfinished: bool = False,
        short_answer: bool = False,
    ) -> bool:
        """Tells whether the open turn should be closed now.

        silence_s: seconds since the last speech, None before any.
        unfinished: the words surely call for more, so the speaker may think for LONGEST_WAIT.
        short_answer: a word or two that are complete in themselves, so SHORTEST_WAIT is enough
            as soon as an end is likely.
        """
        if silence_s is None:
            return False
        if unfinished:
            return silence_s >= LONGEST_WAIT * self.silence_s
        if short_answer and p_silent > self.threshold:
            return silence_s >= SHORTEST_WAIT * self.silence_s
        return silence_s >= self.wait_s(p_silent)
