"""Smart Turn v3.2: does what was just said sound complete?"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edged import STEP_S
from edged.ortsession import RELEASE_MEMORY, release_memory
from edged.vad.log_mel import RATE, SAMPLES, log_mel

if TYPE_CHECKING:
    import onnxruntime as ort

SLOWEST_S = 0.4  # an answer that takes longer comes after the turn would have ended without it
ASK_AFTER_S = (0.3, 0.8)  # of silence: when speech has just stopped, and while the pause lasts
# Of that silence it hears this much: the longer the silence, the more complete everything sounds
# to it (a sentence broken off in its middle: 0.04 with 0.1 s of silence, 0.86 with 1 s).
HEARS_S = (0.05, 0.1)
UNSURE = (0.1, 0.7)  # only a first answer in between is asked about again
# At 0.08 CPU s a question, asking in every pause costs up to 0.08 CPU s per second of read
# speech. So questions are rationed: one every 12 s in the long run, three in a row after a
# rest. On labelled speech 0.11 questions a second were left of 0.34 (asked twice in every pause),
# and 0.08 are since what the words settle is not asked.
# Every 6 s costs a quarter more, and no figure of the others in `make bench-turns` gains 0.03.
EVERY_S = 12.0
SAVED = 3.0
MIN_SPEECH_S = 0.1


class SmartTurn:
    """The network of Daily's smart-turn-v3 (BSD-2): about 70 ms a run on one core. Its session
    has an arena: its tensors are large, and mapped one by one they cost a quarter more time.

    Stateless, so one instance may serve several threads; too long for an 80 ms step, so it is
    run beside the step, when speech has just stopped.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def probability(self, x: NDArray[np.float32]) -> float:
        """float32[n], 16 kHz, the turn so far with its closing silence -> P(complete).

        Only the last 8 s count.
        """
        features = log_mel(x)[None]
        release_memory()  # the run needs 14 MB for a moment
        (probability,) = self._session.run(None, {"input_features": features}, RELEASE_MEMORY)
        return float(probability[0, 0])

    def run_time_s(self) -> float:
        """What one answer takes here: the better of two, for the first run also sets up.

        In CPU time of this thread, the only one that works on it: other work at start does not
        make a board slow.
        """
        return min(self._timed(), self._timed())

    def _timed(self) -> float:
        start = time.thread_time()
        self.probability(np.zeros(SAMPLES, np.float32))
        return time.thread_time() - start


class SmartTurnScheduler:
    """Asks Smart Turn once speech has just stopped, and again if the pause lasts and the first
    answer was unsure; never more often than its ration (EVERY_S, SAVED) allows.

    At most one question is open; an answer about a pause that is over is thrown away.
    """

    def __init__(self, smart_turn: SmartTurn | None, beside: Executor) -> None:
        self._smart_turn, self._beside = smart_turn, beside
        self._open: Future[float] | None = None
        self._answers: list[float] = []
        self._questions = 0  # in this pause
        self._over = False
        self._ration = SAVED
        self.asked = self.failures = 0

    def push(
        self,
        silence_s: float | None,
        speech_s: float,
        settled: bool,
        audio: Callable[[], NDArray[np.float32]],
    ) -> float | None:
        """One step -> the mean of the answers in this pause, None while there is none.

        The mean, for the quantised network's answers scatter: a change of 1e-6 in its input can
        move one by 0.3. An answer counts from the step after its question on, however fast it is.
        settled: other evidence says already what an answer could say.
        `audio` gives the turn so far (float32[n], 16 kHz); it is called only to ask.
        """
        self._ration = min(self._ration + STEP_S / EVERY_S, SAVED)
        if not silence_s:
            self._forget()
            return None
        answer = self._collected()
        if self._smart_turn and not settled and self._due(silence_s, speech_s):
            self._ask(self._smart_turn, audio(), silence_s)
        return answer

    def _ask(self, smart_turn: SmartTurn, x: NDArray[np.float32], silence_s: float) -> None:
        heard = len(x) - round((silence_s - HEARS_S[self._questions]) * RATE)
        if heard <= 0:  # the voice was too short for the gate, or its audio is gone
            return
        self._ration -= 1
        self._questions += 1
        self.asked += 1
        self._open = self._beside.submit(smart_turn.probability, x[:heard].copy())

    def turn_over(self) -> None:
        """The turn was closed: this pause needs no further answer."""
        self._over = True

    def _due(self, silence_s: float, speech_s: float) -> bool:
        if self._over or self._open is not None or self._ration < 1 or speech_s < MIN_SPEECH_S:
            return False
        if self._questions >= len(ASK_AFTER_S) or silence_s < ASK_AFTER_S[self._questions]:
            return False
        low, high = UNSURE
        return all(low <= answer <= high for answer in self._answers)

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
        self._questions = 0
        self._over = False
