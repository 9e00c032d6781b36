"""The second pass: a whole segment is decoded once more with full context, for the turn's text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edged.languages import AUTO
from edged.ortsession import release_memory
from edged.stt.confidence import DEFAULT_CONFIDENCE, ConfidenceBounds, low_confidence
from edged.stt.decoder import DecodedText, Decoder
from edged.stt.family import EncoderOutput, Floats, SpeechModel, first_language, language_traits
from edged.stt.frame_power import FramePower
from edged.stt.keyterms import Keyterms
from edged.stt.language_id import spoken_language
from edged.stt.repetition import loop_free_length
from edged.stt.words import SegmentWord, group_words


@dataclass(frozen=True, slots=True)
class Transcript:
    """Words of a segment, in seconds from its start, and the probability of each token.

    is_cut: whether a repetition that was not spoken was cut off. language: of the words; None if
    nothing was decoded. tokens: of the text.
    """

    words: list[SegmentWord]
    probabilities: list[float] = field(default_factory=list)
    bounds: ConfidenceBounds = DEFAULT_CONFIDENCE
    is_cut: bool = False
    language: str | None = None
    tokens: list[int] = field(default_factory=list)

    def low_confidence(self, voice_uncertainty: float = 0.0) -> bool:
        """Whether the text is more likely invented than spoken; see `edged.stt.confidence`."""
        return low_confidence(self.probabilities, voice_uncertainty, self.bounds)


def transcribe(
    model: SpeechModel,
    samples: Floats,
    language: str = "en",
    draft: Sequence[int] = (),
    keyterms: Keyterms | None = None,
    encoded: EncoderOutput | None = None,
    expected_language: str | None = None,
) -> Transcript:
    """Transcribes a whole segment.

    language: a code, or AUTO. expected_language: what is more probable than others if `language` is
    AUTO; None if nothing is known.

    samples: float32[n] at 16 kHz, speech of up to about 20 s. draft: tokens that are probably right
    (those of the first pass); they make it faster. keyterms: terms with a bonus. encoded: what
    `model.encode` gives for the samples, where that is known.
    Takes tens of milliseconds per second of audio, so it does not belong in a step.
    """
    audio = encoded or model.encode(samples)
    if audio is None:
        return Transcript([], bounds=model.confidence)
    seconds = audio.frames * model.timing.frame_s
    if language == AUTO:
        probabilities_of = model.detect_language(audio)
        language = (
            spoken_language(probabilities_of, seconds, expected_language)
            if probabilities_of
            else first_language(model)
        )
    limit = language_traits(model, language).max_tokens(seconds)
    decoder = Decoder(model, language, limit + 1, keyterms=keyterms)
    decoder.decoded = DecodedText(list(draft[:limit]))
    decoded = decoder.update(audio, limit, None)
    power, frame_s = FramePower(samples), model.timing.frame_s
    n = loop_free_length(decoded.tokens, decoded.frames, frame_s, power)
    probabilities = decoded.probabilities[:n]
    words = group_words(
        decoded.tokens[:n], decoded.frames[:n], probabilities, model.vocabulary, model.timing
    )
    if keyterms is not None:
        words = keyterms.replaced(words)
    del audio, encoded, decoder
    release_memory()
    is_cut = n < len(decoded.tokens)
    return Transcript(words, probabilities, model.confidence, is_cut, language, decoded.tokens[:n])
