"""Whisper as the recogniser sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edged.stt.confidence import ConfidenceBounds
from edged.stt.family import (
    RATE,
    AttentionTiming,
    DecoderStep,
    EncoderOutput,
    Floats,
    LanguageTraits,
    StreamingEncoder,
    Tuning,
)
from edged.stt.whisper.decoder_step import TreeDecoder
from edged.stt.whisper.dimensions import FRAME_SAMPLES
from edged.stt.whisper.encoder import Encoder, encode_whole
from edged.stt.whisper.graphs import Graphs
from edged.stt.whisper.tuning import tuning_for
from edged.stt.whisper.vocabulary import NO_TIMES, START, TRANSCRIBE, BpeVocabulary

FRAME_S = FRAME_SAMPLES / RATE
TIMING = AttentionTiming(frame_s=FRAME_S, onset_lag_s=0.07, tail_frames=1)
CONFIDENCE = ConfidenceBounds(
    short_tokens=8, short_p=0.42, long_tokens=20, long_p=0.33, voice_weight=1.5
)
TOKENS_PER_S = 8.0
# Languages whose script has few tokens of more than one letter, or of less than one.
MANY_TOKENS_PER_S = 13.0
# fmt: off
MANY_TOKENS = frozenset((
    "am", "ar", "as", "ba", "be", "bg", "bn", "bo", "el", "fa", "gu", "he", "hi", "hy", "ja", "ka",
    "kk", "km", "kn", "ko", "lo", "mk", "ml", "mn", "mr", "my", "ne", "pa", "ps", "ru", "sa", "sd",
    "si", "sr", "ta", "te", "tg", "th", "tt", "uk", "ur", "yi", "yue", "zh",
))
# fmt: on


@dataclass(frozen=True)
class Whisper:
    """A loaded Whisper model (see `edged.stt.family.SpeechModel`)."""

    graphs: Graphs
    vocabulary: BpeVocabulary
    languages: dict[str, LanguageTraits]
    timing: AttentionTiming = TIMING
    confidence: ConfidenceBounds = CONFIDENCE
    has_keyterms: bool = True

    @classmethod
    def load(cls, upstream: Path, built: Path, threads: int) -> Whisper:
        """Opens a model: its vocabulary from upstream's files, its graphs from `built`.

        Raises ModelError, which names the file.
        """
        vocabulary = BpeVocabulary.load(upstream / "vocabulary.txt")
        languages = {code: _traits(code) for code in vocabulary.languages}
        return cls(Graphs.load(built, threads), vocabulary, languages)

    def tuning(self, delay_in_frames: int) -> Tuning:
        """What suits words that are committed `delay_in_frames` steps of 80 ms late."""
        return tuning_for(delay_in_frames)

    def prompt(self, language: str) -> tuple[int, ...]:
        """Start, language, task, no time stamps. Raises KeyError for an unknown language."""
        special = self.vocabulary.special
        names = (START, f"<|{language}|>", TRANSCRIBE, NO_TIMES)
        return tuple(special(name) for name in names)

    def streaming_encoder(self, tuning: Tuning, max_frames: int) -> StreamingEncoder:
        """An encoder for one segment of at most `max_frames` frames of 20 ms."""
        return Encoder(self.graphs, max_frames, tuning.revised_frames)

    def encode(self, samples: Floats) -> EncoderOutput | None:
        """Encodes a whole segment, float32[n] at 16 kHz, with full context."""
        return encode_whole(self.graphs, samples)

    def decoder_step(self, max_rows: int) -> DecoderStep:
        """A decoder for one segment with room for `max_rows` rows."""
        return self._decoder(max_rows)

    def detect_language(self, audio: EncoderOutput) -> Mapping[str, float] | None:
        """The probability of each language, the most probable first."""
        decoder = self._decoder(1)
        decoder.attend_to(audio)
        state, _ = decoder.states([self.vocabulary.special(START)])
        codes, tokens = zip(*self.vocabulary.languages.items(), strict=True)
        logits = self.graphs.embedded(tokens) @ state[0]
        p = np.exp(logits - logits.max())
        p /= p.sum()
        return {codes[n]: float(p[n]) for n in np.argsort(-p)}

    def _decoder(self, max_rows: int) -> TreeDecoder:
        end = self.vocabulary.special(NO_TIMES)
        vocabulary = self.vocabulary
        return TreeDecoder(self.graphs, max_rows, end, vocabulary.blank, vocabulary.eos)


def _traits(language: str) -> LanguageTraits:
    return LanguageTraits(MANY_TOKENS_PER_S if language in MANY_TOKENS else TOKENS_PER_S)
