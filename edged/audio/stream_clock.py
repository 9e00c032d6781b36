"""How much audio a device should have given by now, so that a gap gets its true length."""

from __future__ import annotations

from edged import SAMPLE_RATE

MAX_DRIFT = 1e-3  # sound cards' crystals are within 0.01 %; ten times that


class StreamClock:
    """Follows the position of the stream against the monotonic clock.

    Positions are in samples at 24 kHz. Audio can be late, never early, so the least late
    observation is the true one: the lead of the stream over the clock is kept as a maximum, which
    may sink only as fast as crystals drift.
    """

    def __init__(self) -> None:
        self._lead: float | None = None
        self._observed_at = 0.0

    def observe(self, now: float, position: float) -> None:
        """Notes that the stream had reached `position`, the device's queue included, at `now`."""
        lead = position - now * SAMPLE_RATE
        if self._lead is not None:
            lead = max(lead, self._lead - MAX_DRIFT * SAMPLE_RATE * (now - self._observed_at))
        self._lead, self._observed_at = lead, now

    def lost_samples(self, now: float, position: float) -> int:
        """Samples lost before `position` if the stream is there at `now`; 0 if unknown."""
        if self._lead is None:
            return 0
        return max(0, round(self._lead + now * SAMPLE_RATE - position))

    def restart(self) -> None:
        """Forgets all observations, after a pause in which stream time did not advance."""
        self._lead = None
