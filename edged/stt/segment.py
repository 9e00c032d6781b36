"""One stretch of speech: audio in, committed words out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from edged import STEP_S
from edged.options import Options
from edged.stt.commit import (
    HeardWord,
    first_uncommitted,
    is_complete,
    low_confidence,
    ready,
    token_limit,
    without_loop,
    words_of,
)
from edged.stt.decoder import Decoder, Hypothesis
from edged.stt.moonshine.encoder import Encoder
from edged.stt.moonshine.graphs import FRAME_S, Floats, Graphs
from edged.stt.moonshine.vocabulary import Vocabulary

# Seconds of voice of which the decoder says that it is nothing. (Likeliest are short texts, so that
# in a meeting eight words stayed behind a "Yeah." for six seconds. With it 1 % of the words of 11
# conversations come more than 1.9 s late, in place of 4.8, and of other speech none more is wrong.)
_OVERLOOKED_S = 1.5
# A word that is no longer waited for when a segment has grown too long: its delay has passed, and
# this. The next segment hears again what was not said of younger ones.
_OVERDUE_S = 4.0


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was chosen by measurement (`edged bench`), not by the user.

    chunk: new frames (24 ms each) that make an update worthwhile; 10 are three steps.
    revise: frames that every update reads again.
    adapted: whether the encoder has the weights adapted to little lookahead.
    lock_s: how long the hypothesis behind a said word may still change.
    tail_s: how much further than to words whose delay has passed the decoder looks.
    early_s: how long before its delay has passed a word may be said: the time of an update, or it
        comes with the update behind its delay.
    undisputed_p: a word this likely that no rival text has otherwise need not be seen twice; above
        1: each must.
    dispute_s: how long behind its delay a word is waited for that is still disputed.
    first_s: seconds of a segment before its first word may be said: earlier the model invents.
    longest_s: a segment ends behind its last said word when it grows older than this.
    loop_updates: a loop that lasts this many updates ends the segment.
    """

    chunk: int = 10
    revise: int = 45
    adapted: bool = True
    lock_s: float = 1.5
    tail_s: float = 0.35
    early_s: float = 0.24
    undisputed_p: float = 0.5
    dispute_s: float = 0.3
    first_s: float = 0.9
    longest_s: float = 16.0
    loop_updates: int = 3


# To wait longer than `dispute_s` for a dispute to be settled gains nothing: at 0.56, 0.8 and 1.28
# s of delay 419, 377 and 364 words were wrong in place of 417, 379 and 366, and 1 % came 1.08, 0.89
# and 1.35 s late in place of 0.80, 0.67 and 0.74.
#
# Said an update early, words are in time and no more of them are wrong (423 of 2962 either way, by
# a decoder without rivals). With what is beyond dispute said at once, 15 % of words come more than
# 0.15 s behind their delay in place of 18, and 379 are wrong in place of 376; at 0.56 s of delay
# 24 % in place of 33, and 409 in place of 406.
PROMPT = Tuning()
# With 1.1 s and more of its future in view, upstream's encoder is the better one, and the more
# so the longer it may think again: at 1.28 s 13.2 % of words wrong, 13.9 % with 120 frames. Here
# words said early were wrong more often, 418 in place of 412, and so were those beyond dispute: of
# every second clip 209 in place of 201.
PATIENT = Tuning(revise=220, adapted=False, lock_s=2.0, early_s=0.0, undisputed_p=1.1)


def tuning_for(delay_in_frames: int) -> Tuning:
    """What is best for words that are said `delay_in_frames` steps late."""
    return PATIENT if delay_in_frames >= 14 else PROMPT


