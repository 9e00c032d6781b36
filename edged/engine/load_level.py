"""How much work the recogniser does: levels that a slow device steps down, and up again."""

from __future__ import annotations

from enum import IntEnum

MAX_USE = 0.9  # of a thread's time: above it, the work of a second of speech does not fit a second
MAX_LAG_S = 1.2  # seconds of audio that may wait for the recogniser at MAX_USE and below
CATCH_UP_S = 0.2  # a device whose lag shrinks by so much in a window keeps up, busy as it is
URGENT_LAG_S = 3.0  # above it, a window is not waited for
WINDOW_S = 2.0  # seconds of speech over which the recogniser's use is averaged
BACKGROUND_WINDOW_S = 30.0  # the same of background work, which comes in bursts at a turn's end
SPARE_USE = 0.5  # below it, the next better level may fit, too
RAISE_AFTER_S = 20.0  # seconds of speech with spare time before the next better level is tried
MAX_RAISE_AFTER_S = 640.0  # the wait doubles up to here each time that the better level did not fit
RELAPSE_S = 60.0  # a better level that had to be left within this time did not fit


class LoadLevel(IntEnum):
    """Each level does all that the levels before it do to save work.

    FULL: nothing; the only one with a second opinion (`edged.stt.second_opinion`).
    LARGER_UPDATES: the recogniser updates twice a second instead of four times; no second opinion.
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
        self._recogniser = _Use(WINDOW_S)
        self._background = _Use(BACKGROUND_WINDOW_S)
        self._background_use = 0.0  # in the last window
        self._lag_s = 0.0  # at the end of the last window

    @property
    def recogniser_busy_s(self) -> float:
        """What was last given to `step`."""
        return self._recogniser.total_s

    @property
    def background_busy_s(self) -> float:
        """What was last given to `step`."""
        return self._background.total_s

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
        before = self.level, self.too_slow
        self._background.add(background_busy_s, seconds * speech)
        self._recogniser.add(recogniser_busy_s, seconds * speech)
        urgent = lag_s > URGENT_LAG_S and self._now_s - self._changed_at_s >= 1.0
        if self._recogniser.is_full or urgent:
            self._judge_recogniser(lag_s)
        if self._background.is_full:
            self._background_use = self._background.take()
            if self._background_use > MAX_USE and before == (self.level, self.too_slow):
                self._spare_s = 0.0
                self._lower()
        return before != (self.level, self.too_slow)

    def _judge_recogniser(self, lag_s: float) -> None:
        speech_s = self._recogniser.speech_s
        use = self._recogniser.take()
        catches_up = lag_s < self._lag_s - CATCH_UP_S
        self._lag_s = lag_s
        if use > MAX_USE or lag_s > MAX_LAG_S:
            self._spare_s = 0.0
            if not catches_up:
                self._lower()
            return
        background_fits = self._background_use <= MAX_USE
        self.too_slow = self.too_slow and not background_fits
        has_spare = use < SPARE_USE and background_fits
        self._spare_s = self._spare_s + speech_s if has_spare else 0.0
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


class _Use:
    """How much of a thread's time a window of speech takes.

    speech_s: of the window so far. total_s: all work of the thread so far; what it did before the
    first `add` does not count.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._busy_s = 0.0
        self.speech_s = 0.0
        self.total_s = 0.0
        self._is_first = True

    def add(self, total_s: float, speech_s: float) -> None:
        if not self._is_first:
            self._busy_s += max(0.0, total_s - self.total_s)
        self._is_first = False
        self.total_s = total_s
        self.speech_s += speech_s

    @property
    def is_full(self) -> bool:
        return self.speech_s >= self._window_s

    def take(self) -> float:
        """Seconds of work for a second of speech; begins the next window."""
        use = self._busy_s / max(self.speech_s, 1e-3)
        self._busy_s = self.speech_s = 0.0
        return use
