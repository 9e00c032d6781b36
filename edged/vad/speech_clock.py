"""How long the voice has been silent, and how long it has spoken: durations for the turn model."""

from __future__ import annotations

from collections.abc import Iterable

from edged.vad.gate import WINDOW_S, leave

CONFIRM = 2  # windows in a row that end a silence: a click is one


class SpeechClock:
    """Counts windows of Silero's probability; knows no other time."""

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._heard = 0
        self._speech = 0
        self._silence: int | None = None
        self._run = 0
        self._turn_over = False

    def push(self, probabilities: Iterable[float]) -> None:
        """Silero's windows of one step."""
        for p in probabilities:
            self._heard += 1
            speaking = self._silence == 0
            voiced = p >= (leave(self.threshold) if speaking else self.threshold)
            self._run = self._run + 1 if voiced else 0
            if voiced and (speaking or self._run >= CONFIRM):
                if self._turn_over:
                    self._speech, self._turn_over = 0, False
                self._speech += 1 if speaking else CONFIRM
                self._silence = 0
            elif self._silence is not None:
                self._silence += 1

    def turn_over(self) -> None:
        """The turn was closed: `speech_s` counts anew from the next speech on."""
        self._turn_over = True

    @property
    def heard_s(self) -> float:
        """All audio so far."""
        return self._heard * WINDOW_S

    @property
    def speech_s(self) -> float:
        """Voiced time of the turn: the last one, until somebody speaks again."""
        return self._speech * WINDOW_S

    @property
    def silence_s(self) -> float | None:
        """Since the last voiced window; None before the first."""
        return None if self._silence is None else self._silence * WINDOW_S
