"""The voice gate: turns probabilities of speech into "speech began" and "speech ended"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WINDOW_S = 0.032  # duration of the audio that one probability stands for
HYSTERESIS = 0.15  # between the thresholds of beginning and ending; the value of Silero's own code
MIN_THRESHOLD = 0.05  # below this probability nobody speaks, however low the threshold is set
# A clear voice has this mean probability over its windows with speech. With a low threshold less
# is asked: the threshold plus CLEAR_ABOVE_THRESHOLD.
CLEAR_VOICE, CLEAR_ABOVE_THRESHOLD = 0.85, 0.35

GateChange = Literal["open", "close"] | None


@dataclass(slots=True)
class Gate:
    """Opens when a voice begins and closes when it has been silent for a while.

    threshold: a window whose probability is above it is a confident one.
    min_speech: confident windows in a row that open the gate.
    close_after_s: the gate closes after this time without a window above `close_threshold`.
    silence_s: seconds since the last window with speech; None before any.
    speech_windows: confident windows since the gate opened, those that opened it included.
    """

    threshold: float = 0.5
    min_speech: int = 3
    close_after_s: float = 0.6
    is_open: bool = False
    silence_s: float | None = None
    speech_windows: int = 0
    _run: int = 0  # confident windows in a row
    _voiced_sum: float = 0.0  # of the probabilities of windows with speech
    _voiced: int = 0  # windows with speech

    @property
    def close_threshold(self) -> float:
        """The probability down to which speech that has begun goes on."""
        return close_threshold(self.threshold)

    @property
    def voice_uncertainty(self) -> float:
        """How far the voice since the gate opened falls short of a clear one: 0 to CLEAR_VOICE.

        The difference between a clear voice's mean probability of speech and this one's.
        """
        if not self._voiced:
            return 0.0
        clear = min(CLEAR_VOICE, self.threshold + CLEAR_ABOVE_THRESHOLD)
        return max(0.0, clear - self._voiced_sum / self._voiced)

    def push(self, probability: float) -> GateChange:
        """Takes the probability of one window of 32 ms; returns what changed."""
        confident = probability > self.threshold
        if not self.is_open and self._run == 0:
            self._voiced_sum, self._voiced = 0.0, 0
        if confident or (self.is_open and probability > self.close_threshold):
            self._voiced_sum, self._voiced = self._voiced_sum + probability, self._voiced + 1
        self._run = self._run + 1 if confident else 0
        if self.silence_s is not None:
            self.silence_s += WINDOW_S
        if self.is_open:
            self.speech_windows += confident
            if probability > self.close_threshold:
                self.silence_s = 0.0
            elif self.silence_s is not None and self.silence_s >= self.close_after_s:
                return self.close()
        elif self._run >= self.min_speech:
            self.is_open, self.silence_s, self.speech_windows = True, 0.0, self._run
            return "open"
        return None

    def close(self) -> GateChange:
        """Closes the gate at once, because a turn ended or audio was lost."""
        was_open, self.is_open, self._run = self.is_open, False, 0
        return "close" if was_open else None

    @property
    def onset_windows(self) -> int:
        """How many windows ago the speech began that has just opened the gate."""
        return self._run


def close_threshold(threshold: float) -> float:
    """The probability down to which speech goes on that began above `threshold`."""
    return max(MIN_THRESHOLD, threshold - HYSTERESIS)
