"""The voice gate: speech probabilities in, "speech began" and "speech ended" out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WINDOW_S = 0.032  # one probability
# Mean probability of the windows with speech that a voice has at least: clips of speech 0.8 to 1.0,
# music 0.6 and 0.7. Where the gate opens more easily, less is asked, this much above `enter`.
CLEAR, ABOVE_ENTER = 0.85, 0.35

HYSTERESIS = 0.15  # what Silero's own code puts between entering and leaving speech
LEAST = 0.05  # below it nobody speaks, however easily the gate opens

Change = Literal["open", "close"] | None


@dataclass(slots=True)
class Gate:
    """Opens after `min_speech` windows in a row above `enter`; closes after `close_s` without one
    above `leave` (hysteresis).

    `silence_s`: seconds since the last window with speech; None before any.
    `speech_windows`: confident ones since the gate opened. `doubt`: see there.
    """

    enter: float = 0.5
    min_speech: int = 3
    close_s: float = 0.6
    is_open: bool = False
    silence_s: float | None = None
    speech_windows: int = 0
    _run: int = 0
    _voice: float = 0.0  # sum of the probabilities of windows with speech
    _voiced: int = 0  # and how many they are

    @property
    def leave(self) -> float:
        return leave(self.enter)

    @property
    def voice_uncertainty(self) -> float:
        """How much less than CLEAR a voice was heard since the gate opened, 0 to CLEAR."""
        if not self._voiced:
            return 0.0
        clear = min(CLEAR, self.enter + ABOVE_ENTER)
        return max(0.0, clear - self._voice / self._voiced)

    def push(self, probability: float) -> Change:
        """One 32 ms window."""
        loud = probability > self.enter
        if not self.is_open and self._run == 0:
            self._voice, self._voiced = 0.0, 0
        if loud or (self.is_open and probability > self.leave):
            self._voice, self._voiced = self._voice + probability, self._voiced + 1
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


def leave(enter: float) -> float:
    """The probability down to which speech goes on that began above `enter`."""
    return max(LEAST, enter - HYSTERESIS)
