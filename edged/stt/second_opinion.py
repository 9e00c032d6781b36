"""A second opinion on the text of a segment: a model of another family decodes it too, and the text
is chosen by what both models think of both."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from edged.logs import log_exception
from edged.options import Options
from edged.stt.family import EncoderOutput, Floats, SpeechModel
from edged.stt.keyterms import Keyterms, keyterms_of
from edged.stt.second_pass import Transcript, transcribe
from edged.stt.tokenise import tokens_of
from edged.stt.words import normalised

LANGUAGE = "en"  # the only language for which the rule was measured
LEAD = 3.0  # natural logarithm: by how much the second text must lead
# The first model's own doubt counts so much: it is less able to judge.
FIRST_WEIGHT = 0.3
# Texts of one word, of which the second model has no context, need so much more.
SHORT_WORDS, SHORT_LEAD = 1, 3.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Leads:
    """By how much each model prefers its own text to the other's: differences of the natural
    logarithms of their probabilities, with their ends."""

    first: float
    second: float


def is_second_better(leads: Leads, words: int) -> bool:
    """Whether the second model's text is to be taken.

    words: how many the longer of the two texts has.
    """
    needed = LEAD + (SHORT_LEAD if words <= SHORT_WORDS else 0.0)
    return leads.second - FIRST_WEIGHT * leads.first > needed


class SecondOpinion:
    """The second model, shared by all sessions and threads. It holds no state of any stream.

    name: of the model, as in the catalogue.
    """

    def __init__(self, name: str, model: SpeechModel) -> None:
        self.name = name
        self.model = model
        self._lock = threading.Lock()
        self._failed = False

    def choose(
        self,
        first: SpeechModel,
        heard: Transcript,
        samples: Floats,
        encoded: EncoderOutput | None,
        options: Options,
        voice_uncertainty: float = 0.0,
    ) -> Transcript:
        """Returns `heard`, which is what the model `first` decoded of a segment, or what the second
        model decoded of it.

        samples: float32[n] at 16 kHz. encoded: what `first.encode` gives for them, if known.
        A failure of the second model is logged once; `heard` stands.
        """
        try:
            return self._choose(first, heard, samples, encoded, options, voice_uncertainty)
        except Exception as error:
            with self._lock:
                failed, self._failed = self._failed, True
            if not failed:
                message = f"{self.name} gave no second opinion; the texts of turns are kept without"
                log_exception(_log, "second-opinion-failed", message, error, model=self.name)
            return heard

    def _choose(
        self,
        first: SpeechModel,
        heard: Transcript,
        samples: Floats,
        encoded: EncoderOutput | None,
        options: Options,
        voice_uncertainty: float,
    ) -> Transcript:
        audio = self.model.encode(samples)
        if audio is None:
            return heard
        keyterms = keyterms_of(self.model, options)
        text = first.vocabulary.text(heard.tokens)
        tokens = tokens_of(text, self.model.vocabulary)
        other = transcribe(self.model, samples, LANGUAGE, tokens, keyterms, audio)
        if other.is_cut or other.low_confidence(voice_uncertainty) or _same(heard, other):
            return heard
        if heard.is_cut:
            return other
        text = self.model.vocabulary.text(other.tokens)
        second_lead = _score(self.model, audio, other.tokens, keyterms)
        second_lead -= _score(self.model, audio, tokens, keyterms)
        audio = encoded or first.encode(samples)
        if audio is None:
            return heard
        keyterms = keyterms_of(first, options)
        tokens = tokens_of(text, first.vocabulary)
        first_lead = _score(first, audio, heard.tokens, keyterms)
        first_lead -= _score(first, audio, tokens, keyterms)
        words = max(len(heard.words), len(other.words))
        return other if is_second_better(Leads(first_lead, second_lead), words) else heard


def _same(one: Transcript, other: Transcript) -> bool:
    """Whether two transcripts have the same words, whatever their punctuation."""
    return [normalised(w.text) for w in one.words] == [normalised(w.text) for w in other.words]


def _score(
    model: SpeechModel, audio: EncoderOutput, tokens: list[int], keyterms: Keyterms | None
) -> float:
    """The log probability of a text and its end, with the bonus of its key terms."""
    prompt = model.prompt(LANGUAGE)
    step = model.decoder_step(len(prompt) + len(tokens))
    step.attend_to(audio)
    bonus = 0.0 if keyterms is None else keyterms.end(keyterms.after(tokens)).earned
    return step.score(prompt, tokens) + bonus
