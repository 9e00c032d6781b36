"""Every input format of the API, in chunks of any size, against what libsndfile makes of it."""

from __future__ import annotations

import contextlib
import io
import random
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from edged import STEP_SAMPLES
from edged.audio import stream_decoders
from edged.audio.files import open_audio
from edged.audio.ogg import OggReader
from edged.audio.stream_decoders import INPUT_FORMATS, decoder
from edged.errors import RequestError
from tests.support.api_server import SAMPLES, as_wav
from tests.support.recordings import with_checksums, with_ffmpeg

SPEECH = SAMPLES / "good-influence.flac"


def frames(input_format: str, chunks: Iterable[bytes]) -> np.ndarray:
    taken = decoder(input_format)
    out = [frame for chunk in chunks for frame in taken.push(chunk)]
    out += taken.finish()
    assert all(frame.shape == (STEP_SAMPLES,) and frame.dtype == np.int16 for frame in out)
    return np.concatenate(out) if out else np.empty(0, np.int16)


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    return [*chunks, data[at:]]


def tone(rate: int, seconds: float = 1.0, hz: float = 400.0) -> np.ndarray:
    t = np.arange(round(rate * seconds)) / rate
    return np.round(12_000 * np.sin(2 * np.pi * hz * t)).astype("<i2")


def encoded(samples: np.ndarray, rate: int, form: str, subtype: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype)
    return buffer.getvalue()


def like(heard: np.ndarray, expected: np.ndarray) -> float:
    """How much of the energy of `heard` is what was expected, in dB below it."""
    n = min(len(heard), len(expected))
    wrong = heard[:n].astype(float) - expected[:n]
    power = np.sum(expected[:n].astype(float) ** 2)
    return float(10 * np.log10(power / max(np.sum(wrong**2), 1e-9)))


@pytest.mark.parametrize("rate", stream_decoders.PCM_RATES)
def test_pcm_of_every_rate_becomes_the_same_sound(rate: int) -> None:
    heard = frames(f"pcm_{rate}", [tone(rate).tobytes()])
    assert len(heard) == 13 * STEP_SAMPLES  # 1 s and what pads the last step
    middle = slice(2000, 20_000)
    assert like(heard[middle], tone(24_000)[middle]) > 40


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["pcm", "pcm_8000", "pcm_44100", "ulaw_8000", "alaw_8000", "wav", "opus"]),
    st.lists(st.integers(0, 5000), max_size=12),
)
def test_the_size_of_the_chunks_makes_no_difference(form: str, sizes: list[int]) -> None:
    data = _EXAMPLES[form]
    np.testing.assert_array_equal(frames(form, cut(data, sizes)), frames(form, [data]))


def test_one_byte_at_a_time_is_as_good_as_all_at_once() -> None:
    for form in ("pcm", "wav", "opus", "ulaw_8000"):
        data = _EXAMPLES[form][:20_000]
        by_bytes = frames(form, (data[i : i + 1] for i in range(len(data))))
        np.testing.assert_array_equal(by_bytes, frames(form, [data]))


@pytest.mark.parametrize(("name", "subtype"), [("ulaw_8000", "ULAW"), ("alaw_8000", "ALAW")])
def test_telephone_codes_are_decoded_as_libsndfile_decodes_them(name: str, subtype: str) -> None:
    raw = encoded(tone(8000), 8000, "RAW", subtype)
    expected, _ = soundfile.read(
        io.BytesIO(raw), dtype="int16", samplerate=8000, channels=1, format="RAW", subtype=subtype
    )
    np.testing.assert_array_equal(
        frames(name, [raw]), frames("pcm_8000", [expected.astype("<i2").tobytes()])
    )
    if name == "ulaw_8000":
        np.testing.assert_array_equal(frames("mulaw_8000", [raw]), frames(name, [raw]))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "PCM_U8", "ULAW"])
