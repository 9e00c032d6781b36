"""The voice gate: speech probabilities in, "speech began" and "speech ended" out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WINDOW_S = 0.032  # one probability

Change = Literal["open", "close"] | None


@dataclass(slots=True)
class Gate:
    """Opens after `min_speech` windows in a row above `enter`; closes after `close_s` without one
    above `enter - 0.15` (hysteresis).

    `silence_s`: seconds since the last window with speech; None before any.
    `speech_windows`: confident ones since the gate opened.
    """

    enter: float = 0.5
    min_speech: int = 3
    close_s: float = 0.6
    is_open: bool = False
    silence_s: float | None = None
    speech_windows: int = 0
    _run: int = 0

    @property
    def leave(self) -> float:
        return max(0.05, self.enter - 0.15)

    def push(self, probability: float) -> Change:
        """One 32 ms window."""
        loud = probability > self.enter
        self._run = self._run + 1 if loud else 0
        if self.silence_s is not None:
            self.silence_s += WINDOW_S
        if self.is_open:
            self.speech_windows += loud
            if probability > self.leave:
                self.silence_s = 0.0
            elif self.silence_s is not None and self.silence_s >= self.close_s:
                return self.shut()
        elif self._run >= self.min_speech:
            self.is_open, self.silence_s, self.speech_windows = True, 0.0, self._run
            return "open"
        return None

    def shut(self) -> Change:
        """Closes it now (a turn ended, audio was lost)."""
        was_open, self.is_open, self._run = self.is_open, False, 0
        return "close" if was_open else None

    @property
    def onset_windows(self) -> int:
        """How many windows ago the speech that opened the gate began."""
        return self._run
