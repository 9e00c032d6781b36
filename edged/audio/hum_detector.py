"""Tells mains hum and rumble from voices, by the power below the voice."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

WINDOW_S = 0.256
# The power is looked for at this rate: means of several samples, which keep what would be folded
# into the low band 25 dB below.
ANALYSIS_HZ = 1000
LOW_BAND_HZ = (20.0, 66.0)  # here a voice has no power for longer than a syllable
HUM_HZ = (46.0, 64.0)  # where the peak of mains hum may lie: 50 or 60 Hz
# Hum is one steady tone, so that even weak hum is recognised soon.
HUM_POWER, HUM_WINDOWS = 10**-3.6, 4  # -36 dBFS, 0.5 s
HUM_SHARE = 0.8  # of the power below HUM_SHARE_BELOW_HZ that is the tone's
HUM_SHARE_BELOW_HZ = 76.0
HUM_STEADY_RATIO = 1.6  # of the tone's power: 2 dB
TONE_BINS = 2  # a tone covers so many bins to each side of its peak (Hann window)
# Rumble is not steady; it is known by being strong without a pause.
RUMBLE_POWER, RUMBLE_WINDOWS = 10**-3.1, 12  # -31 dBFS, 1.14 s
ABSENT_POWER = 10**-4.2  # -42 dBFS: with less in any window there is neither

Floats = NDArray[np.float32]


class HumDetector:
    """Watches the power below the voice in windows that overlap, one for each push.

    present: whether there was hum or rumble at the last push.
    """

    def __init__(self, rate: int) -> None:
        """rate: Hz, a multiple of ANALYSIS_HZ."""
        step = rate // ANALYSIS_HZ
        self._mean = np.full(step, 1 / step, np.float32)
        size = round(WINDOW_S * ANALYSIS_HZ)
        self._window = np.zeros(size, np.float32)
        self._missing = size  # until the first window is full
        hertz = np.fft.rfftfreq(size, 1 / ANALYSIS_HZ)
        self._low = _between(hertz, *LOW_BAND_HZ)
        self._hum = _between(hertz, *HUM_HZ)
        self._all = _between(hertz, LOW_BAND_HZ[0], HUM_SHARE_BELOW_HZ)
        # The few rows of the Fourier transform that are needed, with a Hann window, so scaled that
        # the sum over all rows would be the mean square of the samples (Parseval's theorem).
        taper = np.hanning(size) * np.sqrt(2 / (size * np.square(np.hanning(size)).sum()))
        turns = np.outer(np.arange(self._all.stop), np.arange(size)) / size
        self._transform = (taper * np.exp(-2j * np.pi * turns)).astype(np.complex64)
        # Of the last windows: power of the low band; power (0 where it is no clear tone) and bin
        # of the tone.
        self._powers = deque[float](maxlen=RUMBLE_WINDOWS)
        self._tones = deque[tuple[float, int]](maxlen=HUM_WINDOWS)
        self.present = False

    def push(self, samples: Floats) -> None:
        """Takes one hop: float32[n], a multiple of rate / ANALYSIS_HZ."""
        new = samples.reshape(-1, len(self._mean)) @ self._mean
        self._window = np.concatenate((self._window[len(new) :], new))
        self._missing -= len(new)
        if self._missing > 0:
            return
        spectrum = self._transform @ self._window
        powers = spectrum.real**2 + spectrum.imag**2
        self._powers.append(float(powers[self._low].sum()))
        self._tones.append(self._tone(powers))
        if self.present:
            self.present = self._powers[-1] >= ABSENT_POWER
        else:
            self.present = self._is_hum() or self._is_rumble()

    def _tone(self, powers: NDArray[np.floating]) -> tuple[float, int]:
        peak = self._hum.start + int(np.argmax(powers[self._hum]))
        power = float(powers[peak - TONE_BINS : peak + TONE_BINS + 1].sum())
        return (power if power >= HUM_SHARE * powers[self._all].sum() else 0.0), peak

    def _is_hum(self) -> bool:
        powers, peaks = zip(*self._tones, strict=True)
        strong = len(powers) == HUM_WINDOWS and min(powers) >= HUM_POWER
        return strong and max(powers) <= HUM_STEADY_RATIO * min(powers) and _within_one(peaks)

    def _is_rumble(self) -> bool:
        return len(self._powers) == RUMBLE_WINDOWS and min(self._powers) >= RUMBLE_POWER


def _between(frequencies: NDArray[np.floating], low: float, high: float) -> slice:
    first, last = np.searchsorted(frequencies, (low, high))
    return slice(int(first), int(last))


def _within_one(bins: tuple[int, ...]) -> bool:
    return max(bins) - min(bins) <= 1
