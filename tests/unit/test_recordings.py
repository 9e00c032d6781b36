"""Recordings as people have them: whole to their true end, or refused in our own words.

Each form here once lost audio silently, was refused without reason, or printed a library's words.
"""

from __future__ import annotations

import io
import os
import random
import struct
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import soundfile
import soxr

from edged.audio.files import AudioFile, open_audio
from edged.audio.stream_decoders import decoder
from edged.errors import InputError, RequestError
from tests.support.recordings import (
    RECORDINGS,
    Samples,
    amr,
    flac_of_unknown_length,
    mp3_without_length,
    wav_chunks,
    wav_format,
    with_ffmpeg,
    with_libsndfile,
    with_random_damage,
    with_serial,
)

RATE = 24_000
STEP = 1920


@pytest.fixture(scope="module")
def voice(speech: Path) -> Samples:
    """2.5 s of speech at 24 kHz."""
    samples, rate = soundfile.read(speech)
    return cast(Samples, soxr.resample(samples[: int(2.5 * rate)], rate, RATE))


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Samples]:
    """Reads these bytes as a file whose name says nothing -> all frames, -1..1."""

    def read_bytes(data: bytes) -> Samples:
        path = tmp_path / "recording"
        path.write_bytes(data)
        with closing(open_audio(str(path))) as source:
            frames = list(source.frames())
        return np.concatenate([np.empty(0), *frames]) / 2**15

    return read_bytes


def upload(data: bytes, input_format: str = "wav", chunk: int = 777) -> Samples:
    """The same bytes through the API's decoder, in pieces."""
    taken = decoder(input_format, whole=True)
    frames = [f for at in range(0, len(data), chunk) for f in taken.push(data[at : at + chunk])]
    return np.concatenate([np.empty(0), *frames, *taken.finish()]) / 2**15


def place_of(part: Samples, whole: Samples) -> tuple[int, float]:
    """Where `part` is heard in `whole`: the sample at which it begins, and its correlation."""
    size = 1 << (len(part) + len(whole)).bit_length()
    match = np.fft.irfft(np.fft.rfft(whole, size) * np.fft.rfft(part, size).conj(), size)
    start = int(match[: max(1, len(whole))].argmax())
    there = whole[start : start + len(part)]
    return start, float(np.corrcoef(there, part[: len(there)])[0, 1])


