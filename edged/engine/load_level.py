"""How much work the recogniser does: levels that a slow device steps down, and up again."""

from __future__ import annotations

from enum import IntEnum

MAX_USE = 0.9  # of a thread's time: above it, the work of a second of speech does not fit a second
MAX_LAG_S = 1.2  # seconds of audio that may wait for the recogniser at MAX_USE and below
CATCH_UP_S = 0.2  # a device whose lag shrinks by so much in a window keeps up, busy as it is
URGENT_LAG_S = 3.0  # above it, a window is not waited for
WINDOW_S = 2.0  # seconds of speech over which the use is averaged
SPARE_USE = 0.5  # below it, the next better level may fit, too
RAISE_AFTER_S = 20.0  # seconds of speech with spare time before the next better level is tried
MAX_RAISE_AFTER_S = 640.0  # the wait doubles up to here each time that the better level did not fit
RELAPSE_S = 60.0  # a better level that had to be left within this time did not fit


class LoadLevel(IntEnum):
    """Each level does all that the levels before it do to save work.

    FULL: nothing.
    LARGER_UPDATES: the recogniser updates twice a second instead of four times.
    GREEDY: it keeps one hypothesis instead of several.
    NO_SMART_TURN: turns end without Smart Turn.
    SECOND_PASS_IN_SILENCE: turns are decoded again only while nobody speaks.
    """

    FULL = 0
    LARGER_UPDATES = 1
    GREEDY = 2
    NO_SMART_TURN = 3
    SECOND_PASS_IN_SILENCE = 4

    @property
    def label(self) -> str:
        """The level in words, for people."""
        return _LABELS[self]


LAST_LEVEL = max(LoadLevel)
_LABELS = {
    LoadLevel.FULL: "everything",
    LoadLevel.LARGER_UPDATES: "larger updates",
    LoadLevel.GREEDY: "larger updates, one hypothesis",
    LoadLevel.NO_SMART_TURN: "larger updates, one hypothesis, no Smart Turn",
    LoadLevel.SECOND_PASS_IN_SILENCE: "larger updates, one hypothesis, no Smart Turn, second pass"
    " only in silence",
}


class LoadController:
    """Chooses the level from how busy the threads are while somebody speaks. Pure.

    level: the level in force. too_slow: whether the device does not keep up at the last level.
    """

    def __init__(self, level: LoadLevel = LoadLevel.FULL) -> None:
        self.level = level
        self.too_slow = False
        self._now_s = 0.0  # seconds of audio so far, speech or not
        self._changed_at_s = 0.0
        self._raised_at_s = -RELAPSE_S
        self._raise_after_s = RAISE_AFTER_S
        self._spare_s = 0.0  # seconds of speech with spare time, in a row
        self._speech_s = 0.0  # in this window
        self._busy_s = [0.0, 0.0]  # in this window: recogniser, background work
        self._before_s: list[float] | None = None  # all seconds that the threads worked before
        self._lag_s = 0.0  # at the end of the last window

    def step(
        self,
        seconds: float,
        speech: bool,
        recogniser_busy_s: float,
        background_busy_s: float,
        lag_s: float,
    ) -> bool:
        """Takes `seconds` of audio; returns whether `level` or `too_slow` changed.

        speech: whether the recogniser had audio to read. recogniser_busy_s, background_busy_s: all
        seconds that the two threads have worked so far; what they worked before the first step does
        not count. lag_s: audio that waits for the recogniser.
        """
        self._now_s += seconds
        totals_s = [recogniser_busy_s, background_busy_s]
        if self._before_s is not None:
            for n, before_s in enumerate(self._before_s):
                self._busy_s[n] += max(0.0, totals_s[n] - before_s)
        self._before_s = totals_s
        if speech:
            self._speech_s += seconds
        urgent = lag_s > URGENT_LAG_S and self._now_s - self._changed_at_s >= 1.0
        if self._speech_s < WINDOW_S and not urgent:
            return False
        before = self.level, self.too_slow
        use = max(self._busy_s) / max(self._speech_s, seconds)
        self._judge(use, lag_s)
        self._speech_s, self._busy_s = 0.0, [0.0, 0.0]
        return before != (self.level, self.too_slow)

    def _judge(self, use: float, lag_s: float) -> None:
        catches_up = lag_s < self._lag_s - CATCH_UP_S
        self._lag_s = lag_s
        if use > MAX_USE or lag_s > MAX_LAG_S:
            self._spare_s = 0.0
            if not catches_up:
                self._lower()
            return
        self.too_slow = False
        self._spare_s = self._spare_s + self._speech_s if use < SPARE_USE else 0.0
        if self.level > LoadLevel.FULL and self._spare_s >= self._raise_after_s:
            self._spare_s = 0.0
            self.level = LoadLevel(self.level - 1)
            self._raised_at_s = self._changed_at_s = self._now_s

    def _lower(self) -> None:
        if self._now_s - self._raised_at_s < RELAPSE_S:
            self._raise_after_s = min(2 * self._raise_after_s, MAX_RAISE_AFTER_S)
            self._raised_at_s = -RELAPSE_S
        if self.level < LAST_LEVEL:
            self.level = LoadLevel(self.level + 1)
            self._changed_at_s = self._now_s
        else:
            self.too_slow = True
