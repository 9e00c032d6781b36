"""What is known, at one step, about whether the speaker has finished."""

from __future__ import annotations

import re
from dataclasses import dataclass

SENTENCE_ENDS = (".", "?", "!", "。", "？", "！", "؟", "۔", "।")
# A turn is surely unfinished where Smart Turn answers less than INCOMPLETE and the recogniser is
# less sure than SURELY_FINAL of a mark that ends a sentence.
INCOMPLETE = 0.2
SURELY_FINAL = 0.9
# A short answer ("yes", "stop", "seven of clubs") has less speech than SHORT_ANSWER_S, sounds
# complete to Smart Turn (COMPLETE), and ends with a mark that is at least LIKELY_FINAL.
SHORT_ANSWER_S = 1.0
COMPLETE = 0.8
LIKELY_FINAL = 0.5
# Words that an English sentence hardly ever ends with: something is still to come.
_DANGLING = re.compile(
    r"a|an|the|and|or|but|because|if|while|which|than|as|of|to|at|for|from|with|into|my|your|its|"
    r"our|their|i|we|he|she|they|i'm|we're|they're|it's|i'd|i'll|very|um|uh|er"
)


@dataclass(frozen=True, slots=True)
class TextEvidence:
    """What the words before a pause tell about the end of the turn.

    p_end: the decoder's probability that the text ends where it stopped.
    p_final: probability of the mark that ends the text like a sentence; 0 if it has none.
    dangling: the last word calls for another one.
    """

    p_end: float
    p_final: float
    dangling: bool

    @classmethod
    def from_text(
        cls, text: str, p_end: float | None, p_last: float, language: str = "en"
    ) -> TextEvidence | None:
        """Evidence of a hypothesis; p_last is the probability of its last token.

        None if it has no word, or was not decoded to its end (p_end is None). No word of a language
        other than English counts as dangling: "die", "an" and "to" are ends there.
        """
        words = re.findall(r"[\w']+", text.lower())
        if not words or p_end is None:
            return None
        p_final = p_last if text.rstrip("\"' ").endswith(SENTENCE_ENDS) else 0.0
        dangling = language == "en" and _DANGLING.fullmatch(words[-1]) is not None
        return cls(p_end, p_final, dangling)

    def is_conclusive(self, speech_s: float) -> bool:
        """Whether the words alone tell if the speaker has finished."""
        return self.dangling or (self.p_final >= SURELY_FINAL and speech_s >= SHORT_ANSWER_S)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All evidence of one step. Times are seconds of audio.

    probabilities: of speech, of the windows in this step.
    heard_s: all audio so far.
    silence_s: since the last window with speech; None before any.
    speech_s: speech in this turn.
    p_complete: Smart Turn's answer for this pause; None while there is none.
    text: what the words tell; None if unknown.
    """

    probabilities: tuple[float, ...]
    heard_s: float
    silence_s: float | None
    speech_s: float
    p_complete: float | None = None
    text: TextEvidence | None = None

    @property
    def unfinished(self) -> bool:
        """The words surely call for more."""
        if self.text is not None and self.text.dangling:
            return True
        p_final = 0.0 if self.text is None else self.text.p_final
        return (
            self.p_complete is not None and self.p_complete < INCOMPLETE and p_final < SURELY_FINAL
        )

    @property
    def short_answer(self) -> bool:
        """A short utterance that is complete in itself."""
        if self.text is None or self.text.dangling or self.text.p_final < LIKELY_FINAL:
            return False
        sounds_complete = self.p_complete is not None and self.p_complete > COMPLETE
        return self.speech_s < SHORT_ANSWER_S and sounds_complete
