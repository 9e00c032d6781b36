"""Audio with known speech and known silence, for fitting and scoring the turn model.

Real: clips whose speaker turns were labelled by people, as they are. Synthetic: one speaker's
sentences strung together with gaps of drawn length, and with some inside a sentence, where the
speaker made a short pause anyway; gaps are filled with that clip's own room tone. Where sentences
end is known from the text (edged/bench/sentences.py): read prose goes on behind a full stop after
a second, and whoever waits for an answer there is not wrong. A clip without a text is taken for
one sentence. A stream is one visit: one or a few turns, and then rest; most of what is said to a
box is followed by nothing for long. The truth about a synthetic stream's pauses that were in the
recording comes from word times where there are any, else from the voice detector, run over the
clip.
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
from numpy.typing import NDArray

from edged import SAMPLE_RATE
from edged.audio.files import open_audio
from edged.bench.sentences import (
    BREAKS_OFF,
    TimedWord,
    has_several,
    punctuated,
    sentence_ends,
)
from edged.errors import ConfigError

Audio: TypeAlias = NDArray[np.int16]
Span: TypeAlias = tuple[float, float]
Listen: TypeAlias = Callable[[Audio], list[Span]]
Read: TypeAlias = Callable[[Audio], list[TimedWord]]

INNER_S = (0.3, 1.5)  # a pause of this length with one speaker on both sides is inside a turn
END_S = 2.0  # a silence of this length ends a turn
CLOSURE_S = 0.08  # a stop consonant is silent for as long: no place to think
WORD_S = 0.25  # of speech at least on both sides of a thinking pause
LABEL_GAP_S = 0.15  # words closer than this are one stretch of speech
STRING_S = 5.0  # of clips in one synthetic stream, or a little more: one or a few turns, and then
REST_S = 8.0  # of silence at its end: people say what they have to say, and leave
MOST_S = 45.0  # of clips of one speaker: nobody's way of speaking should rule
SPEECH_KINDS = ("read", "spontaneous", "command", "digits", "noisy", "speech")
SYNC_MAPS = "sync map"  # labels without gaps between lines: of no use here


@dataclass(frozen=True)
class Stream:
    """24 kHz audio with the truth about it. Times in seconds from its start.

    speech: the union over all speakers. inner: pauses inside a turn, of a sentence as far as
    sentences are known. ends: where a turn ends. known_s: nothing is known of who speaks after it.
    between: pauses between two sentences of a turn. read: read aloud.
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


@dataclass(frozen=True)
class _Clip:
    """A sentence of a recording, or all of it. Times in seconds of `audio`, the whole recording;
    of it, start_s to stop_s may be heard."""

    id: str
    speaker: str
    audio: Audio
    speech: tuple[Span, ...]
    tone: NDArray[np.float32] = field(repr=False)
    read: bool
    start_s: float = 0.0
    stop_s: float = 0.0


def read_streams(
    manifest: Path, listen: Listen, read: Read = lambda audio: [], seed: int = 0
) -> list[Stream]:
    """All of a manifest: labelled conversations, and streams made from each speaker's clips.

    `listen` gives the speech in int16[n] at 24 kHz, `read` its words; where it gives none, a clip
    is one sentence. Raises ConfigError, InputError.
    """
    entries = _entries(manifest)
    texts = punctuated()
    real = [_labelled(e, manifest.parent) for e in entries if _has_turns(e)]
    clips = [
        sentence
        for e in entries
        if e.get("kind") in SPEECH_KINDS and not e.get("turns")
        for sentence in _sentences(
            _clip(e, manifest.parent, listen), texts.get(e["id"]) or e.get("text") or "", read
        )
    ]
    return real + list(_strung(clips, seed))


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
    """int16[n], 24 kHz mono. Raises InputError."""
    with closing(open_audio(str(path))) as source:
        return np.concatenate(list(source.frames()))


def _labelled(entry: dict[str, Any], folder: Path) -> Stream:
    turns = sorted((float(t[1]), float(t[2]), str(t[0])) for t in entry["turns"])
    duration = float(entry["duration_s"])
    speech = _merge([(a, b) for a, b, _ in turns], 0.0)
    inner, ends = [], []
    gaps = [(a[1], b[0]) for a, b in pairwise(speech)]
    for start, stop in [*gaps, (speech[-1][1], duration)]:
        before = {who for _, b, who in turns if abs(b - start) < 0.05}
        after = {who for a, _, who in turns if abs(a - stop) < 0.05}
        if stop - start >= END_S:
            ends.append(start)
        elif INNER_S[0] <= stop - start <= INNER_S[1] and before & after:
            inner.append((start, stop))
    return Stream(
        str(entry["id"]),
        _speakers(entry),
        True,
        load_audio(folder / entry["file"]),
        tuple(speech),
        tuple(inner),
        tuple(ends),
        duration,
    )


def _speakers(entry: dict[str, Any]) -> tuple[str, ...]:
    """The clip's one speaker where it is named, else all names of its turns."""
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


