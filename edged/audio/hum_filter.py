"""Removes mains hum and rumble below the voice from a stream, where there is any."""

from __future__ import annotations

import numpy as np

from edged.audio.high_pass import Floats, HighPass
from edged.audio.hum_detector import HumDetector

CUTOFF_HZ, ORDER = 85.0, 10  # 50 Hz: -46 dB, 60 Hz: -30 dB
HOP_S = 0.08  # the filter is switched on and off at multiples of this, with a fade as long
SETTLING_HOPS = 3  # after these the filter shows nothing of where it began
DETECTION_HOPS = 8  # how long hum has been there when it is detected


class HumFilter:
    """A high-pass filter that is on only where hum or rumble is.

    Without them the samples pass unchanged, so that clean speech is recognised exactly as without
    the filter, and cost next to nothing.

    switched_on: how often it was switched on.
    corrected: after a push in which the fade to the filtered audio ended: what the filter, had it
        been on before, would have made of the audio since the hum began, and the place in the
        stream where that begins. Else None.
    """

    def __init__(self, rate: int) -> None:
        """rate: Hz."""
        self._hop = round(HOP_S * rate)
        self._detector = HumDetector(rate)
        self._high_pass = HighPass(CUTOFF_HZ, rate, ORDER)
        self._fade_in = np.linspace(0, 1, self._hop, dtype=np.float32)
        self._pending = np.zeros(self._hop, np.float32)  # the hop as far as it was pushed
        self._filtered = np.zeros(self._hop, np.float32)  # the same, filtered, while it is on
        self._filled = 0
        self._recent = np.zeros(0, np.float32)  # the hops before it
        self._past = np.zeros(0, np.float32)  # the same, filtered, in the hop of the fade
        self._position = 0  # of the end of the stream so far
        self._was_on = False  # in the hop before
        self.is_on = False
        self.switched_on = 0
        self.corrected: tuple[int, Floats] | None = None

    def push(self, samples: Floats) -> Floats:
        """float32[n] -> float32[n], without delay. The result is the same however the stream is
        divided."""
        self.corrected = None
        parts = [samples[:0]]
        while len(samples):
            part = samples[: self._hop - self._filled]
            samples = samples[len(part) :]
            parts.append(self._apply(part))
            self._position += len(part)
            self._collect(part)
        return np.concatenate(parts)

    def _apply(self, samples: Floats) -> Floats:
        """Filters a part of one hop."""
        if not self.is_on and not self._was_on:
            return samples
        filtered = self._high_pass.push(samples)
        if self.is_on and self._was_on:
            return filtered
        here = slice(self._filled, self._filled + len(samples))
        self._filtered[here] = filtered
        share = self._fade_in[here] if self.is_on else 1 - self._fade_in[here]
        return samples + share * (filtered - samples)

    def _collect(self, samples: Floats) -> None:
        """Adds to the hop, and decides at its end."""
        self._pending[self._filled : self._filled + len(samples)] = samples
        self._filled += len(samples)
        if self._filled < self._hop:
            return
        self._filled = 0
        if self.is_on and not self._was_on:  # the fade has ended
            past = np.concatenate((self._past, self._filtered))
            self.corrected = self._position - len(past), past
        self._detector.push(self._pending)
        kept = (DETECTION_HOPS + SETTLING_HOPS) * self._hop
        self._recent = np.concatenate((self._recent, self._pending))[-kept:]
        self._was_on, self.is_on = self.is_on, self._detector.present
        if self.is_on and not self._was_on:
            self.switched_on += 1
            self._high_pass.reset()
            self._past = self._filter_recent()

    def _filter_recent(self) -> Floats:
        """The last hops as if the filter had been switched on before them."""
        filtered = self._high_pass.push(self._recent)
        if len(self._recent) == self._position:  # all of the stream so far
            return filtered
        past = filtered[-DETECTION_HOPS * self._hop :]
        first = slice(len(filtered) - len(past), len(filtered) - len(past) + self._hop)
        past[: self._hop] = self._recent[first] + self._fade_in * (
            filtered[first] - self._recent[first]
        )
        return past
