"""Smart Turn v3.2: the probability that what was just said is complete."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edged import STEP_S
from edged.audio.mel import RATE
from edged.ortsession import RELEASE_MEMORY, release_memory, slowdown
from edged.vad.log_mel import SAMPLES, log_mel

if TYPE_CHECKING:
    import onnxruntime as ort

MAX_RUN_S = 0.4  # a slower answer comes after the turn would have ended without it
RUN_AFTER_S = (0.3, 0.8)  # silence after which the first and the second run of a pause start
# How much of that silence is part of the input. The longer the silence, the more complete
# everything sounds to the network.
SILENCE_KEPT_S = (0.05, 0.1)
UNSURE = (0.1, 0.7)  # a first answer in this range is followed by a second run
# A token bucket limits the runs: one each RUN_INTERVAL_S in the long run, MAX_TOKENS in a row.
RUN_INTERVAL_S = 12.0
MAX_TOKENS = 3.0
MIN_SPEECH_S = 0.1  # less speech in a turn is not worth a run


class SmartTurn:
    """The network of Daily's smart-turn-v3 (BSD-2).

    Stateless, so that several threads may share one. A run takes too long for a step of 80 ms. The
    ONNX Runtime session should have a memory arena (`edged.ortsession.open_session`).
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def probability(self, x: NDArray[np.float32]) -> float:
        """float32[n], 16 kHz: the turn so far with its closing silence -> P(complete).

        Only the last 8 s count.
        """
        features = log_mel(x)[None]
        release_memory()  # the run needs 14 MB for a moment
        (probability,) = self._session.run(None, {"input_features": features}, RELEASE_MEMORY)
        return float(probability[0, 0])

    def run_time_s(self) -> float:
        """Measures what one run takes on this device: the shorter of two, in CPU seconds.

        The first run also sets up buffers. CPU time of this thread, the only one that a run uses,
        is not disturbed by whatever else the device does.
        """
        return min(self._timed_run(), self._timed_run())

    def _timed_run(self) -> float:
        start = time.thread_time()
        self.probability(np.zeros(SAMPLES, np.float32))
        return (time.thread_time() - start) * slowdown()


class SmartTurnScheduler:
    """Decides when Smart Turn runs, and collects its answers.

    It runs once speech has just stopped, and again if the pause lasts and the first answer was
    unsure, as far as the token bucket allows. At most one run is pending; an answer about a pause
    that is over is discarded.

    enabled: whether new runs may start. runs, failures: counters.
    """

    def __init__(self, smart_turn: SmartTurn | None, executor: Executor) -> None:
        """smart_turn: None if there is none; there is never an answer then."""
        self._smart_turn, self._executor = smart_turn, executor
        self._pending: Future[float] | None = None
        self._answers: list[float] = []
        self._runs_in_pause = 0
        self._turn_closed = False
        self._tokens = MAX_TOKENS
        self.enabled = True
        self.runs = self.failures = 0

    def push(
        self,
        silence_s: float | None,
        speech_s: float,
        conclusive: bool,
        audio: Callable[[], NDArray[np.float32]],
    ) -> float | None:
        """Takes one step; returns the mean of this pause's answers, None while there is none.

        silence_s: seconds since the last speech, None before any.
        speech_s: seconds of speech in this turn.
        conclusive: other evidence says already what an answer could say.
        audio: returns the turn so far (float32[n], 16 kHz); called only for a run.

        An answer counts from the step after its run was started, however fast it is.
        """
        self._tokens = min(self._tokens + STEP_S / RUN_INTERVAL_S, MAX_TOKENS)
        if not silence_s:
            self._reset()
            return None
        answer = self._collect()
        if self._smart_turn and not conclusive and self._is_due(silence_s, speech_s):
            self._start(self._smart_turn, audio(), silence_s)
        return answer

    def turn_closed(self) -> None:
        """Starts no further run in this pause."""
        self._turn_closed = True

    def _start(self, smart_turn: SmartTurn, x: NDArray[np.float32], silence_s: float) -> None:
        kept = len(x) - round((silence_s - SILENCE_KEPT_S[self._runs_in_pause]) * RATE)
        if kept <= 0:  # the voice was too short for the gate, or its audio is gone
            return
        self._tokens -= 1
        self._runs_in_pause += 1
        self.runs += 1
        self._pending = self._executor.submit(smart_turn.probability, x[:kept].copy())

    def _is_due(self, silence_s: float, speech_s: float) -> bool:
        if not self.enabled or self._turn_closed or self._pending is not None:
            return False
        if self._tokens < 1 or speech_s < MIN_SPEECH_S:
            return False
        if self._runs_in_pause >= len(RUN_AFTER_S) or silence_s < RUN_AFTER_S[self._runs_in_pause]:
            return False
        low, high = UNSURE
        return all(low <= answer <= high for answer in self._answers)

    def _collect(self) -> float | None:
        """The mean of the answers: the quantised network's answers scatter (README.md)."""
        if self._pending is not None and self._pending.done():
            if self._pending.exception() is None:
                self._answers.append(self._pending.result())
            else:
                self.failures += 1
            self._pending = None
        return sum(self._answers) / len(self._answers) if self._answers else None

    def _reset(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
        self._pending = None
        self._answers = []
        self._runs_in_pause = 0
        self._turn_closed = False