class Segment:
    """Recogniser state from a segment's first sample on. Cost per update does not grow with
    its age but for attention, memory is bounded by `tuning.longest_s`."""

    def __init__(
        self,
        graphs: Graphs,
        vocabulary: Vocabulary,
        options: Options,
        tuning: Tuning,
        random: np.random.Generator,
        dropped: Counter[str],
    ) -> None:
        """`dropped` counts what guards withheld, by reason: words that are unsure, loops; it is the
        caller's."""
        frames = int((tuning.longest_s + 3.0) / FRAME_S)
        self._vocabulary, self._options, self._tuning = vocabulary, options, tuning
        self._encoder = Encoder(graphs, frames, tuning.revise, tuning.adapted)
        self._decoder = Decoder(
            graphs,
            token_limit(frames * FRAME_S) + 1,
            options.temp,
            options.padding_bonus,
            random,
            in_step=True,
        )
        self._dropped = dropped
        self.voice_uncertainty = (
            0.0  # that this is a voice, as the caller now knows it: see `is_unsure`
        )
        self._said: list[HeardWord] = []
        self._frames_seen = 0
        self.read_to_end = False  # by the last update
        self._ended_s: float | None = None  # age since when the decoder finds nothing more
        self._overlooks = False  # although somebody speaks
        self._looping = 0
        self._looked_until_s = 0.0  # words that stopped by then were due at the last look

    def push(self, samples: Floats) -> None:
        """samples: float32[any], 16 kHz, -1..1."""
        self._encoder.push(samples)

    @property
    def due(self) -> int:
        """Frames that wait for an update."""
        return self._encoder.frames - self._frames_seen

    @property
    def age_s(self) -> float:
        return self._encoder.frames * FRAME_S

    @property
    def hypothesis(self) -> Hypothesis:
        return self._decoder.hypothesis

    @property
    def runs(self) -> int:
        """Decoder runs so far."""
        return self._decoder.runs

    @property
    def stuck(self) -> bool:
        """The decoder repeats itself and more audio does not help."""
        return self._looping >= self._tuning.loop_updates

    @property
    def said_s(self) -> float:
        """Where the last said word stopped, in seconds from the segment's start."""
        return self._said[-1].stop_s if self._said else 0.0

    @property
    def overdue_s(self) -> float:
        """What is older than this and was not said need not be waited for."""
        return self.age_s - self._options.delay_in_frames * STEP_S - _OVERDUE_S

    def update(self, last: bool = False, pause: bool = False) -> list[HeardWord]:
        """Reads what has arrived; returns the words that may be said now (`last`: all).

        pause: decode to the end, to learn whether the decoder finds the phrase complete.
        """
        now, news = self.age_s, self.due > 0
        delay = self._options.delay_in_frames * STEP_S
        mature = now - delay + self._tuning.early_s
        if not (last and self.read_to_end and not self.due):  # else there is nothing new to hear
            self._frames_seen = self._encoder.frames
            if not last and now < self._tuning.first_s:
                return []
            cross = self._encoder.update()
            if not cross:
                return []
            horizon = None if last or pause else int((now - delay + self._tuning.tail_s) / FRAME_S)
            read = self._decoder.update(cross, token_limit(now), horizon, last, not self._overlooks)
            self._look_for_more(read.ended and horizon is not None)
            self.read_to_end = horizon is None and (last or read.ended)
        hypothesis = self.hypothesis
        sane = without_loop(hypothesis.tokens)
        self._looping = self._looping + news if sane < len(hypothesis.tokens) else 0
        words = self._words(sane)
        first = first_uncommitted(self._said, words)
        end = len(words)
        unsure = low_confidence(hypothesis.probability[:sane], self.voice_uncertainty)
        if last:
            if sane < len(hypothesis.tokens):
                self._dropped["loop"] += 1
            if unsure and end > first:
                self._dropped["unsure"] += end - first
        else:
            end = ready(words, first, lambda word: self._settled(word, hypothesis, mature))
            self._looked_until_s = mature
        if unsure:
            end = first
        fresh = words[first:end]
        self._said += fresh
        before = now - delay - self._tuning.lock_s
        self._decoder.lock(max((w.last for w in words[:end] if w.stop_s < before), default=0))
        return fresh

    def give_up(self) -> list[HeardWord]:
        """The segment ends although nothing was said of it for long: its words that are overdue,
        or none of them if the text is unsure."""
        sane = without_loop(self.hypothesis.tokens)
        words = self._words(sane)
        overdue = [
            w for w in words[first_uncommitted(self._said, words) :] if w.start_s < self.overdue_s
        ]
        if overdue and low_confidence(self.hypothesis.probability[:sane], self.voice_uncertainty):
            self._dropped["unsure"] += len(overdue)
            return []
        self._said += overdue
        return overdue

    def _look_for_more(self, ended: bool) -> None:
        """ended: the decoder said that nothing more was said. After `_OVERLOOKED_S` of that an end
        has to be likelier than any token, from now on."""
        if not ended:
            self._ended_s = None
        elif self._ended_s is None:
            self._ended_s = self.age_s
        elif self.age_s - self._ended_s > _OVERLOOKED_S:
            self._overlooks = True

    def _words(self, tokens: int) -> list[HeardWord]:
        """The words of the hypothesis' first `tokens` tokens."""
        hypothesis = self.hypothesis
        return words_of(
            hypothesis.tokens[:tokens],
            hypothesis.heard[:tokens],
            hypothesis.probability[:tokens],
            self._vocabulary,
        )

    def _settled(self, word: HeardWord, hypothesis: Hypothesis, until_s: float) -> bool:
        """Old enough, complete, and: the same as in the update before, or beyond dispute, or
        disputed for too long, though already at the last look: where audio has piled up, an update
        alone is longer than that."""
        complete = is_complete(word, len(hypothesis.tokens), hypothesis.p_end)
        undisputed = (
            word.last <= hypothesis.undisputed and word.probability >= self._tuning.undisputed_p
        )
        if not complete or word.stop_s > until_s:
            return False
        waited_s = until_s - self._tuning.early_s - self._tuning.dispute_s
        waited = word.stop_s <= min(waited_s, self._looked_until_s)
        return undisputed or waited or word.last <= hypothesis.agreed
