"""How much audio a device should have given by now, so that a loss gets its true length."""

from __future__ import annotations

from edged import SAMPLE_RATE

DRIFT = 1e-3  # sound cards' crystals are within 0.01 %; ten times that


class StreamClock:
    """Follows the stream against the monotonic clock. All positions in samples at 24 kHz.

    Audio can be late, never early, so the least late sighting is the truth: the lead of the
    stream over the clock is kept as a maximum, which may sink only as fast as crystals drift.
    """

    def __init__(self) -> None:
        self._lead: float | None = None
        self._seen_at = 0.0

    def saw(self, now: float, position: float) -> None:
        """At `now` (seconds) the stream had reached `position`, the device's queue included."""
        lead = position - now * SAMPLE_RATE
        if self._lead is not None:
            lead = max(lead, self._lead - DRIFT * SAMPLE_RATE * (now - self._seen_at))
        self._lead, self._seen_at = lead, now

    def missing(self, now: float, position: float) -> int:
        """Samples lost before `position` if the stream is there at `now`; 0 if not known."""
        if self._lead is None:
            return 0
        return max(0, round(self._lead + now * SAMPLE_RATE - position))

    def restart(self) -> None:
        """Time stood still: what was seen before says nothing about what comes."""
        self._lead = None
