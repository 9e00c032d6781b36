"""Mel spectra as Whisper's feature extractor computes them, in numpy.

A 400-point periodic Hann window, Slaney's mel filters (Malcolm Slaney, Auditory Toolbox, 1998),
log10. Smart Turn and Whisper both take these.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz
N_FFT = 400  # samples of a window
HOP = 160  # samples from one window to the next
MELS = 80
FLOOR = 1e-10  # least power of a band


def _mel_to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's scale: linear up to 1 kHz (15 mel), then a factor of 6.4 for each 27 mel."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def _mel_filters() -> NDArray[np.float32]:
    """Triangular filters of equal area, float32[80, 201], over the bins of the power spectrum."""
    highest = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    edges = _mel_to_hertz(np.linspace(0, highest, MELS + 2))[:, None]
    bins = np.linspace(0, RATE / 2, N_FFT // 2 + 1)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (edges[2:] - edges[:-2])).astype(np.float32)


def _bands(filters: NDArray[np.float32]) -> list[tuple[slice, NDArray[np.float32]]]:
    """For each filter the bins that it covers (1 to 14 of 201) and their weights."""
    covered = [np.flatnonzero(row) for row in filters]
    spans = [slice(int(bins[0]), int(bins[-1]) + 1) for bins in covered]
    return [(span, row[span]) for span, row in zip(spans, filters, strict=True)]


_BANDS = _bands(_mel_filters())
_WINDOW = np.hanning(N_FFT + 1)[:-1].astype(np.float32)


def log10_mel(framed: NDArray[np.float32]) -> NDArray[np.float32]:
    """Windows float32[n, 400] -> log10 of the power in each band, float32[80, n]."""
    spectrum = np.fft.rfft(framed * _WINDOW)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32).T
    # Band by band: one matrix product would wake the threads of numpy's BLAS, which spin.
    mel = np.stack([np.einsum("b,bf->f", weights, power[bins]) for bins, weights in _BANDS])
    out: NDArray[np.float32] = np.log10(np.maximum(mel, FLOOR))
    return out
