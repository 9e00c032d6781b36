"""Makes labelled audio streams for fitting and scoring the turn model.

Real streams: recordings whose speaker turns were labelled by people, unchanged.

Synthetic streams: sentences of one speaker, joined with silences of random length. Some sentences
get an additional pause inside, at a place where the speaker made a short one. Silences are filled
with noise that has the spectrum of the clip's own background. Sentence ends come from the text
(sentences.py); a clip without a text counts as one sentence. A stream models one visit to the
device: one or a few turns, then a long silence. The pauses that the recording itself has are known
from word times where the manifest gives them, else from the voice detector.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import soxr
from numpy.typing import NDArray

from edged import SAMPLE_RATE
from edged.audio.files import open_audio
from edged.errors import ConfigError
from models.turn.sentences import (
    BREAKS_OFF,
    TimedWord,
    has_several,
    punctuated_texts,
    sentence_ends,
)

Audio: TypeAlias = NDArray[np.int16]
Span: TypeAlias = tuple[float, float]
FindSpeech: TypeAlias = Callable[[Audio], list[Span]]
FindWords: TypeAlias = Callable[[Audio], list[TimedWord]]

INNER_S = (0.3, 1.5)  # a pause of this length between words of one speaker lies inside a turn
END_S = 2.0  # a silence of this length or more ends a turn
CLOSURE_S = 0.08  # stop consonants are silent for up to this long: not a pause
WORD_S = 0.25  # least speech on both sides of a lengthened pause
LABEL_GAP_S = 0.15  # labelled words closer than this form one stretch of speech
STREAM_SPEECH_S = 5.0  # a synthetic stream takes clips until it has this much
REST_S = 8.0  # silence at the end of a synthetic stream
SPEAKER_MAX_S = 45.0  # most audio taken of one speaker
SPEECH_KINDS = ("read", "spontaneous", "command", "digits", "noisy", "speech")
SYNC_MAPS = "sync map"  # such labels have no gaps between lines and are not used


@dataclass(frozen=True)
class LabelledStream:
    """Audio (int16, 24 kHz) with labels. All times are seconds from its start.

    id, speakers: of the recordings it was made from.
    real: labelled by people; otherwise synthetic.
    speech: when anybody speaks (the union over all speakers).
    inner: pauses inside a turn, and inside a sentence where sentence ends are known.
    ends: where a turn ends.
    known_s: the labels are valid up to this time.
    between: pauses between two sentences of one turn.
    read: read aloud.
    source: what a cross-validation leaves out together: the repository of a recording, or the
        speaker of a synthetic stream.
    kind: of a real stream "one party", where the other party of a call is not heard, "two
        parties", or "monologue"; else "synthetic".
    ambiguous: spans with unreliable labels.
    """

    id: str
    speakers: tuple[str, ...]
    real: bool
    audio: Audio
    speech: tuple[Span, ...]
    inner: tuple[Span, ...]
    ends: tuple[float, ...]
    known_s: float
    between: tuple[Span, ...] = ()
    read: bool = False
    source: str = ""
    kind: str = "synthetic"
    ambiguous: tuple[Span, ...] = ()


@dataclass(frozen=True)
class _Sentence:
    """One sentence of a recording.

    audio: the whole recording; start_s to stop_s belong to this sentence (seconds of `audio`).
    speech: when the speaker speaks, seconds of `audio`.
    tone: amplitude spectrum of the background (`_room_tone`).
    """

    id: str
    speaker: str
    audio: Audio
    speech: tuple[Span, ...]
    tone: NDArray[np.float32] = field(repr=False)
    read: bool
    start_s: float = 0.0
    stop_s: float = 0.0


def read_streams(
    manifest: Path, listen: FindSpeech, read: FindWords = lambda audio: [], seed: int = 0
) -> list[LabelledStream]:
    """Returns the labelled conversations of a manifest and the streams made from its other clips.

    listen: finds the speech in a clip without word times.
    read: finds the words of a clip; a clip without any counts as one sentence.
    seed: of the synthetic streams' silences.
    Raises ConfigError for the manifest, InputError for a recording.
    """
    entries = _entries(manifest)
    texts = punctuated_texts()
    labelled = [e for e in entries if _has_turns(e)]
    real = [_labelled(e, manifest.parent) for e in labelled]
    real += list(_both_parties(labelled, real))
    clips = [
        sentence
        for e in entries
        if e.get("kind") in SPEECH_KINDS and not e.get("turns")
        for sentence in _sentences(
            _clip(e, manifest.parent, listen), texts.get(e["id"]) or e.get("text") or "", read
        )
    ]
    return real + list(_build_streams(clips, seed))


def _entries(manifest: Path) -> list[dict[str, Any]]:
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.strip()]
        return [e for e in entries if not e.get("dup_of")]
    except (OSError, ValueError, AttributeError) as problem:
        raise ConfigError(f"the manifest {manifest} cannot be read: {problem}") from problem


def _has_turns(entry: dict[str, Any]) -> bool:
    return bool(entry.get("turns")) and SYNC_MAPS not in (entry.get("turns_source") or "")


def load_audio(path: Path) -> Audio:
    """Reads a recording as int16[n], 24 kHz mono. Raises InputError."""
    with closing(open_audio(str(path))) as source:
        return np.concatenate(list(source.frames()))


def _labelled(entry: dict[str, Any], folder: Path) -> LabelledStream:
    turns = _turns(entry)
    duration = float(entry["duration_s"])
    speech = _merge([(a, b) for a, b, _ in turns], 0.0)
    inner, ends = _pauses(turns, speech, duration)
    if "turn_ends" in entry:  # labels that tell which silences end a turn
        ends = [float(t) for t, _ in entry["turn_ends"]]
        inner = [(float(a), float(b)) for a, b in entry["pauses"]]
    return LabelledStream(
        str(entry["id"]),
        _speakers(entry),
        True,
        load_audio(folder / entry["file"]),
        tuple(speech),
        tuple(pause for pause in inner if INNER_S[0] <= pause[1] - pause[0] <= INNER_S[1]),
        tuple(ends),
        duration,
        source=str(entry.get("repo") or entry["id"]),
        kind=_kind(entry),
        ambiguous=tuple((float(a), float(b)) for a, b in entry.get("ambiguous") or ()),
    )


def _turns(entry: dict[str, Any]) -> list[tuple[float, float, str]]:
    return sorted((float(t[1]), float(t[2]), str(t[0])) for t in entry["turns"])


def _pauses(
    turns: Sequence[tuple[float, float, str]], speech: Sequence[Span], duration_s: float
) -> tuple[list[Span], list[float]]:
    """Returns the pauses inside turns, and the turn ends, by their length and the speakers."""
    inner, ends = [], []
    gaps = [(a[1], b[0]) for a, b in pairwise(speech)]
    for start, stop in [*gaps, (speech[-1][1], duration_s)]:
        before = {who for _, b, who in turns if abs(b - start) < 0.05}
        after = {who for a, _, who in turns if abs(a - stop) < 0.05}
        if stop - start >= END_S:
            ends.append(start)
        elif INNER_S[0] <= stop - start <= INNER_S[1] and before & after:
            inner.append((start, stop))
    return inner, ends


def _kind(entry: dict[str, Any]) -> str:
    if len({str(turn[0]) for turn in entry["turns"]}) > 1:
        return "two parties"
    return "one party" if entry.get("kind") == "conversation" else "monologue"


def _both_parties(
    entries: Sequence[dict[str, Any]], streams: Sequence[LabelledStream]
) -> Iterator[LabelledStream]:
    """Yields the two channels of each call, mixed into one stream."""
    by_id = {stream.id: stream for stream in streams}
    entry_of = {str(entry["id"]): entry for entry in entries}
    for entry in entries:
        one, other = by_id[str(entry["id"])], by_id.get(str(entry.get("partner")))
        if other is None or one.id > other.id:
            continue
        turns = sorted(_turns(entry) + _turns(entry_of[other.id]))
        speech = _merge([(a, b) for a, b, _ in turns], 0.0)
        samples = min(len(one.audio), len(other.audio))
        inner, ends = _pauses(turns, speech, samples / SAMPLE_RATE)
        mixed = one.audio[:samples].astype(np.int32) + other.audio[:samples]
        yield replace(
            one,
            id=f"{one.id}+{other.id}",
            speakers=(*one.speakers, *other.speakers),
            audio=np.clip(mixed, -32768, 32767).astype(np.int16),
            speech=tuple(speech),
            inner=tuple(inner),
            ends=tuple(ends),
            known_s=samples / SAMPLE_RATE,
            kind="two parties",
            ambiguous=one.ambiguous + other.ambiguous,
        )


def over_telephone(stream: LabelledStream) -> LabelledStream:
    """Returns the stream as a telephone call transmits it: 8 kHz, mu-law (ITU-T G.711)."""
    x = stream.audio.astype(np.float32) / 32768
    narrow = soxr.resample(soxr.resample(x, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)[: len(x)]
    loudness = np.log1p(255 * np.minimum(np.abs(narrow), 1)) / np.log(256)
    code = np.round(127 * loudness)
    decoded = np.sign(narrow) * (256 ** (code / 127) - 1) / 255
    audio = np.round(32767 * decoded).astype(np.int16)
    return replace(stream, id=f"{stream.id} (telephone)", audio=audio)


def _speakers(entry: dict[str, Any]) -> tuple[str, ...]:
    """Returns the clip's speaker where the manifest names one, else all speakers of its turns."""
    if entry.get("speaker"):
        return (str(entry["speaker"]),)
    return tuple(sorted({str(turn[0]) for turn in entry["turns"]}))


