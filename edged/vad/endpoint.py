"""Decides that a turn is over."""

from __future__ import annotations

from dataclasses import dataclass

FLOOR_S = 0.2  # less silence than this is the gap between two words
CAP = 3.0  # times the silence setting: however sure the model is that more will come
UNSURE = 0.5  # times the threshold: below, the model expects more speech


@dataclass(slots=True)
class Endpoint:
    """A turn closes when P(silent for 2 s) exceeds `threshold`.

    silence_s bounds the wait where the model stays unsure (P between half the threshold and the
    threshold): then that much silence closes the turn. Where the model expects the speaker to go
    on, CAP times as much does.
    """

    threshold: float = 0.5
    silence_s: float = 0.7

    def is_over(self, p_silent: float, silence_s: float | None) -> bool:
        """p_silent: P(nobody speaks for 2 s). silence_s: since the last speech, None before any."""
        if silence_s is None or silence_s < FLOOR_S:
            return False
        if p_silent > self.threshold or silence_s >= CAP * self.silence_s:
            return True
        return p_silent > UNSURE * self.threshold and silence_s >= self.silence_s
