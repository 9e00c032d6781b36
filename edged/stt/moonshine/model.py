"""Moonshine as the recogniser sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
from edged.stt.moonshine.decoder_step import TreeDecoder
from edged.stt.moonshine.dimensions import BOS, FRAME_SAMPLES
from edged.stt.moonshine.encoder import Encoder, encode_whole
from edged.stt.moonshine.graphs import Graphs
from edged.stt.moonshine.tuning import tuning_for
from edged.stt.moonshine.vocabulary import PieceVocabulary

FRAME_S = FRAME_SAMPLES / RATE
TIMING = AttentionTiming(frame_s=FRAME_S, onset_lag_s=0.03, tail_frames=4)
CONFIDENCE = ConfidenceBounds(
    short_tokens=8, short_p=0.42, long_tokens=20, long_p=0.33, voice_weight=1.5
)
TOKENS_PER_S = 6.5  # upstream's bound on how fast people speak


@dataclass(frozen=True)
class Moonshine:
    """A loaded Moonshine model (see `edged.stt.family.SpeechModel`)."""

    graphs: Graphs
    vocabulary: PieceVocabulary
    languages: dict[str, LanguageTraits]
    timing: AttentionTiming = TIMING
    confidence: ConfidenceBounds = CONFIDENCE
    has_keyterms: bool = True

    @classmethod
    def load(cls, upstream: Path, built: Path, language: str, threads: int) -> Moonshine:
        """Opens a model: its vocabulary from upstream's files, its graphs from `built`.

        Raises ModelError, which names the file.
        """
        return cls(
            Graphs.load(built, threads),
            PieceVocabulary.load(upstream / "tokenizer.bin"),
            {language: LanguageTraits(TOKENS_PER_S)},
        )

    def tuning(self, delay_in_frames: int) -> Tuning:
        """What suits words that are committed `delay_in_frames` steps of 80 ms late."""
        return tuning_for(delay_in_frames)

    def prompt(self, language: str) -> tuple[int, ...]:
        """The one token before the text: a Moonshine model has one language."""
        return (BOS,)

    def detect_language(self, audio: EncoderOutput) -> None:
        """None: a Moonshine model has one language."""

    def streaming_encoder(self, tuning: Tuning, max_frames: int) -> StreamingEncoder:
        """An encoder for one segment of at most `max_frames` frames of 24 ms."""
        return Encoder(self.graphs, max_frames, tuning.revised_frames, tuning.adapted_encoder)

    def encode(self, samples: Floats) -> EncoderOutput | None:
        """Encodes a whole segment, float32[n] at 16 kHz, with full context."""
        return encode_whole(self.graphs, samples)

    def decoder_step(self, max_rows: int) -> DecoderStep:
        """A decoder for one segment with room for `max_rows` rows."""
        return TreeDecoder(self.graphs, max_rows)
