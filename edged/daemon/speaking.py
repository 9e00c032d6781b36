"""Whether somebody speaks, as a switch that does not flicker."""

from __future__ import annotations

from edged.events import Step

ON_BELOW, OFF_ABOVE = 0.4, 0.6  # of P(nobody speaks in the next 0.5 s)
HOLD_STEPS = 4  # 320 ms: the pause inside a word is no end of speech


class Speaking:
    """Fed with steps; `value` is None until the turn model has had an opinion."""

    def __init__(self) -> None:
        self.value: bool | None = None
        self._quiet = 0

    def step(self, step: Step) -> bool:
        """True if `value` changed."""
        silent = step.inactivity[0]
        if silent == 0.0:  # no opinion yet
            return False
        self._quiet = self._quiet + 1 if silent > OFF_ABOVE else 0
        old = self.value
        if silent < ON_BELOW:
            self.value = True
        elif self.value is None or self._quiet >= HOLD_STEPS:
            self.value = False
        return self.value is not old

    def stop(self) -> bool:
        """Nobody can be heard any more. True if `value` changed."""
        changed = self.value is not False
        self.value, self._quiet = False, 0
        return changed
