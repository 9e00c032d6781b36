"""What is known, at one step, about whether the speaker has finished."""

from __future__ import annotations

import re
from dataclasses import dataclass

FINAL = (".", "?", "!")
BREAKS_OFF = 0.1  # an answer of Smart Turn below this: one turn's end in ten gets one, wrongly
# Words that an English sentence hardly ends with: something is still to come.
_DANGLING = re.compile(
    r"(?:a|an|the|and|or|but|so|because|if|when|while|that|which|who|than|as|of|to|in|on|at|for|from|"
    r"with|by|about|into|my|your|his|her|its|our|their|i|we|he|she|they|it's|i'm|we're|they're|is|"
    r"are|was|were|am|be|been|can|could|will|would|shall|should|may|might|must|do|does|did|have|has|"
    r"had|not|very|um|uh|er|like|then)"
)


@dataclass(frozen=True, slots=True)
class Belief:
    """What the recogniser makes of the words before the pause.

    p_end: probability that the text ends where it stopped.
    final: probability of the mark that ends the text like a sentence, 0 if it has none.
    dangling: its last word calls for another.
    """

    p_end: float
    final: float
    dangling: bool


def belief_of(text: str, p_end: float | None, p_last: float) -> Belief | None:
    """p_last: probability of the text's last token.

    None where no text was heard, or it was not read to its end (p_end None).
    """
    words = re.findall(r"[\w']+", text.lower())
    if not words or p_end is None:
        return None
    final = p_last if text.rstrip("\"' ").endswith(FINAL) else 0.0
    return Belief(p_end, final, _DANGLING.fullmatch(words[-1]) is not None)


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
    belief: Belief | None = None

    @property
    def unfinished(self) -> bool:
        """What was said surely calls for more."""
        breaks_off = self.complete is not None and self.complete < BREAKS_OFF
        return breaks_off or (self.belief is not None and self.belief.dangling)