def _merge(spans: Sequence[Span], gap_s: float) -> list[Span]:
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start - merged[-1][1] <= gap_s:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _clip(entry: dict[str, Any], folder: Path, listen: FindSpeech) -> _Sentence:
    audio = load_audio(folder / entry["file"])
    times = entry.get("word_times") or []
    words = [(float(a), float(b)) for word, a, b in times if word.strip()]
    speech = _merge(words, LABEL_GAP_S) if words else listen(audio)
    speaker = entry.get("speaker") or entry["id"]
    stop = len(audio) / SAMPLE_RATE
    read = entry.get("kind") == "read"
    tone = _room_tone(audio)
    return _Sentence(str(entry["id"]), str(speaker), audio, tuple(speech), tone, read, 0.0, stop)


def _sentences(clip: _Sentence, text: str, read: FindWords) -> list[_Sentence]:
    """Splits a clip at the silences between sentences and drops an unfinished last sentence."""
    gaps = [(a[1], b[0]) for a, b in pairwise(clip.speech)]
    sentences = []
    if gaps and has_several(text):
        first = 0
        for i, ends in enumerate(sentence_ends(text, read(clip.audio), gaps), 1):
            if ends:
                middle = sum(gaps[i - 1]) / 2
                sentences.append(replace(clip, speech=clip.speech[first:i], stop_s=middle))
                first, clip = i, replace(clip, start_s=middle)
        clip = replace(clip, speech=clip.speech[first:])
    return sentences if text.endswith(BREAKS_OFF) else [*sentences, clip]


