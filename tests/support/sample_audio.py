"""Sample speech in the forms in which clients send it."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray


def pcm(path: Path) -> NDArray[np.int16]:
    """The samples of a mono file at 24 kHz."""
    audio, rate = soundfile.read(path, dtype="float32")
    samples: NDArray[np.int16] = np.rint(soxr.resample(audio, rate, 24_000) * 32767).astype(
        np.int16
    )
    return samples


def opus(path: Path, bits_per_s: int) -> bytes:
    """A mono file as Ogg Opus, encoded by libopus."""
    audio, rate = soundfile.read(path, dtype="float32")
    at_48k = soxr.resample(audio, rate, 48_000)[None]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        stream.bit_rate = bits_per_s
        frame = av.AudioFrame.from_ndarray(at_48k, format="flt", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = buffer.getvalue()
    assert 8 * len(data) / (len(audio) / rate) < 1.3 * bits_per_s
    return data
