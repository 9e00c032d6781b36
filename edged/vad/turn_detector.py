"""Combines all evidence of one stream, step by step, into inactivity and the end of turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from edged.vad.endpoint import Endpoint
from edged.vad.inactivity import Inactivity, Weights
from edged.vad.smart_turn import SmartTurn, SmartTurnScheduler
from edged.vad.speech_clock import SpeechClock
from edged.vad.text_evidence import Evidence, TextEvidence

MAX_THRESHOLD = 0.5  # the voice threshold that the turn model's weights were fitted with


class TurnDetector:
    """Tells whether the speaker has finished. Call `push` at each step.

    evidence: that of the last step; None before the first one.
    inactivity: the probabilities of the last step.
    """

    def __init__(
        self,
        weights: Weights,
        smart_turn: SmartTurn | None,
        executor: Executor,
        threshold: float = MAX_THRESHOLD,
    ) -> None:
        """smart_turn: None if it is not installed or the device is too slow for it.
        executor: runs Smart Turn.
        threshold: see `set_threshold`.
        """
        self._clock = SpeechClock()
        self.set_threshold(threshold)
        self._scheduler = SmartTurnScheduler(smart_turn, executor)
        self._model = Inactivity(weights)
        self._text: TextEvidence | None = None
        self.evidence: Evidence | None = None
        self.inactivity = (0.0, 0.0, 0.0)

    def set_threshold(self, threshold: float) -> None:
        """Sets the probability at which speech begins: the voice gate's, at most MAX_THRESHOLD.

        With a higher one, speech that the gate leaves out would look like silence to weights that
        were fitted without such a case.
        """
        self.threshold = self._clock.threshold = min(threshold, MAX_THRESHOLD)

    def set_smart_turn(self, enabled: bool) -> None:
        """Switches Smart Turn off or on again, where there is one."""
        self._scheduler.enabled = enabled

    def push(
        self,
        probabilities: Sequence[float],
        text: TextEvidence | None,
        audio: Callable[[], NDArray[np.float32]],
    ) -> tuple[float, float, float]:
        """Takes one step; returns P(nobody speaks in the next 0.5, 1.0, 2.0 s).

        probabilities: of speech, of the windows in the step.
        text: what the recogniser now makes of the turn's last words. None if that is unknown: the
            last evidence of this pause then holds.
        audio: returns the turn so far (float32[n], 16 kHz). Called only if Smart Turn is to run.
        """
        clock = self._clock
        clock.push(probabilities)
        if clock.silence_s == 0.0:
            self._text = None
        elif text is not None:
            self._text = text
        conclusive = self._text is not None and self._text.is_conclusive(clock.speech_s)
        p_complete = self._scheduler.push(clock.silence_s, clock.speech_s, conclusive, audio)
        self.evidence = Evidence(
            tuple(probabilities),
            clock.heard_s,
            clock.silence_s,
            clock.speech_s,
            p_complete,
            self._text,
        )
        self.inactivity = self._model.push(self.evidence)
        return self.inactivity

    def is_over(self, endpoint: Endpoint) -> bool:
        """Whether `endpoint` closes the open turn at this step."""
        e = self.evidence
        return e is not None and endpoint.is_over(
            self.inactivity[2], e.silence_s, e.unfinished, e.short_answer
        )

    def turn_closed(self) -> None:
        """Tells the detector that the turn was closed."""
        self._clock.turn_closed()
        self._scheduler.turn_closed()

    @property
    def smart_turn_runs(self) -> int:
        """How often Smart Turn was run."""
        return self._scheduler.runs

    @property
    def smart_turn_failures(self) -> int:
        """How often Smart Turn failed."""
        return self._scheduler.failures
