"""Session: 80 ms frames in, events out. Pure: no thread, clock, file or socket.

(Skeleton: the interface is fixed, the engine lands here next.)
"""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from edged.events import EndOfStream, Event, Flushed, Step
from edged.models.loader import Models
from edged.options import Options


class Session:
    """One stream of audio through voice gate, recogniser and turn model."""

    def __init__(
        self, models: Models, options: Options | None = None, beside: Executor | None = None
    ) -> None:
        """`beside` runs what is too long for a step (second pass, Smart Turn); None: at once,
        in the caller, which makes a run repeatable."""
        self.options = options or Options()
        self.step_idx = 0

    def push(self, frame: NDArray[np.int16], behind: bool = False) -> list[Event]:
        """One step: int16[1920], 24 kHz mono -> its words, then exactly one `step` (then `turn`s).

        `behind` tells that more audio waits: the recogniser then updates in larger chunks.
        Raises ValueError for another length.
        """
        self.step_idx += 1
        return [Step(self.step_idx - 1)]

    def gap(self, samples: int) -> list[Event]:
        """Audio that was lost (an overrun): stream time goes on, the steps are still given."""
        return []

    def flush(self, flush_id: int | str) -> list[Event]:
        """All words of the audio so far, then `flushed`. No later text is about that audio."""
        return [Flushed(flush_id)]

    def end(self) -> list[Event]:
        """All that is left, an open turn included, then `end_of_stream`."""
        return [EndOfStream()]

    def configure(self, options: Options) -> None:
        """New options from the next step on."""
        self.options = options
