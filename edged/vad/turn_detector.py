"""All evidence of one stream, step by step, into inactivity and the end of turns.

Pure but for the executor that Smart Turn runs on.
"""

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

MOST_ENTER = 0.5


class TurnDetector:
    """Has the speaker finished? One `push` a step; `turn_over` when a turn was closed."""

    def __init__(
        self,
        weights: Weights,
        smart_turn: SmartTurn | None,
        beside: Executor,
        enter: float = MOST_ENTER,
    ) -> None:
        """smart_turn: None where it is not fetched or the board is too slow for it. enter: see
        `hear_from`."""
        self._clock = SpeechClock()
        self.set_threshold(enter)
        self._asker = SmartTurnScheduler(smart_turn, beside)
        self._model = Inactivity(weights)
        self._belief: TextEvidence | None = None
        self.evidence: Evidence | None = None
        self.inactivity = (0.0, 0.0, 0.0)

    def set_threshold(self, enter: float) -> None:
        """Speech begins at this probability, the voice gate's. Not above MOST_ENTER, with which the
        weights are fitted: what else the gate leaves out is speech, too."""
        self._clock.threshold = min(enter, MOST_ENTER)

    def push(
        self,
        probabilities: Sequence[float],
        belief: TextEvidence | None,
        audio: Callable[[], NDArray[np.float32]],
    ) -> tuple[float, float, float]:
        """One step -> P(nobody speaks in the next 0.5, 1.0, 2.0 s).

        probabilities: Silero's windows of the step. belief: what the recogniser now makes of
        the turn's last words, None if it has nothing to say: the last one in this pause then
        stands. audio: gives the turn so far (float32[n], 16 kHz), if Smart Turn is to be asked.
        """
        clock = self._clock
        clock.push(probabilities)
        if clock.silence_s == 0.0:
            self._belief = None
        elif belief is not None:
            self._belief = belief
        settled = self._belief is not None and self._belief.settles(clock.speech_s)
        self.evidence = Evidence(
            tuple(probabilities),
            clock.heard_s,
            clock.silence_s,
            clock.speech_s,
            self._asker.push(clock.silence_s, clock.speech_s, settled, audio),
            self._belief,
        )
        self.inactivity = self._model.push(self.evidence)
        return self.inactivity

    def is_over(self, endpoint: Endpoint) -> bool:
        """The open turn should be closed at this step."""
        e = self.evidence
        return e is not None and endpoint.is_over(
            self.inactivity[2], e.silence_s, e.unfinished, e.answer
        )

    def turn_over(self) -> None:
        """A turn was closed."""
        self._clock.turn_over()
        self._asker.turn_over()

    @property
    def asked(self) -> int:
        """How often Smart Turn was asked."""
        return self._asker.asked

    @property
    def asking_failed(self) -> int:
        """How often Smart Turn gave an error instead of an answer."""
        return self._asker.failures
