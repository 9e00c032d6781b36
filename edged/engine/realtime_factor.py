"""How much work a second of audio takes, as a running mean."""

from __future__ import annotations


class RealtimeFactor:
    """The engine's real-time factor: work done per second of audio, over the last minute or so."""

    _MEMORY_S = 30.0  # of audio, in which an old value loses most of its weight

    def __init__(self) -> None:
        self.rtf: float | None = None

    def worked(self, seconds: float, audio_s: float) -> None:
        if audio_s <= 0:
            return
        weight = min(1.0, audio_s / self._MEMORY_S)
        old = seconds / audio_s if self.rtf is None else self.rtf
        self.rtf = old + weight * (seconds / audio_s - old)
