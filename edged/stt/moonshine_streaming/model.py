"""Moonshine's streaming models as the recogniser sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edged.stt.confidence import DEFAULT_CONFIDENCE, ConfidenceBounds
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
from edged.stt.moonshine_streaming.decoder_step import BranchDecoder, TreeDecoder
from edged.stt.moonshine_streaming.encoder import Encoder
from edged.stt.moonshine_streaming.graphs import Graphs
from edged.stt.moonshine_streaming.language_traits import traits
from edged.stt.moonshine_streaming.specification import (
    FRAME_SAMPLES,
    MAX_POSITIONS,
    TOKENIZER,
)
from edged.stt.moonshine_streaming.tuning import tuning_for
from edged.stt.moonshine_streaming.vocabulary import StreamingVocabulary

FRAME_S = FRAME_SAMPLES / RATE
# Of tiny-en, in seconds: these models' own can only be measured with their weights.
TIMING = AttentionTiming(frame_s=FRAME_S, onset_lag_s=0.03, tail_frames=5)


@dataclass(frozen=True)
class MoonshineStreaming:
    """A loaded model (see `edged.stt.family.SpeechModel`)."""

    graphs: Graphs
    vocabulary: StreamingVocabulary
    languages: dict[str, LanguageTraits]
    timing: AttentionTiming = TIMING
    confidence: ConfidenceBounds = DEFAULT_CONFIDENCE
    has_keyterms: bool = True

    @classmethod
    def load(cls, upstream: Path, built: Path, language: str, threads: int) -> MoonshineStreaming:
        """Opens a model: three graphs and the vocabulary from upstream's files, two graphs from
        `built`.

        Raises ModelError, which names the file.
        """
        graphs = Graphs.load(upstream, built, threads)
        vocabulary = StreamingVocabulary.load(upstream / TOKENIZER, graphs.sizes, language)
        return cls(graphs, vocabulary, {language: traits(language)})

    def tuning(self, delay_in_frames: int) -> Tuning:
        """What suits words that are committed `delay_in_frames` steps of 80 ms late."""
        return tuning_for(delay_in_frames)

    def prompt(self, language: str) -> tuple[int, ...]:
        """The one token before the text: a model has one language."""
        return (self.graphs.sizes.bos,)

    def detect_language(self, audio: EncoderOutput) -> Mapping[str, float] | None:
        """None: a model has one language."""
        return None

    def streaming_encoder(self, tuning: Tuning, max_frames: int) -> StreamingEncoder:
        """An encoder for one segment of at most `max_frames` frames of 20 ms."""
        return Encoder(self.graphs, max_frames)

    def encode(self, samples: Floats) -> EncoderOutput | None:
        """Encodes a whole segment, float32[n] at 16 kHz: as when it is streamed. At most the first
        81.9 s are encoded, for which the model has positions; no segment is as long."""
        encoder = Encoder(self.graphs, min(len(samples) // FRAME_SAMPLES + 2, MAX_POSITIONS))
        encoder.push(samples)
        return encoder.update(last=True)

    def decoder_step(self, max_rows: int) -> DecoderStep:
        """A decoder for one segment with room for `max_rows` rows."""
        kind = TreeDecoder if self.graphs.reads_trees else BranchDecoder
        return kind(self.graphs, max_rows)