def _room_tone(audio: Audio) -> NDArray[np.float32]:
    """Returns the amplitude spectrum of the clip's quietest tenth (float32[241], 20 ms frames)."""
    size = SAMPLE_RATE // 50
    frames = audio[: len(audio) // size * size].reshape(-1, size).astype(np.float32)
    power = (frames**2).mean(1)
    quiet = frames[power <= np.quantile(power, 0.1)] * np.hanning(size)
    spectrum = np.sqrt((np.abs(np.fft.rfft(quiet)) ** 2).mean(0) / (np.hanning(size) ** 2).sum())
    return np.asarray(spectrum, np.float32)


def _silence(tone: NDArray[np.float32], seconds: float, rng: np.random.Generator) -> Audio:
    """Returns noise with that spectrum, as the clip's microphone would record in a pause."""
    n = max(2, round(seconds * SAMPLE_RATE))
    spectrum = np.fft.rfft(rng.standard_normal(n))
    shape = np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, len(tone)), tone)
    noise = np.fft.irfft(spectrum * shape, n)
    return np.clip(np.round(noise), -32768, 32767).astype(np.int16)


class _StreamBuilder:
    """Appends audio to a stream and keeps its labels up to date."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._parts: list[Audio] = []
        self._samples = 0
        self.speech: list[Span] = []
        self.inner: list[Span] = []
        self.between: list[Span] = []
        self.ends: list[float] = []

    @property
    def seconds(self) -> float:
        return self._samples / SAMPLE_RATE

    def audio(self) -> Audio:
        return np.concatenate(self._parts)

    def add_silence(self, clip: _Sentence, seconds: float) -> None:
        self._add(_silence(clip.tone, seconds, self._rng))

    def add_speech(
        self, clip: _Sentence, start_s: float, stop_s: float, same_sentence: bool = False
    ) -> None:
        """Appends part of a clip. same_sentence: it continues the sentence added before."""
        shift = self.seconds - start_s
        for a, b in clip.speech:
            if b > start_s and a < stop_s:
                pauses = self.inner if same_sentence else self.between
                self._label(max(a, start_s) + shift, min(b, stop_s) + shift, pauses)
                same_sentence = True
        self._add(clip.audio[round(start_s * SAMPLE_RATE) : round(stop_s * SAMPLE_RATE)])

    def _label(self, start: float, stop: float, pauses: list[Span]) -> None:
        if self.speech:
            before = self.speech[-1][1]
            if start - before >= END_S:
                self.ends.append(before)
            elif INNER_S[0] <= start - before <= INNER_S[1]:
                pauses.append((before, start))
        self.speech.append((start, stop))

    def _add(self, audio: Audio) -> None:
        self._parts.append(audio)
        self._samples += len(audio)


def _build_streams(clips: Sequence[_Sentence], seed: int) -> Iterator[LabelledStream]:
    """Yields streams with one speaker each."""
    speakers: dict[str, list[_Sentence]] = {}
    for clip in clips:
        own = speakers.setdefault(clip.speaker, [])
        if clip.speech and sum(c.stop_s - c.start_s for c in own) < SPEAKER_MAX_S:
            own.append(clip)
    for speaker, own in speakers.items():
        rng = np.random.default_rng([seed, zlib.crc32(speaker.encode())])
        left = list(own)
        while left:
            taken = [left.pop(0)]
            while left and sum(c.stop_s - c.start_s for c in taken) < STREAM_SPEECH_S:
                taken.append(left.pop(0))
            yield _build_stream(taken, rng)


def _build_stream(clips: Sequence[_Sentence], rng: np.random.Generator) -> LabelledStream:
    builder = _StreamBuilder(rng)
    builder.add_silence(clips[0], min(0.5 + rng.exponential(3.0), 10.0))
    for clip in clips:
        start, stop = clip.speech[0][0], clip.speech[-1][1]
        start, stop = max(clip.start_s, start - 0.1), min(stop + 0.15, clip.stop_s)
        cut = _pause_to_lengthen(clip, rng)
        lengthen = cut is not None and rng.random() < 0.6
        if cut is not None and lengthen:
            builder.add_speech(clip, start, cut)
            builder.add_silence(clip, rng.uniform(*INNER_S))
            start = cut
        builder.add_speech(clip, start, stop, lengthen)
        if clip is clips[-1]:
            builder.add_silence(clip, REST_S)
        elif rng.random() < 0.15:  # the turn continues after this sentence
            builder.add_silence(clip, rng.uniform(*INNER_S))
        else:
            builder.add_silence(clip, min(END_S + 0.2 + rng.exponential(4.0), 12.0))
    builder.ends.append(builder.speech[-1][1])
    return LabelledStream(
        "+".join(dict.fromkeys(clip.id for clip in (clips[0], clips[-1]))),
        (clips[0].speaker,),
        False,
        builder.audio(),
        tuple(builder.speech),
        tuple(builder.inner),
        tuple(builder.ends),
        builder.seconds,
        tuple(builder.between),
        clips[0].read,
        clips[0].speaker,
    )


def _pause_to_lengthen(clip: _Sentence, rng: np.random.Generator) -> float | None:
    """Returns the middle of a random short pause inside the clip; None if it has none."""
    first, last = clip.speech[0][0] + WORD_S, clip.speech[-1][1] - WORD_S
    gaps = [
        (a[1] + b[0]) / 2
        for a, b in pairwise(clip.speech)
        if b[0] - a[1] > CLOSURE_S and a[1] >= first and b[0] <= last
    ]
    return float(rng.choice(gaps)) if gaps else None
