"""Log-mel features as Whisper's and Smart Turn's feature extractor computes them, in numpy.

The formulas are those of `transformers.WhisperFeatureExtractor(chunk_length=8)` (Apache-2.0)
with `do_normalize`: unit variance, 400-point periodic Hann window every 160 samples, Slaney
mel filters (Malcolm Slaney, Auditory Toolbox, 1998), log10, 8 decades of range, (x + 4) / 4.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edged.audio.mel import HOP, N_FFT, RATE, log10_mel

SAMPLES = 8 * RATE
FRAMES = SAMPLES // HOP


def log_mel(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[n], 16 kHz -> features of its last 8 s, float32[80, 800].

    Shorter audio is padded with zeros in front.
    """
    x = x[-SAMPLES:]
    padded = np.zeros(SAMPLES, np.float32)
    padded[SAMPLES - len(x) :] = x
    padded = (padded - padded.mean()) / np.sqrt(padded.var() + 1e-7)
    framed = sliding_window_view(np.pad(padded, N_FFT // 2, mode="reflect"), N_FFT)[::HOP]
    mel = log10_mel(framed[:FRAMES])
    out: NDArray[np.float32] = (np.maximum(mel, mel.max() - 8) + 4) / 4
    return out
