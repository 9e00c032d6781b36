"""Tells live speech from a file that is sent as fast as it is accepted, by arrival times alone.

While somebody speaks, long work must not delay the next step, and a recogniser that falls behind
updates in larger chunks. A file is processed as `edged transcribe` does it, so that it gives the
same text at each run.
"""

from __future__ import annotations

AHEAD_S = 1.0  # audio that arrived this much sooner than it can have been spoken is from a file
MAX_AHEAD_S = 3.0  # the lead is counted up to here, so that a file that goes on live is soon live
MAX_BEHIND_S = 30.0  # a stalled network may deliver this much at once and the stream stays live
# How much faster than real time live audio may arrive. LiveKit's plug-in inserts up to a second of
# silence after each turn, which must not add up.
LIVE_RATE = 1.5


class RealtimeDetector:
    """Compares how much audio has arrived with how much time has passed. Times are seconds."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._total_s = 0.0
        self._arrived_at: float | None = None
        self._paused_at: float | None = None

    @property
    def is_file(self) -> bool:
        """Whether the audio comes from a file."""
        return self._ahead_s > AHEAD_S

    def audio_arrived(self, total_s: float, now: float) -> None:
        """Audio arrived at the time `now`, `total_s` seconds of it so far."""
        if self._arrived_at is not None:
            since = self._arrived_at
            if self._paused_at is not None and self.is_file:
                since += now - max(self._paused_at, since)  # it was kept from arriving faster
            self._time_passed(now - since)
        self._arrived_at, self._paused_at = now, None
        self.set_total(total_s)

    def set_total(self, total_s: float) -> None:
        """Corrects how many seconds have arrived, once a header tells."""
        more = total_s - self._total_s
        self._total_s = total_s
        self._ahead_s = min(self._ahead_s + more, MAX_AHEAD_S)

    def reading_paused(self, now: float) -> None:
        """The client is held back from `now` until more audio arrives."""
        if self._paused_at is None:
            self._paused_at = now

    def _time_passed(self, seconds: float) -> None:
        """A lead shrinks at LIVE_RATE, a lag grows at 1."""
        until_even = min(max(0.0, self._ahead_s) / LIVE_RATE, seconds)
        self._ahead_s -= LIVE_RATE * until_even + (seconds - until_even)
        self._ahead_s = max(self._ahead_s, -MAX_BEHIND_S)
