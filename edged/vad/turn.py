"""Smart Turn v3.2: does what was just said sound complete?"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edged.vad.mel import SAMPLES, log_mel

if TYPE_CHECKING:
    import onnxruntime as ort

SLOWEST_S = 0.4  # an answer that takes longer comes after the turn would have ended without it
ASK_AFTER_S = (0.2, 0.8)  # of silence: when speech has just stopped, and while the pause lasts
MIN_SPEECH_S = 0.1


class SmartTurn:
    """The network of Daily's smart-turn-v3 (BSD-2): about 70 ms a run on one core.

    Stateless, so one instance may serve several threads; too long for an 80 ms step, so it is
    run beside the step, when speech has just stopped.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def probability(self, x: NDArray[np.float32]) -> float:
        """float32[n], 16 kHz, the turn so far with its closing silence -> P(complete).

        Only the last 8 s count.
        """
        (probability,) = self._session.run(None, {"input_features": log_mel(x)[None]})
        return float(probability[0, 0])

    def run_time_s(self) -> float:
        """What one answer takes here: the better of two, for the first run also sets up."""
        return min(self._timed(), self._timed())

    def _timed(self) -> float:
        start = time.perf_counter()
        self.probability(np.zeros(SAMPLES, np.float32))
        return time.perf_counter() - start


class Asker:
    """Asks Smart Turn once speech has just stopped and again while the pause lasts.

    At most one question is open; an answer about a pause that is over is thrown away.
    """

    def __init__(self, smart_turn: SmartTurn | None, beside: Executor) -> None:
        self._smart_turn, self._beside = smart_turn, beside
        self._open: Future[float] | None = None
        self._answers: list[float] = []
        self._due_at = 0  # which of ASK_AFTER_S comes next
        self.asked = self.failures = 0

    def push(
        self, silence_s: float | None, speech_s: float, audio: Callable[[], NDArray[np.float32]]
    ) -> float | None:
        """One step -> the mean of the answers in this pause, None while there is none.

        The mean, for the quantised network's answers scatter: a change of 1e-6 in its input can
        move one by 0.3.
        `audio` gives the turn so far (float32[n], 16 kHz); it is called only to ask.
        """
        if not silence_s:
            self._forget()
        elif self._open is None and self._due(silence_s, speech_s) and self._smart_turn:
            self._due_at += 1
            self.asked += 1
            self._open = self._beside.submit(self._smart_turn.probability, audio().copy())
        return self._collected()

    def turn_over(self) -> None:
        """The turn was closed: this pause needs no further answer."""
        self._due_at = len(ASK_AFTER_S)

    def _due(self, silence_s: float, speech_s: float) -> bool:
        if self._due_at >= len(ASK_AFTER_S) or speech_s < MIN_SPEECH_S:
            return False
        return silence_s >= ASK_AFTER_S[self._due_at]

    def _collected(self) -> float | None:
        if self._open is not None and self._open.done():
            if self._open.exception() is None:
                self._answers.append(self._open.result())
            else:
                self.failures += 1
            self._open = None
        return sum(self._answers) / len(self._answers) if self._answers else None

    def _forget(self) -> None:
        if self._open is not None:
            self._open.cancel()
        self._open = None
        self._answers = []
        self._due_at = 0
