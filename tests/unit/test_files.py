"""Audio files: every format that is promised, and every way in which a file can be broken."""

from __future__ import annotations

import os
import struct
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edged.audio import pcm
from edged.audio.files import ACCEPTED, RawAudio, open_audio
from edged.audio.pcm import RawFormat
from edged.errors import InputError

Samples = NDArray[np.float64]


@pytest.fixture(scope="module")
def voice(speech: Path) -> Samples:
    """2.5 s of speech at 24 kHz: not a whole number of 80 ms frames."""
    samples, rate = soundfile.read(speech)
    return cast(Samples, soxr.resample(samples[: int(2.5 * rate)], rate, 24_000))


def read(path: Path | str, raw: RawFormat | None = None) -> Samples:
    """All frames, -1..1."""
    with closing(open_audio(str(path), raw)) as source:
        frames = list(source.frames())
    assert all(frame.dtype == np.int16 and frame.shape == (1920,) for frame in frames)
    return np.concatenate([np.empty(0), *frames]) / 2**15


def read_damaged(path: Path) -> tuple[Samples, str]:
    """What could be decoded, and the message that says what could not."""
    frames: list[NDArray[np.int16]] = []
    with closing(open_audio(str(path))) as source:
        stream = source.frames()
        with pytest.raises(InputError) as error:
            frames.extend(stream)
    return np.concatenate([np.empty(0), *frames]) / 2**15, str(error.value)


def write(path: Path, samples: Samples, rate: int = 24_000, subtype: str | None = None) -> Path:
    resampled = samples if rate == 24_000 else soxr.resample(samples, 24_000, rate)
    soundfile.write(path, resampled, rate, subtype=subtype)
    return path


def wav(path: Path, samples: Samples, **header: int) -> Path:
    """A 16-bit WAV written by hand, so that its header can lie."""
    data = (samples * 2**15).astype("<i2").tobytes()
    fields = {"rate": 24_000, "channels": 1, "size": len(data), "bits": 16, **header}
    width = fields["channels"] * fields["bits"] // 8
    form = struct.pack(
        "<HHIIHH",
        *(1, fields["channels"] & 0xFFFF, fields["rate"]),
        *((fields["rate"] * width) & 0xFFFFFFFF, width & 0xFFFF, fields["bits"]),
    )
    head = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16) + form
    path.write_bytes(head + b"data" + struct.pack("<I", fields["size"]) + data)
    return path


def alike(got: Samples, voice: Samples) -> float:
    """Correlation of what was read with what was written."""
    both = min(len(got), len(voice))
    return float(np.corrcoef(got[:both], voice[:both])[0, 1])


