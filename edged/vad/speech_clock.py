"""How long a voice has been silent, and how long it has spoken."""

from __future__ import annotations

from collections.abc import Iterable

from edged.vad.gate import WINDOW_S, close_threshold

MIN_SPEECH = 2  # windows in a row that end a silence: a single one is a click
# Windows that are only likely enough for speech to go on are speech for so long after the last one
# that was likely enough for speech to begin. What goes on for longer is noise.
MAX_SOFT = 16  # windows: 0.51 s


class SpeechClock:
    """Measures speech and silence in windows of the voice detector, independent of wall time."""

    def __init__(self, threshold: float = 0.5) -> None:
        """threshold: speech begins at this probability."""
        self.threshold = threshold
        self.reset()

    def reset(self) -> None:
        """Forgets the stream."""
        self._heard = 0
        self._speech = 0
        self._silence: int | None = None
        self._run = 0
        self._soft = 0  # windows since the last one above the threshold
        self._turn_closed = False

    def push(self, probabilities: Iterable[float]) -> None:
        """Takes the probabilities of the windows of one step."""
        for p in probabilities:
            self._heard += 1
            self._soft = 0 if p >= self.threshold else self._soft + 1
            if self._silence == 0 and self._soft > MAX_SOFT:  # the silence has begun before
                self._speech, self._silence = max(0, self._speech - MAX_SOFT), MAX_SOFT
            speaking = self._silence == 0
            voiced = p >= (close_threshold(self.threshold) if speaking else self.threshold)
            self._run = self._run + 1 if voiced else 0
            if voiced and (speaking or self._run >= MIN_SPEECH):
                if self._turn_closed:
                    self._speech, self._turn_closed = 0, False
                self._speech += 1 if speaking else MIN_SPEECH
                self._silence = 0
            elif self._silence is not None:
                self._silence += 1

    def turn_closed(self) -> None:
        """Makes `speech_s` start at 0 with the next speech."""
        self._turn_closed = True

    @property
    def heard_s(self) -> float:
        """Seconds of all audio so far."""
        return self._heard * WINDOW_S

    @property
    def speech_s(self) -> float:
        """Seconds of speech in the open turn, or in the last one until somebody speaks again."""
        return self._speech * WINDOW_S

    @property
    def silence_s(self) -> float | None:
        """Seconds since the last window with speech; None before the first one."""
        return None if self._silence is None else self._silence * WINDOW_S