def assert_holds(got: Samples, *parts: Samples, least: float = 0.95) -> None:
    """`got` is these parts, one behind the other, with at most 0.15 s around each."""
    rest = got
    for part in parts:
        start, alike = place_of(part, rest[: len(part) + RATE // 4])
        assert alike > least
        assert start < 0.15 * RATE
        rest = rest[start + len(part) - 200 :]
    assert len(rest) < 0.25 * RATE


# -- files that were heard in part


def test_an_mp3_of_variable_rate_without_a_length_is_heard_to_its_end(
    voice: Samples, read: Callable[[bytes], Samples]
) -> None:
    """14 to 51 % were missing, silently: reading stopped where the first frames' rate ended it."""
    lively = np.concatenate([np.zeros(RATE), voice, voice])
    assert_holds(read(mp3_without_length(lively, RATE))[RATE:], voice, voice)


def test_an_mp3_with_a_length_has_no_silence_of_the_encoder_around_it(
    voice: Samples, read: Callable[[bytes], Samples]
) -> None:
    got = read(with_libsndfile(voice, RATE, "MP3", "MPEG_LAYER_III"))
    assert len(got) == -(-len(voice) // STEP) * STEP
    assert place_of(voice, got)[0] == 0


@pytest.mark.parametrize("tag", [b"", b"TAG" + bytes(125)], ids=["plain", "tag between"])
def test_mp3s_that_were_joined_are_all_heard_and_their_seam_is_no_damage(
    voice: Samples, read: Callable[[bytes], Samples], tag: bytes
) -> None:
    one = with_ffmpeg(voice, RATE, "mp3", "libmp3lame")
    other = with_libsndfile(voice, RATE, "MP3", "MPEG_LAYER_III")
    assert_holds(read(one + tag + other), voice, voice)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_every_link_of_a_chained_ogg_is_heard(
    voice: Samples, read: Callable[[bytes], Samples], subtype: str
) -> None:
    data = with_libsndfile(voice, RATE, "OGG", subtype)
    chain = b"".join(with_serial(data, serial) for serial in (1, 0xFFFFFFFF, 7))
    assert_holds(read(chain), voice, voice, voice)
    if subtype == "OPUS":
        np.testing.assert_array_equal(upload(chain, "opus"), read(chain))


def test_a_chain_whose_links_have_other_rates_and_channels_is_heard(
    voice: Samples, read: Callable[[bytes], Samples]
) -> None:
    stereo = np.column_stack([voice, voice])
    low = soxr.resample(voice, RATE, 16_000)
    vorbis = with_libsndfile(low, 16_000, "OGG", "VORBIS")
    vorbis += with_libsndfile(stereo, RATE, "OGG", "VORBIS")
    opus = with_libsndfile(voice, RATE, "OGG", "OPUS") + with_libsndfile(
        stereo, RATE, "OGG", "OPUS"
    )
    assert_holds(read(opus), voice, voice)
    assert_holds(read(vorbis), soxr.resample(low, 16_000, RATE), voice)


def test_a_flac_of_unknown_length_is_heard_to_its_end_without_complaint(
    voice: Samples, read: Callable[[bytes], Samples]
) -> None:
    """It was called damaged, and its last 35 ms were lost."""
    data = with_libsndfile(voice, RATE, "FLAC", "PCM_16")
    np.testing.assert_array_equal(read(flac_of_unknown_length(data)), read(data))


def test_a_flac_that_is_cut_short_is_heard_and_reported(
    voice: Samples, read: Callable[[bytes], Samples]
) -> None:
    data = with_libsndfile(voice, RATE, "FLAC", "PCM_16")
    with pytest.raises(InputError, match=r"is damaged"):
        read(data[: len(data) // 2])


def test_an_mp4_that_is_cut_short_is_reported(
    voice: Samples, read: Callable[[bytes], Samples]
) -> None:
    data = with_ffmpeg(voice, RATE, "ipod", "aac", movflags="faststart")
    with pytest.raises(InputError, match=r"is damaged 1\.\d\d s in|cut short: 1\.\d\d s of 2\.5"):
        read(data[: len(data) * 2 // 3])


def test_one_flipped_bit_of_a_flac_is_always_noticed(
    voice: Samples, read: Callable[[bytes], Samples]
) -> None:
    data = with_libsndfile(voice, RATE, "FLAC", "PCM_16")
    rng = random.Random(1)
    for _ in range(25):
        broken = bytearray(data)
        broken[rng.randrange(9000, len(data))] ^= 1 << rng.randrange(8)
        with pytest.raises(InputError, match="is damaged"):
            read(bytes(broken))


# -- files that were refused


@pytest.mark.parametrize(
    "junk",
    [bytes(417), b"\r\n", b"\n", b"\x0f\0\xff\xfb\x12" * 40, b"<html>" * 300],
    ids=["zeros", "line break", "newline", "half a frame", "text"],
)
@pytest.mark.parametrize("tag", ["0", "3"], ids=["without tag", "with tag"])
def test_an_mp3_that_begins_with_something_else_is_heard(
    voice: Samples, read: Callable[[bytes], Samples], junk: bytes, tag: str
) -> None:
    """Only the first two bytes were looked at: "not an audio file"."""
    data = with_ffmpeg(voice, RATE, "mp3", "libmp3lame", id3v2_version=tag)
    assert_holds(read(junk + data), voice)


def test_an_mp3_that_begins_in_the_middle_of_a_frame_is_heard(
    voice: Samples, read: Callable[[bytes], Samples]
) -> None:
    data = mp3_without_length(np.concatenate([voice, voice]), RATE)
    got = read(data[100:])
    assert place_of(voice, got[-len(voice) - 4 * STEP :])[1] > 0.95


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("adts", "aac", RATE),
        ("ipod", "aac", RATE),
        ("ipod", "alac", RATE),
        ("mp4", "aac", RATE),
        ("webm", "libopus", 48_000),
        ("matroska", "flac", RATE),
        ("mpegts", "aac", RATE),
        ("asf", "wmav2", RATE),
        ("ac3", "ac3", 48_000),
        ("eac3", "eac3", 48_000),
        ("avi", "libmp3lame", RATE),
        ("wv", "wavpack", RATE),
        ("tta", "tta", RATE),
        ("ogg", "flac", RATE),
        ("mp2", "mp2", RATE),
        ("flv", "aac", 44_100),
    ],
)
def test_what_needed_converting_is_read(
    voice: Samples, read: Callable[[bytes], Samples], container: str, codec: str, rate: int
) -> None:
    pause = np.zeros(RATE // 4)  # some encoders lose what their first block holds
    samples = soxr.resample(np.concatenate([pause, voice]), RATE, rate)
    got = read(with_ffmpeg(samples, rate, container, codec))
    start, alike = place_of(voice, got)
    assert alike > 0.93
    assert abs(start - len(pause)) < 0.15 * RATE
    assert len(got) - start - len(voice) < 0.25 * RATE


def test_a_voice_memo_in_amr_is_read(read: Callable[[bytes], Samples]) -> None:
    got = read(amr(2.0))
    assert len(got) == 2 * RATE
    assert np.abs(got).max() > 0.1


def test_tags_in_another_alphabet_spoil_nothing(
    voice: Samples, read: Callable[[bytes], Samples]
) -> None:
    """A title in Windows-1251, in a chunk that should hold UTF-8."""
    form = wav_format(1, 1, RATE, 2, 16)
    title = b"INAM" + struct.pack("<I", 6) + b"\xcf\xf0\xe8\xe2\xe5\xf2"
    data = (voice * 2**15).astype("<i2").tobytes()
    wav = wav_chunks((b"fmt ", form), (b"LIST", b"INFO" + title), (b"data", data))
    assert_holds(read(wav), voice)
    mp3 = with_ffmpeg(voice, RATE, "mp3", "libmp3lame", id3v2_version="0")
    assert_holds(read(mp3 + (b"TAG\xcf\xf0\xe8\xe2\xe5\xf2" + bytes(119))), voice)


# -- WAV of every kind, from files and through the API alike


def wav_kinds(voice: Samples) -> dict[str, bytes]:
    plain = (voice * 2**15).astype("<i2")
    low = soxr.resample(voice, RATE, 8000)
    padded = np.zeros((len(plain), 2), "<i2")
    padded[:, 1] = plain  # 16 of the upper 24 bits
    form = wav_format(1, 1, RATE, 2, 16)
    mp3 = mp3_without_length(voice, RATE)
    layer3 = wav_format(0x55, 1, RATE, 1, 0, b"\x0c\0\1\0\2\0\0\0\x80\1\1\0\x71\5")
    half = len(plain) // 2
    big = wav_format(1, 1, RATE, 2, 16, order=">")
    return {
        "24 bits in 4 bytes": wav_chunks(
            (b"fmt ", wav_format(1, 1, RATE, 4, 24)), (b"data", padded.tobytes())
        ),
        "GSM": with_libsndfile(low, 8000, "WAV", "GSM610"),
        "IMA ADPCM": with_libsndfile(voice, RATE, "WAV", "IMA_ADPCM"),
        "MS ADPCM": with_libsndfile(voice, RATE, "WAV", "MS_ADPCM"),
        "MP3": wav_chunks((b"fmt ", layer3), (b"fact", bytes(4)), (b"data", mp3)),
        "two data chunks": wav_chunks(
            (b"fmt ", form),
            (b"data", plain[:half].tobytes()),
            (b"LIST", b"INFOx"),
            (b"data", plain[half:].tobytes()),
        ),
        "an empty data chunk first": wav_chunks(
            (b"fmt ", form), (b"data", b""), (b"data", plain.tobytes())
        ),
        "size 0": wav_chunks((b"fmt ", form), (b"data", b"")) + plain.tobytes(),
        "a size that was not corrected": wav_chunks(
            (b"fmt ", form), (b"data", (np.arange(1000) % 7).astype("<i2").tobytes())
        )
        + (plain | 0x80).tobytes(),
        "RIFX": wav_chunks((b"fmt ", big), (b"data", plain.astype(">i2").tobytes()), magic=b"RIFX"),
        "RF64": with_libsndfile(voice, RATE, "RF64", "PCM_16") + b"LIST\4\0\0\0INFO",
        "64-bit float": with_libsndfile(voice, RATE, "WAV", "DOUBLE"),
    }


@pytest.mark.parametrize("kind", wav_kinds(np.ones(4000)))
def test_a_wav_of_every_kind_is_the_same_from_a_file_and_through_the_api(
    voice: Samples,
    read: Callable[[bytes], Samples],
    kind: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The API took 24 bits in 4 bytes for noise, and refused GSM and MP3, which files may hold."""
    data = wav_kinds(voice)[kind]
    got = read(data)
    np.testing.assert_array_equal(upload(data), got)
    np.testing.assert_array_equal(upload(data, chunk=1 << 20), got)
    assert_holds(got, voice, least=0.9)
    assert capfd.readouterr().err == ""


def test_a_wav_of_a_codec_that_nobody_reads_is_named_with_the_command_that_converts_it(
    read: Callable[[bytes], Samples],
) -> None:
    data = wav_chunks((b"fmt ", wav_format(0x22, 1, 8000, 32, 1)), (b"data", bytes(320)))
    with pytest.raises(InputError, match=r"holds WAV format 34 with 1 bits.*`ffmpeg -i rec"):
        read(data)
    with pytest.raises(RequestError, match="holds WAV format 34 with 1 bits"):
        upload(data)


def test_a_64_bit_float_that_no_32_bits_can_hold_is_silence_and_says_nothing(
    read: Callable[[bytes], Samples], capfd: pytest.CaptureFixture[str]
) -> None:
    """numpy warned on standard error."""
    samples = np.array([0.5, 1e300, -1e300, np.nan, -0.5])
    data = wav_chunks((b"fmt ", wav_format(3, 1, RATE, 8, 64)), (b"data", samples.tobytes()))
    assert read(data)[:5].tolist() == [0.5, 0.0, 0.0, 0.0, -0.5]
    assert capfd.readouterr().err == ""


def test_an_mp3_in_wav_of_less_than_a_packet_is_heard_at_its_end(
    voice: Samples, read: Callable[[bytes], Samples]
) -> None:
    mp3 = mp3_without_length(voice[:500], RATE)
    data = wav_chunks((b"fmt ", wav_format(0x55, 1, RATE, 1, 0)), (b"data", mp3[:200]))
    with suppress(InputError):
        read(data)


# -- exactly what libsndfile decodes


@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        ("WAV", "PCM_U8"),
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "PCM_32"),
        ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"),
        ("WAV", "ALAW"),
        ("WAV", "ULAW"),
        ("WAV", "IMA_ADPCM"),
        ("WAVEX", "PCM_24"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_24"),
        ("FLAC", "PCM_S8"),
        ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"),
        ("AIFF", "PCM_16"),
        ("AIFF", "PCM_24"),
        ("AIFF", "FLOAT"),
        ("AU", "PCM_16"),
        ("AU", "ULAW"),
        ("CAF", "PCM_16"),
        ("CAF", "PCM_32"),
    ],
)
def test_the_ordinary_formats_give_sample_for_sample_what_libsndfile_gives(
    voice: Samples, read: Callable[[bytes], Samples], form: str, subtype: str
) -> None:
    data = with_libsndfile(voice, RATE, form, subtype)
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    expected = np.clip(np.rint(expected * 2**15), -(2**15), 2**15 - 1) / 2**15
    got = read(data)
    np.testing.assert_array_equal(got[: len(expected)], expected)
    assert not got[len(expected) :].any()
    assert len(got) - len(expected) < STEP


# -- pipes


class Pipe:
    """The read end of a pipe into which the bytes are written, as from another process."""

    def __init__(self, data: bytes) -> None:
        out, into = os.pipe()
        self.file = os.fdopen(out, "rb")
        self._writer = threading.Thread(target=self._write, args=(into, data))
        self._writer.start()

    def frames(self) -> Samples:
        head = self.file.peek(64)[:64]
        source = AudioFile("standard input", self.file, head)
        try:
            return np.concatenate([np.empty(0), *source.frames()]) / 2**15
        finally:
            source.close()
            self._writer.join()

    @staticmethod
    def _write(into: int, data: bytes) -> None:
        with open(into, "wb") as file, suppress(BrokenPipeError):
            file.write(data)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "Opus", "Vorbis", "WebM", "MP4", "MP3"])
def test_a_file_from_a_pipe_is_heard_as_from_a_disk(
    voice: Samples, read: Callable[[bytes], Samples], form: str
) -> None:
    """A pipe cannot be sought in."""
    at_48k = soxr.resample(voice, RATE, 48_000)
    data = {
        "WAV": lambda: wav_kinds(voice)["size 0"],
        "FLAC": lambda: flac_of_unknown_length(with_libsndfile(voice, RATE, "FLAC", "PCM_16")),
        "Opus": lambda: with_libsndfile(voice, RATE, "OGG", "OPUS"),
        "Vorbis": lambda: with_libsndfile(voice, RATE, "OGG", "VORBIS"),
        "WebM": lambda: with_ffmpeg(at_48k, 48_000, "webm", "libopus"),
        "MP4": lambda: with_ffmpeg(voice, RATE, "ipod", "aac", movflags="faststart"),
        "MP3": lambda: with_ffmpeg(voice, RATE, "mp3", "libmp3lame"),
    }[form]()
    got, whole = Pipe(data).frames(), read(data)
    assert_holds(got, voice)
    assert abs(len(got) - len(whole)) <= STEP


def test_an_mp4_with_its_index_at_the_end_is_refused_from_a_pipe_with_the_reason(
    voice: Samples,
) -> None:
    data = with_ffmpeg(np.tile(voice, 4), RATE, "ipod", "aac")
    with pytest.raises(InputError, match="not a readable MP4 file, which may need a file that"):
        Pipe(data).frames()


# -- damage, noise, and what it costs


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_are_no_audio_whatever_they_begin_with(
    read: Callable[[bytes], Samples], seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = random.Random(seed).randbytes(30_000)
    for head in (b"", b"\xff\xfb\x90\0", b"\xff\xf1\x50\x80", b"ID3\3\0\0\0\0\0\0", b"\x0b\x77"):
        with pytest.raises(InputError, match=r"is not an audio file|is not a readable MP3"):
            read(head + noise)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", RECORDINGS)
def test_damage_is_never_more_than_an_input_error_and_ends_soon(
    voice: Samples,
    read: Callable[[bytes], Samples],
    kind: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    good = RECORDINGS[kind](voice[:RATE], RATE)
    rng = random.Random(kind)
    for _ in range(15):
        data = with_random_damage(good, rng)
        started = time.process_time()
        with suppress(InputError):
            assert len(read(data)) < 120 * RATE
        assert time.process_time() - started < 5
    assert capfd.readouterr().err == ""


class FailingDisk(io.BytesIO):
    """A file whose second half cannot be read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= len(self.getvalue()) // 2:
            raise OSError(5, "Input/output error")
        return super().read(min(4096, size) if size is not None and size > 0 else 4096)

    read1 = read


@pytest.mark.parametrize("kind", ["wav", "mp3", "opus"])
def test_a_disk_that_fails_is_told_from_a_damaged_file(
    voice: Samples, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = RECORDINGS[kind](np.tile(voice, 20), RATE)
    heard: list[object] = []
    with pytest.raises(InputError, match=r"talk could not be read further than \d+\.\d\d s"):
        heard.extend(AudioFile("talk", FailingDisk(data), data[:64]).frames())
    assert len(heard) > 100
    assert capfd.readouterr().err == ""