def level(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples**2)))


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("a.wav", "PCM_U8"),
        ("a.wav", "PCM_16"),
        ("a.wav", "PCM_24"),
        ("a.wav", "PCM_32"),
        ("a.wav", "FLOAT"),
        ("a.wav", "DOUBLE"),
        ("a.wav", "ALAW"),
        ("a.wav", "ULAW"),
        ("a.wav", "IMA_ADPCM"),
        ("a.wav", "MS_ADPCM"),
        ("a.flac", "PCM_16"),
        ("a.flac", "PCM_24"),
        ("a.ogg", "VORBIS"),
        ("a.opus", "OPUS"),
        ("a.mp3", "MPEG_LAYER_III"),
        ("a.aiff", "PCM_16"),
        ("a.au", "ULAW"),
        ("a.rf64", "PCM_16"),
        ("a.w64", "PCM_16"),
        ("a.caf", "PCM_16"),
    ],
)
def test_every_promised_format_gives_the_speech_that_is_in_it(
    tmp_path: Path, voice: Samples, name: str, subtype: str
) -> None:
    path = tmp_path / name
    form = "OGG" if name == "a.opus" else None
    soundfile.write(path, voice, 24_000, subtype=subtype, format=form)
    got = read(path)
    assert alike(got, voice) > 0.97
    assert abs(len(got) - len(voice)) < 0.16 * 24_000  # codecs pad; the last frame too


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_any_rate_keeps_the_speech_and_its_time(tmp_path: Path, voice: Samples, rate: int) -> None:
    low = soxr.resample(soxr.resample(voice, 24_000, 8_000), 8_000, 24_000)
    got = read(write(tmp_path / "a.wav", low, rate, "FLOAT"))
    assert alike(got, low) > 0.999  # one sample of delay would spoil this
    assert len(got) == -(-len(voice) // 1920) * 1920


def test_gsm_in_wav_is_read(tmp_path: Path, voice: Samples) -> None:
    got = read(write(tmp_path / "a.wav", voice, 8_000, "GSM610"))
    assert level(got) == pytest.approx(level(voice), rel=0.3)


def test_the_last_frame_is_filled_with_silence(tmp_path: Path) -> None:
    tone = np.where(np.arange(2_000) % 2, 0.5, -0.5)
    got = read(wav(tmp_path / "a.wav", tone))
    assert len(got) == 2 * 1920
    assert not got[2_000:].any()
    assert np.array_equal(got[:2_000], tone)


def test_an_offset_is_taken_out_and_the_speech_is_left(tmp_path: Path, voice: Samples) -> None:
    """A recording with an offset of 0.4 was heard as silence: the voice detector gave 0."""
    got = read(write(tmp_path / "a.wav", 0.5 * voice + 0.4))
    got = got[: len(voice)]
    assert abs(got.mean()) < 0.01
    assert alike(got, voice) > 0.999
    assert level(got) == pytest.approx(0.5 * level(voice), rel=0.02)


def test_a_recording_that_is_far_too_quiet_is_raised(tmp_path: Path, voice: Samples) -> None:
    """A recording 40 dB too quiet was taken for silence by the voice detector."""
    quiet = voice * 0.002 / np.abs(voice).max()
    got = read(write(tmp_path / "a.wav", quiet, subtype="FLOAT"))
    assert 0.004 < np.abs(got).max() <= 0.0101


def test_the_gain_for_quiet_recordings_falls_before_loud_speech_is_clipped(
    tmp_path: Path, voice: Samples
) -> None:
    hiss = np.random.default_rng(0).normal(0, 1e-4, 24_000 * 20)
    got = read(write(tmp_path / "a.wav", np.append(hiss, voice), subtype="FLOAT"))
    got = got[len(hiss) : len(hiss) + len(voice)]
    assert level(got) == pytest.approx(level(voice), rel=0.01)


def test_ordinary_speech_is_not_touched(tmp_path: Path, voice: Samples) -> None:
    got = read(wav(tmp_path / "a.wav", voice))
    assert np.array_equal(got[: len(voice)], (voice * 2**15).astype("<i2") / 2**15)


@pytest.mark.parametrize("channels", [2, 6])
def test_speech_in_one_channel_keeps_its_level(
    tmp_path: Path, voice: Samples, channels: int
) -> None:
    lonely = np.zeros((len(voice), channels))
    lonely[:, 1] = voice
    got = read(write(tmp_path / "a.wav", lonely, subtype="FLOAT"))
    assert level(got[: len(voice)]) == pytest.approx(level(voice), rel=0.01)


def test_a_channel_wired_in_reverse_does_not_cancel_the_speech(
    tmp_path: Path, voice: Samples
) -> None:
    got = read(write(tmp_path / "a.wav", np.column_stack([voice, -0.9 * voice]), subtype="FLOAT"))
    assert alike(got, voice) > 0.999
    assert level(got[: len(voice)]) == pytest.approx(level(voice), rel=0.02)


def test_two_speakers_in_two_channels_are_both_heard(tmp_path: Path, voice: Samples) -> None:
    silence = np.zeros_like(voice)
    both = np.column_stack([np.append(voice, silence), np.append(silence, voice)])
    got = read(write(tmp_path / "a.wav", both, subtype="FLOAT"))
    assert alike(got[: len(voice)], voice) > 0.99
    assert alike(got[len(voice) : 2 * len(voice)], voice) > 0.99


def test_samples_that_are_no_numbers_become_silence_and_are_counted(
    tmp_path: Path, voice: Samples
) -> None:
    broken = voice.copy()
    broken[1000:1010], broken[5000] = np.nan, np.inf
    path = write(tmp_path / "a.wav", broken, subtype="FLOAT")
    with closing(open_audio(str(path))) as source:
        got = np.concatenate(list(source.frames()))
        assert source.bad_samples == 11
    assert not got[1000:1010].any()
    assert alike(got, voice) > 0.99


def test_what_is_too_loud_is_clipped_and_never_wraps(tmp_path: Path, voice: Samples) -> None:
    """int16(32768.0) is -32768: a shout became a crack."""
    got = read(write(tmp_path / "a.wav", np.clip(voice * 20, -9, 9), subtype="FLOAT"))
    got = got[: len(voice)]
    assert got.max() == (2**15 - 1) / 2**15
    loud = np.abs(voice) > 0.01
    assert (np.sign(got) == np.sign(voice))[loud].all()


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFF0, 10**6])
def test_a_header_that_promises_too_much_gives_what_is_there(
    tmp_path: Path, voice: Samples, size: int
) -> None:
    got = read(wav(tmp_path / "a.wav", voice, size=size))
    assert alike(got, voice) > 0.999