def _clip(entry: dict[str, Any], folder: Path, listen: Listen) -> _Clip:
    audio = load_audio(folder / entry["file"])
    times = entry.get("word_times") or []
    words = [(float(a), float(b)) for word, a, b in times if word.strip()]
    speech = _merge(words, LABEL_GAP_S) if words else listen(audio)
    speaker = entry.get("speaker") or entry["id"]
    stop = len(audio) / SAMPLE_RATE
    read = entry.get("kind") == "read"
    tone = _room_tone(audio)
    return _Clip(str(entry["id"]), str(speaker), audio, tuple(speech), tone, read, 0.0, stop)


def _sentences(clip: _Clip, text: str, read: Read) -> list[_Clip]:
    """The clip cut where it is silent between two sentences, without one that breaks off."""
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
    """Amplitude spectrum of the clip's quietest tenth, float32[241]: of frames of 20 ms."""
    size = SAMPLE_RATE // 50
    frames = audio[: len(audio) // size * size].reshape(-1, size).astype(np.float32)
    power = (frames**2).mean(1)
    quiet = frames[power <= np.quantile(power, 0.1)] * np.hanning(size)
    spectrum = np.sqrt((np.abs(np.fft.rfft(quiet)) ** 2).mean(0) / (np.hanning(size) ** 2).sum())
    return np.asarray(spectrum, np.float32)


def _silence(tone: NDArray[np.float32], seconds: float, rng: np.random.Generator) -> Audio:
    """Noise with that spectrum: a pause as the clip's microphone and room would give it."""
    n = max(2, round(seconds * SAMPLE_RATE))
    spectrum = np.fft.rfft(rng.standard_normal(n))
    shape = np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, len(tone)), tone)
    noise = np.fft.irfft(spectrum * shape, n)
    return np.clip(np.round(noise), -32768, 32767).astype(np.int16)


class _Tape:
    """A stream being strung together: audio and its truth grow side by side."""

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

    def silence(self, clip: _Clip, seconds: float) -> None:
        self._add(_silence(clip.tone, seconds, self._rng))

    def say(self, clip: _Clip, start_s: float, stop_s: float, goes_on: bool = False) -> None:
        """The clip between two times, with the truth about it. goes_on: in its sentence."""
        shift = self.seconds - start_s
        for a, b in clip.speech:
            if b > start_s and a < stop_s:
                pauses = self.inner if goes_on else self.between
                self._speak(max(a, start_s) + shift, min(b, stop_s) + shift, pauses)
                goes_on = True
        self._add(clip.audio[round(start_s * SAMPLE_RATE) : round(stop_s * SAMPLE_RATE)])

    def _speak(self, start: float, stop: float, pauses: list[Span]) -> None:
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


def _strung(clips: Sequence[_Clip], seed: int) -> Iterator[Stream]:
    """Streams of one speaker each."""
    speakers: dict[str, list[_Clip]] = {}
    for clip in clips:
        own = speakers.setdefault(clip.speaker, [])
        if clip.speech and sum(c.stop_s - c.start_s for c in own) < MOST_S:
            own.append(clip)
    for speaker, own in speakers.items():
        rng = np.random.default_rng([seed, zlib.crc32(speaker.encode())])
        left = list(own)
        while left:
            taken = [left.pop(0)]
            while left and sum(c.stop_s - c.start_s for c in taken) < STRING_S:
                taken.append(left.pop(0))
            yield _string(taken, rng)


def _string(clips: Sequence[_Clip], rng: np.random.Generator) -> Stream:
    tape = _Tape(rng)
    tape.silence(clips[0], min(0.5 + rng.exponential(3.0), 10.0))
    for clip in clips:
        start, stop = clip.speech[0][0], clip.speech[-1][1]
        start, stop = max(clip.start_s, start - 0.1), min(stop + 0.15, clip.stop_s)
        cut = _cut(clip, rng)
        goes_on = cut is not None and rng.random() < 0.6
        if cut is not None and goes_on:
            tape.say(clip, start, cut)
            tape.silence(clip, rng.uniform(*INNER_S))
            start = cut
        tape.say(clip, start, stop, goes_on)
        if clip is clips[-1]:
            tape.silence(clip, REST_S)
        elif rng.random() < 0.15:  # the turn goes on behind a finished sentence
            tape.silence(clip, rng.uniform(*INNER_S))
        else:
            tape.silence(clip, min(END_S + 0.2 + rng.exponential(4.0), 12.0))
    tape.ends.append(tape.speech[-1][1])
    return Stream(
        "+".join(dict.fromkeys(clip.id for clip in (clips[0], clips[-1]))),
        (clips[0].speaker,),
        False,
        tape.audio(),
        tuple(tape.speech),
        tuple(tape.inner),
        tuple(tape.ends),
        tape.seconds,
        tuple(tape.between),
        clips[0].read,
    )


def _cut(clip: _Clip, rng: np.random.Generator) -> float | None:
    """The middle of a short pause inside the clip: where a thinking pause can be put in."""
    first, last = clip.speech[0][0] + WORD_S, clip.speech[-1][1] - WORD_S
    gaps = [
        (a[1] + b[0]) / 2
        for a, b in pairwise(clip.speech)
        if b[0] - a[1] > CLOSURE_S and a[1] >= first and b[0] <= last
    ]
    return float(rng.choice(gaps)) if gaps else None