def test_a_wav_gives_exactly_the_frames_that_transcribe_reads_from_it(
    subtype: str, tmp_path: Path
) -> None:
    data = as_wav(SPEECH, subtype)
    path = tmp_path / "speech.wav"
    path.write_bytes(data)
    expected = np.concatenate(list(open_audio(str(path)).frames()))
    np.testing.assert_array_equal(frames("wav", cut(data, [1000] * 50)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["wav", "opus"])
@pytest.mark.parametrize("loud_from_s", [None, 0, 12, 40])
def test_an_upload_that_is_far_too_quiet_is_raised_as_transcribe_does(
    form: str, loud_from_s: float | None, tmp_path: Path
) -> None:
    """Silero takes such a recording for silence: `edged transcribe` heard it, an upload did not."""
    samples, rate = soundfile.read(SPEECH, dtype="float32")
    samples = np.tile(samples, 10 if loud_from_s == 40 else 4) * 0.005
    if form == "opus":  # at a lower rate libsndfile decodes at that, PyAV always at 48 kHz
        samples, rate = soxr.resample(samples, rate, 48_000), 48_000
    if loud_from_s is not None:
        samples[int(loud_from_s * rate) :] *= 20
    kind = ("WAV", "PCM_16") if form == "wav" else ("OGG", "OPUS")
    data = encoded(samples, rate, *kind)
    path = tmp_path / f"quiet.{form}"
    path.write_bytes(data)
    expected = np.concatenate(list(open_audio(str(path)).frames()))
    taken = decoder(form, whole=True)
    out = [frame for chunk in cut(data, [5000] * 300) for frame in taken.push(chunk)]
    heard = np.concatenate([*out, *taken.finish()])
    assert np.abs(heard.astype(int) - expected).max() <= 2
    assert np.abs(frames(form, [data])[: 24_000 * 10]).max() < 20_000  # a socket's stays as it is


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_of_unknown_size_lasts_until_the_stream_ends(size: int) -> None:
    data = bytearray(as_wav(SPEECH))
    at = data.index(b"data")
    data[4:8] = data[at + 4 : at + 8] = struct.pack("<I", size)
    np.testing.assert_array_equal(frames("wav", [bytes(data)]), frames("wav", [as_wav(SPEECH)]))


def test_what_stands_around_the_samples_of_a_wav_is_not_heard() -> None:
    plain = as_wav(SPEECH)
    at = plain.index(b"data")
    note = b"LIST" + struct.pack("<I", 5) + b"noise\0"
    around = plain[:at] + note + plain[at:] + b"id3 " + struct.pack("<I", 4) + b"\x7f\x7f\x7f\x7f"
    np.testing.assert_array_equal(frames("wav", cut(around, [7] * 30)), frames("wav", [plain]))


def test_an_extensible_wav_in_stereo_is_heard_in_mono() -> None:
    both = np.stack([tone(48_000), tone(48_000)], axis=1)
    data = encoded(both, 48_000, "WAVEX", "PCM_24")
    heard = frames("wav", [data])
    assert like(heard[2000:20_000], tone(24_000)[2000:20_000]) > 40


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"OggS" + bytes(40), "not WAV"),
        (b"RIFF\x24\0\0\0WAVEdata\x10\0\0\0", "no format before its data"),
        (b"RIFF\x24\0\0\0WAVEfmt \x04\0\0\0", "size of its format is impossible"),
        (
            b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 99, 1, 8000, 0, 0, 0),
            "format 99 with 0 bits; PCM of 8 to 32",
        ),
        (
            b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 0, 8000, 0, 0, 16),
            "0 channels",
        ),
        (b"RIFF\x24\0\0\0WAVEfmt ", "it ends within its header"),
    ],
)
def test_a_wav_that_cannot_be_read_is_one_message(data: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        frames("wav", [data])


@pytest.mark.parametrize("gain_db", [0, 6, -6.5])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("writer", ["libsndfile", "ffmpeg"])
def test_opus_gives_exactly_the_frames_that_transcribe_reads_from_it(
    writer: str, channels: int, gain_db: float, tmp_path: Path
) -> None:
    """From the first sample to the last: what a file made by FFmpeg held was once given 312 samples
    of padding too many, for its places do not begin at 0. Its header's gain counts."""
    samples, _ = soundfile.read(SPEECH, dtype="float32")
    at_48k = soxr.resample(samples, 16_000, 48_000) * 0.4
    if writer == "ffmpeg":
        data = with_ffmpeg(np.repeat(at_48k[:, None], channels, 1), 48_000, "ogg", "libopus")
    else:
        both = np.stack([at_48k, 0.5 * at_48k], axis=1)[:, :channels]
        data = encoded(both, 48_000, "OGG", "OPUS")
    header = data.index(b"OpusHead") + 16
    gained = bytearray(data)
    gained[header : header + 2] = struct.pack("<h", round(gain_db * 256))
    data = with_checksums(bytes(gained))
    path = tmp_path / "speech.opus"
    path.write_bytes(data)
    expected = np.concatenate(list(open_audio(str(path)).frames()))
    heard = frames("opus", cut(data, [777] * 20))
    assert len(heard) == len(expected)
    # libsndfile's own first block of FFmpeg's files depends on how it is read, by -64 dB
    wrong = np.abs(heard.astype(int) - expected)
    assert wrong[STEP_SAMPLES:].max() <= 1
    assert wrong.max() < 40


def test_opus_is_decoded_as_it_arrives_and_not_at_the_end() -> None:
    data = _EXAMPLES["opus"]
    taken = decoder("opus")
    half = sum(1 for _ in taken.push(data[: len(data) // 2]))
    assert half > 10
    assert taken.seconds_per_byte > 0


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"RIFF" + bytes(40), "not an Ogg stream"), (b"OggS", "ends before any audio")],
)
def test_bytes_that_are_not_opus_are_one_message(data: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        frames("opus", [data])


def test_vorbis_in_ogg_is_refused_as_not_opus() -> None:
    data = encoded(tone(16_000), 16_000, "OGG", "VORBIS")
    with pytest.raises(RequestError, match="not Opus"):
        frames("opus", [data])


def test_a_flipped_bit_costs_its_page_and_is_reported_at_the_end() -> None:
    """The rest of the stream was given up at once."""
    good = _EXAMPLES["opus"]
    data = bytearray(good)
    data[len(data) // 2] ^= 1
    taken = decoder("opus")
    heard = list(taken.push(bytes(data)))
    with pytest.raises(RequestError, match=r"is damaged .* s in: one part"):
        heard.extend(taken.finish())
    whole = frames("opus", [good])
    got = np.concatenate(heard)
    assert len(got) == len(whole)
    assert like(got[-24_000:], whole[-24_000:]) > 20  # the end is at its own time


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_no_damage_to_an_opus_stream_is_more_than_an_error_message(rng: random.Random) -> None:
    """Checksums are corrected after the damage, so that it reaches the decoder."""
    data = bytearray(_EXAMPLES["opus"][:6000])
    for _ in range(rng.randrange(1, 20)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    with contextlib.suppress(RequestError):
        frames("opus", [with_checksums(bytes(data))])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(INPUT_FORMATS), st.binary(max_size=300))
def test_no_bytes_are_more_than_an_error_message(form: str, data: bytes) -> None:
    with contextlib.suppress(RequestError):
        frames(form, [data])


@pytest.mark.parametrize("wrong", ["mp3", "pcm_11025", "", "WAV", 7])
def test_another_format_is_refused_with_a_list_of_those_there_are(wrong: object) -> None:
    with pytest.raises(RequestError, match="input_format must be one of wav, opus, alaw_8000"):
        decoder(wrong)


def test_the_ogg_reader_keeps_no_more_than_a_page() -> None:
    reader = OggReader(b"OpusHead")
    data = _EXAMPLES["opus"]
    for at in range(0, len(data), 100):
        list(reader.push(data[at : at + 100]))
        assert reader.unread <= 65_307


def _opus() -> bytes:
    samples, rate = soundfile.read(SPEECH, dtype="int16")
    return encoded(samples, rate, "OGG", "OPUS")


_EXAMPLES = {
    "pcm": tone(24_000).tobytes(),
    "pcm_8000": tone(8000).tobytes() + b"\x7f",  # a cut sample at the end
    "pcm_44100": tone(44_100).tobytes(),
    "ulaw_8000": encoded(tone(8000), 8000, "RAW", "ULAW"),
    "alaw_8000": encoded(tone(8000), 8000, "RAW", "ALAW"),
    "wav": as_wav(SPEECH),
    "opus": _opus(),
}