def test_a_file_that_ends_within_a_sample_is_read_up_to_there(
    tmp_path: Path, voice: Samples
) -> None:
    path = wav(tmp_path / "a.wav", voice)
    path.write_bytes(path.read_bytes()[:-1])
    assert alike(read(path), voice) > 0.999


def test_a_header_without_audio_is_an_empty_file_and_no_error(tmp_path: Path) -> None:
    assert len(read(wav(tmp_path / "a.wav", np.empty(0)))) == 0


def broken_files(tmp_path: Path, voice: Samples) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.wav" for name in ("empty", "noise", "cut", "text")}
    paths["empty"].touch()
    paths["noise"].write_bytes(bytes([0xFF, 0xE4]) + np.random.default_rng(1).bytes(5_000))
    paths["cut"].write_bytes(wav(tmp_path / "whole.wav", voice).read_bytes()[:30])
    paths["text"].write_text("She had your dark suit in greasy wash water all year.")
    paths["riff"] = tmp_path / "riff.wav"
    paths["riff"].write_bytes(b"RIFF\x10\0\0\0AVI LIST")
    return paths


@pytest.mark.parametrize("name", ["empty", "noise", "cut", "text", "riff"])
def test_a_file_that_is_no_audio_is_one_message_with_its_name_and_what_is_accepted(
    tmp_path: Path, voice: Samples, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = broken_files(tmp_path, voice)[name]
    with pytest.raises(InputError) as error:
        read(path)
    assert str(path) in str(error.value)
    assert ACCEPTED in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""  # libmpg123 likes to talk


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x1cftypisom", "MP4"),
        (b"\0\0\0\x20ftypM4A ", "MP4"),
        (b"\x1aE\xdf\xa3\x01\0", "WebM"),
        (b"fLaC\0\0\0\x22", "FLAC"),
        (b"RIFF\xff\0\0\0AVI LIST", "AVI"),
        (b"wvpk\0\1\0\0", "WavPack"),
        (b"OggS\0\2", "Ogg"),
    ],
)
def test_a_damaged_file_is_called_by_the_format_that_it_begins_with(
    tmp_path: Path, head: bytes, kind: str
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(head + bytes(100))
    with pytest.raises(InputError, match=rf"is not a readable {kind}.* file: .*accepted: wav"):
        read(path)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"rate": 1_092_676}, "sample rate of 1092676 Hz"),
        ({"rate": 100}, "sample rate of 100 Hz"),
        ({"channels": 900}, "channels"),
    ],
)
def test_a_header_with_an_absurd_shape_is_refused(
    tmp_path: Path, voice: Samples, header: dict[str, int], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        read(wav(tmp_path / "a.wav", voice, **header))


def test_damage_in_the_middle_of_a_flac_costs_what_is_damaged_and_is_reported(
    tmp_path: Path, speech: Path
) -> None:
    """Everything behind a broken FLAC frame was given up. What follows keeps its time."""
    data = bytearray(speech.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path = tmp_path / "a.flac"
    path.write_bytes(data)
    got, message = read_damaged(path)
    whole = read(speech)
    assert "is damaged" in message
    assert len(got) == len(whole)
    wrong = np.abs(got - whole) > 2 / 2**15
    assert wrong.any()
    assert wrong.sum() < 1.0 * 24_000


@pytest.mark.parametrize("raw", [None, RawFormat()])
def test_what_cannot_be_opened_is_one_message(tmp_path: Path, raw: RawFormat | None) -> None:
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "missing.wav", raw)
    with pytest.raises(InputError, match="is a directory"):
        read(tmp_path, raw)
    with pytest.raises(InputError, match="null"):
        read("with\0null", raw)


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read(tmp_path / "pipe")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cut=st.integers(0, 3_000),
    changes=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=8),
    kind=st.sampled_from(["wav", "flac", "ogg", "aiff", "au", "mp3"]),
)
def test_no_bytes_at_all_can_do_worse_than_an_input_error(
    tmp_path_factory: pytest.TempPathFactory,
    cut: int,
    changes: list[tuple[int, int]],
    kind: str,
) -> None:
    good = tmp_path_factory.getbasetemp() / f"good.{kind}"
    if not good.exists():
        tone = 0.3 * np.sin(np.arange(8_000) / 5)
        soundfile.write(good, tone, 16_000)
    data = bytearray(good.read_bytes())
    for at, value in changes:
        data[at % len(data)] = value
    path = good.with_name(f"bad.{kind}")
    path.write_bytes(data[: max(0, len(data) - cut)])
    try:
        got = read(path)
    except InputError:
        return
    assert len(got) < 24_000 * 60


