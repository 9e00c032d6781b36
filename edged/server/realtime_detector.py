"""Is a stream spoken live, or is it a file that comes as fast as it is taken? Pure.

Live, nobody may wait for long work, and a late recogniser reads in larger chunks. A file is worked
through as `edged transcribe` would: the same text at each run.
"""

from __future__ import annotations

AHEAD_S = 1.0  # audio that came this much sooner than it can have been spoken is from a file
MOST_S = 3.0  # no stream is known to be further ahead: one that goes on live is soon seen as live
LATE_S = 30.0  # nor further behind: what a stalled network then gives at once is still live
# How much faster than it is spoken live audio may come. LiveKit's plug-in puts up to a second of
# silence behind each turn, which must not add up.
LIVE = 1.5


class Pace:
    """Counts at arrivals alone: what waits here says nothing about how it came."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._total_s = 0.0
        self._came_at: float | None = None
        self._held_at: float | None = None

    @property
    def is_file(self) -> bool:
        return self._ahead_s > AHEAD_S

    def came(self, total_s: float, now: float) -> None:
        """Audio came; `total_s` seconds so far."""
        if self._came_at is not None:
            since = self._came_at
            if self._held_at is not None and self.is_file:
                since += now - max(self._held_at, since)  # it was kept from coming faster
            self._pass(now - since)
        self._came_at, self._held_at = now, None
        self.is_worth(total_s)

    def is_worth(self, total_s: float) -> None:
        """It is known better how many seconds have come (a header was read)."""
        more = total_s - self._total_s
        self._total_s = total_s
        self._ahead_s = min(self._ahead_s + more, MOST_S)

    def held(self, now: float) -> None:
        """From now on the client is held back, until more comes."""
        if self._held_at is None:
            self._held_at = now

    def _pass(self, seconds: float) -> None:
        """Time went by: a lead shrinks the faster."""
        until_even = min(max(0.0, self._ahead_s) / LIVE, seconds)
        self._ahead_s -= LIVE * until_even + (seconds - until_even)
        self._ahead_s = max(self._ahead_s, -LATE_S)
