"""Recordings made for the tests: every format, and the forms in which they came in bug reports."""

from __future__ import annotations

import io
import random
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from edged.audio.ogg import HEADER, page_checksum

Samples = NDArray[np.float64]


def with_libsndfile(samples: Samples, rate: int, form: str, subtype: str, **options: Any) -> bytes:
    """Encoded by libsndfile: its names of formats and subtypes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype, **options)
    return buffer.getvalue()


def with_ffmpeg(samples: Samples, rate: int, form: str, codec: str, **options: str) -> bytes:
    """float[n] or [n, 2], encoded by FFmpeg: its names of containers and codecs."""
    formats = av.Codec(codec, "w").audio_formats
    assert formats
    planes = np.atleast_2d(samples.T).astype(np.float32)
    layout = "mono" if len(planes) == 1 else "stereo"
    with (
        tempfile.NamedTemporaryFile() as file,  # some options read the file again
        av.open(file.name, "w", form, dict(options)) as container,
    ):
        stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(planes), format="fltp", layout=layout
        )
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=formats[0].name, layout=layout, rate=rate, frame_size=stream.frame_size or 1024
        )
        position = 0
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            piece.pts = position
            position += piece.samples
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
        container.close()
        return Path(file.name).read_bytes()


def mp3_without_length(samples: Samples, rate: int) -> bytes:
    """A VBR MP3 without a Xing header, as `ffmpeg -q:a 4 -f mp3 -` writes into a pipe."""
    buffer = io.BytesIO()
    options = {"write_xing": "0", "id3v2_version": "0"}
    with av.open(buffer, "w", "mp3", options) as container:
        stream: Any = container.add_stream("libmp3lame", rate=rate, layout="mono")
        stream.codec_context.qscale = True
        stream.codec_context.global_quality = 4 * 118  # FF_QP2LAMBDA: -q:a 4
        frame = av.AudioFrame.from_ndarray(
            samples[None].astype(np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def flac_of_unknown_length(data: bytes) -> bytes:
    """The FLAC with the number of samples and the checksum taken out of STREAMINFO."""
    out = bytearray(data)
    assert out[:4] == b"fLaC"
    out[8 + 13] &= 0xF0
    out[8 + 14 : 8 + 34] = bytes(20)
    return bytes(out)


def wav_chunks(*chunks: tuple[bytes, bytes], magic: bytes = b"RIFF") -> bytes:
    """A WAV of these chunks, (name, content)."""
    order = ">" if magic == b"RIFX" else "<"
    body = b"WAVE"
    for name, content in chunks:
        body += name + struct.pack(f"{order}I", len(content)) + content + b"\0" * (len(content) % 2)
    return magic + struct.pack(f"{order}I", len(body)) + body


def wav_format(
    tag: int, channels: int, rate: int, align: int, bits: int, more: bytes = b"", order: str = "<"
) -> bytes:
    """The content of a `fmt ` chunk."""
    per_second = rate * align
    return struct.pack(f"{order}HHIIHH", tag, channels, rate, per_second, align, bits) + more


def with_checksums(data: bytes) -> bytes:
    """An Ogg file whose pages were changed, with their checksums corrected."""
    out, at = bytearray(data), 0
    while (at := out.find(b"OggS", at)) >= 0 and at + HEADER.size <= len(out):
        count = out[at + 26]
        size = HEADER.size + count + sum(out[at + 27 : at + 27 + count])
        page = bytes(out[at : at + size])
        if len(page) >= 26:
            out[at + 22 : at + 26] = struct.pack("<I", page_checksum(page))
        at += 4
    return bytes(out)


def with_serial(data: bytes, serial: int) -> bytes:
    """An Ogg file of one stream, under another serial number."""
    out, at = bytearray(data), 0
    while (at := out.find(b"OggS", at)) >= 0:
        out[at + 14 : at + 18] = struct.pack("<I", serial)
        at += 4
    return with_checksums(bytes(out))


def amr(seconds: float) -> bytes:
    """Narrow-band AMR of noise: frames of 20 ms at 12.2 kbit/s (RFC 4867, section 5)."""
    rng = random.Random(1)
    return b"#!AMR\n" + b"".join(b"\x3c" + rng.randbytes(31) for _ in range(round(seconds * 50)))


RECORDINGS: dict[str, Callable[[Samples, int], bytes]] = {
    "wav": lambda x, rate: with_libsndfile(x, rate, "WAV", "PCM_16"),
    "wav-24": lambda x, rate: with_libsndfile(x, rate, "WAVEX", "PCM_24"),
    "wav-gsm": lambda x, rate: with_libsndfile(soxr.resample(x, rate, 8000), 8000, "WAV", "GSM610"),
    "wav-adpcm": lambda x, rate: with_libsndfile(x, rate, "WAV", "IMA_ADPCM"),
    "wav-mp3": lambda x, rate: wav_chunks(
        (b"fmt ", wav_format(0x55, 1, rate, 1, 0)), (b"data", mp3_without_length(x, rate))
    ),
    "rf64": lambda x, rate: with_libsndfile(x, rate, "RF64", "PCM_16"),
    "w64": lambda x, rate: with_libsndfile(x, rate, "W64", "PCM_16"),
    "aiff": lambda x, rate: with_libsndfile(x, rate, "AIFF", "PCM_16"),
    "au": lambda x, rate: with_libsndfile(x, rate, "AU", "ULAW"),
    "caf": lambda x, rate: with_libsndfile(x, rate, "CAF", "PCM_16"),
    "flac": lambda x, rate: with_libsndfile(x, rate, "FLAC", "PCM_16"),
    "vorbis": lambda x, rate: with_libsndfile(x, rate, "OGG", "VORBIS"),
    "opus": lambda x, rate: with_libsndfile(x, rate, "OGG", "OPUS"),
    "opus-chain": lambda x, rate: b"".join(
        with_serial(with_libsndfile(x, rate, "OGG", "OPUS"), serial) for serial in (1, 2)
    ),
    "ogg-flac": lambda x, rate: with_ffmpeg(x, rate, "ogg", "flac"),
    "mp3": lambda x, rate: with_ffmpeg(x, rate, "mp3", "libmp3lame"),
    "mp3-vbr": mp3_without_length,
    "aac": lambda x, rate: with_ffmpeg(x, rate, "adts", "aac"),
    "m4a": lambda x, rate: with_ffmpeg(x, rate, "ipod", "aac"),
    "webm": lambda x, rate: with_ffmpeg(soxr.resample(x, rate, 48_000), 48_000, "webm", "libopus"),
    "matroska": lambda x, rate: with_ffmpeg(x, rate, "matroska", "flac"),
    "wma": lambda x, rate: with_ffmpeg(x, rate, "asf", "wmav2"),
    "ac3": lambda x, rate: with_ffmpeg(soxr.resample(x, rate, 48_000), 48_000, "ac3", "ac3"),
    "avi": lambda x, rate: with_ffmpeg(x, rate, "avi", "libmp3lame"),
    "wavpack": lambda x, rate: with_ffmpeg(x, rate, "wv", "wavpack"),
    "tta": lambda x, rate: with_ffmpeg(x, rate, "tta", "tta"),
    "mpegts": lambda x, rate: with_ffmpeg(x, rate, "mpegts", "aac"),
    "amr": lambda x, rate: amr(len(x) / rate),
}
"""Every format that edged reads: samples and their rate -> a file."""


def recordings_of_every_format(samples: Samples, rate: int) -> dict[str, bytes]:
    """These samples as files, by the keys of RECORDINGS."""
    return {name: make(samples, rate) for name, make in RECORDINGS.items()}


def with_random_damage(data: bytes, rng: random.Random) -> bytes:
    """The file with bytes changed, a part doubled, removed or zeroed, or its end cut off.

    Checksums of Ogg pages are corrected in half of the cases, so that the damage reaches the codec.
    """
    out = bytearray(data)
    for _ in range(rng.randrange(1, 12)):
        out[rng.randrange(min(len(out), rng.choice((64, 1024, len(out)))))] = rng.randrange(256)
    at, size = rng.randrange(len(out)), rng.randrange(1, 2000)
    match rng.randrange(5):
        case 0:
            del out[at : at + size]
        case 1:
            out[at:at] = out[at : at + size]
        case 2:
            out[at : at + size] = bytes(len(out[at : at + size]))
        case 3:
            del out[at:]
    damaged = bytes(out)
    return with_checksums(damaged) if damaged[:4] == b"OggS" and rng.getrandbits(1) else damaged
