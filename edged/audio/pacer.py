"""A limit on how fast a device may give audio."""

from __future__ import annotations

MAX_SPEED = 1.05  # of real time, in the long run; no sound card is that far off
MAX_LEAD_S = 2.0  # what a device may give at once, such as a sound server that was held up


class Pacer:
    """Slows down a device that gives audio without end, such as ALSA's `null` and `file` devices.

    Without it stream time would run ahead by minutes each second, and the engine would never
    catch up.
    """

    def __init__(self, now: float) -> None:
        """`now`: monotonic time, seconds."""
        self._seen_at = now
        self._lead_s = 0.0  # of the audio over the clock

    def wait_s(self, now: float, audio_s: float) -> float:
        """How long to wait after `audio_s` seconds of audio arrived at `now`."""
        self._lead_s += audio_s - (now - self._seen_at) * MAX_SPEED
        self._lead_s = max(0.0, self._lead_s)
        self._seen_at = now
        return max(0.0, self._lead_s - MAX_LEAD_S)
