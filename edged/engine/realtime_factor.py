"""How much work a second of audio takes, as a running mean."""

from __future__ import annotations

_MEMORY_S = 30.0  # seconds of audio after which an old value has lost most of its weight


class RealtimeFactor:
    """Seconds of work per second of audio, averaged over about the last minute of audio.

    rtf: the mean; None before the first value.
    """

    def __init__(self) -> None:
        self.rtf: float | None = None

    def add(self, work_s: float, audio_s: float) -> None:
        """Adds work of `work_s` seconds that was done for `audio_s` seconds of audio."""
        if audio_s <= 0:
            return
        weight = min(1.0, audio_s / _MEMORY_S)
        old = work_s / audio_s if self.rtf is None else self.rtf
        self.rtf = old + weight * (work_s / audio_s - old)
