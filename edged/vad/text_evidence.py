"""What is known, at one step, about whether the speaker has finished."""

from __future__ import annotations

import re
from dataclasses import dataclass

FINAL = (".", "?", "!")
# What is surely unfinished: Smart Turn answers less than this, and the recogniser is not this sure
# of a mark that ends a sentence. One turn's end in twelve is held to be so, wrongly.
BREAKS_OFF = 0.2
SURELY_FINAL = 0.9
# A word or two that sound complete to both: "yes", "stop", "seven of clubs". Short speech is rare
# in what the turn model is fitted on, and mostly a sentence's beginning there.
ANSWER_S = 1.0
COMPLETE = 0.8
FINAL_MARK = 0.5
# Words that an English sentence hardly ends with: something is still to come.
_DANGLING = re.compile(
    r"a|an|the|and|or|but|because|if|while|which|than|as|of|to|at|for|from|with|into|my|your|its|"
    r"our|their|i|we|he|she|they|i'm|we're|they're|it's|i'd|i'll|very|um|uh|er"
)


@dataclass(frozen=True, slots=True)
class TextEvidence:
    """What the recogniser makes of the words before the pause.

    p_end: probability that the text ends where it stopped.
    final: probability of the mark that ends the text like a sentence, 0 if it has none.
    dangling: its last word calls for another.
    """

    p_end: float
    final: float
    dangling: bool

    def settles(self, speech_s: float) -> bool:
        """Whether the words tell by themselves if the speaker has finished."""
        return self.dangling or (self.final >= SURELY_FINAL and speech_s >= ANSWER_S)


def belief_of(text: str, p_end: float | None, p_last: float) -> TextEvidence | None:
    """p_last: probability of the text's last token.

    None where no text was heard, or it was not read to its end (p_end None).
    """
    words = re.findall(r"[\w']+", text.lower())
    if not words or p_end is None:
        return None
    final = p_last if text.rstrip("\"' ").endswith(FINAL) else 0.0
    return TextEvidence(p_end, final, _DANGLING.fullmatch(words[-1]) is not None)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One step's. Times in seconds of audio.

    probabilities: Silero's windows in this step. heard_s: all audio so far. silence_s: since
    the last window with speech, None before any. speech_s: voiced, in this turn. complete: Smart
    Turn's answer for this pause. None: unknown.
    """

    probabilities: tuple[float, ...]
    heard_s: float
    silence_s: float | None
    speech_s: float
    complete: float | None = None
    belief: TextEvidence | None = None

    @property
    def unfinished(self) -> bool:
        """What was said surely calls for more."""
        belief = self.belief
        if belief is not None and belief.dangling:
            return True
        final = 0.0 if belief is None else belief.final
        return self.complete is not None and self.complete < BREAKS_OFF and final < SURELY_FINAL

    @property
    def answer(self) -> bool:
        """A short utterance that is complete in itself."""
        belief = self.belief
        if belief is None or belief.dangling or belief.final < FINAL_MARK:
            return False
        return self.speech_s < ANSWER_S and self.complete is not None and self.complete > COMPLETE
