"""The second pass: a whole segment is decoded once more with full context, for the turn's text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edged.ortsession import release_memory
from edged.stt.decoder import DecodedText, Decoder
from edged.stt.family import Floats, SpeechModel, language_traits
from edged.stt.guards import (
    DEFAULT_CONFIDENCE,
    ConfidenceBounds,
    loop_free_length,
    low_confidence,
    token_limit,
)
from edged.stt.words import SegmentWord, group_words


@dataclass(frozen=True, slots=True)
class Transcript:
    """Words of a segment, in seconds from its start, and the probability of each token."""

    words: list[SegmentWord]
    probabilities: list[float] = field(default_factory=list)
    bounds: ConfidenceBounds = DEFAULT_CONFIDENCE

    def low_confidence(self, voice_uncertainty: float = 0.0) -> bool:
        """Whether the text is more likely invented than spoken; see `edged.stt.guards`."""
        return low_confidence(self.probabilities, voice_uncertainty, self.bounds)


def transcribe(
    model: SpeechModel, samples: Floats, language: str = "en", draft: Sequence[int] = ()
) -> Transcript:
    """Transcribes a whole segment.

    samples: float32[n] at 16 kHz, speech of up to about 20 s. draft: tokens that are probably right
    (those of the first pass); they make it faster. Takes tens of milliseconds per second of audio,
    so it does not belong in a step.
    """
    audio = model.encode(samples)
    if audio is None:
        return Transcript([], bounds=model.confidence)
    seconds = audio.frames * model.timing.frame_s
    limit = token_limit(seconds, language_traits(model, language).tokens_per_s)
    decoder = Decoder(model, language, limit + 1)
    decoder.decoded = DecodedText(list(draft[:limit]))
    decoded = decoder.update(audio, limit, None)
    n = loop_free_length(decoded.tokens)
    probabilities = decoded.probabilities[:n]
    words = group_words(
        decoded.tokens[:n], decoded.frames[:n], probabilities, model.vocabulary, model.timing
    )
    del audio, decoder
    release_memory()
    return Transcript(words, probabilities, model.confidence)
