"""Log-mel features as Whisper's and Smart Turn's feature extractor computes them, in numpy.

The formulas are those of `transformers.WhisperFeatureExtractor(chunk_length=8)` (Apache-2.0)
with `do_normalize`: unit variance, 400-point periodic Hann window every 160 samples, Slaney
mel filters (Malcolm Slaney, Auditory Toolbox, 1998), log10, 8 decades of range, (x + 4) / 4.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

RATE = 16_000
SAMPLES = 8 * RATE
N_FFT = 400
HOP = 160
MELS = 80
FRAMES = SAMPLES // HOP


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


def log_mel(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[n], 16 kHz -> features of its last 8 s, float32[80, 800].

    Shorter audio is padded with zeros in front.
    """
    x = x[-SAMPLES:]
    padded = np.zeros(SAMPLES, np.float32)
    padded[SAMPLES - len(x) :] = x
    padded = (padded - padded.mean()) / np.sqrt(padded.var() + 1e-7)
    framed = sliding_window_view(np.pad(padded, N_FFT // 2, mode="reflect"), N_FFT)[::HOP]
    spectrum = np.fft.rfft(framed[:FRAMES] * _WINDOW)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32).T
    # Band by band: one matrix product would wake the threads of numpy's BLAS, which spin.
    mel = np.stack([np.einsum("b,bf->f", weights, power[bins]) for bins, weights in _BANDS])
    mel = np.log10(np.maximum(mel, 1e-10))
    out: NDArray[np.float32] = (np.maximum(mel, mel.max() - 8) + 4) / 4
    return out