@pytest.mark.parametrize(
    ("encoding", "subtype"),
    [("u8", "PCM_U8"), ("s16", "PCM_16"), ("pcm", "PCM_16"), ("s32", "PCM_32"), ("f32", "FLOAT"),
     ("ulaw", "ULAW"), ("alaw", "ALAW")],
)  # fmt: skip
def test_raw_encodings_decode_as_libsndfile_does(
    tmp_path: Path, voice: Samples, encoding: str, subtype: str
) -> None:
    path = tmp_path / "a.raw"
    stereo = np.column_stack([voice, voice])
    soundfile.write(path, stereo, 24_000, subtype=subtype, format="RAW", endian="LITTLE")
    expected, _ = soundfile.read(
        path, samplerate=24_000, channels=2, subtype=subtype, format="RAW", endian="LITTLE"
    )
    raw = RawFormat(encoding, 24_000, 2)
    assert np.array_equal(pcm.decode(path.read_bytes(), raw), expected.astype(np.float32))
    assert alike(read(path, raw), voice) > 0.97


def test_every_raw_encoding_that_the_command_line_offers_is_known() -> None:
    from typing import get_args

    from edged.cli.transcribe_command import RawEncoding

    assert set(get_args(RawEncoding)) == set(pcm.RAW_ENCODINGS)


def test_raw_audio_that_ends_within_a_sample_loses_that_sample_only(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(np.full(1920, 1000, "<i2").tobytes() + b"\x01")
    assert len(read(path, RawFormat())) == 1920


@pytest.mark.parametrize(("rate", "channels"), [(0, 1), (-1, 1), (10**7, 1), (24_000, 0)])
def test_raw_audio_of_an_impossible_shape_is_refused(rate: int, channels: int) -> None:
    with pytest.raises(InputError, match=r"(is|are) accepted"):
        RawFormat("pcm", rate, channels)


class Endless:
    """A stream of noise that never was in memory."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.noise = np.random.default_rng(0).bytes(1 << 16)

    def read(self, count: int) -> bytes:
        count = min(count, self.left)
        self.left -= count
        return self.noise[:count]

    def close(self) -> None: ...


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_the_audio() -> None:
    def peak(minutes: int) -> int:
        raw = RawFormat("pcm", 16_000, 2)
        stream = cast(BinaryIO, Endless(minutes * 60 * 16_000 * raw.frame_bytes))
        tracemalloc.start()
        count = sum(1 for _ in RawAudio("noise", stream, raw).frames())
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == minutes * 750
        return used

    peak(1)
    assert peak(3) < peak(1) + 50_000
