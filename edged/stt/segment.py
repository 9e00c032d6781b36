"""One stretch of speech: audio in, committed words out."""

from __future__ import annotations

from collections import Counter

import numpy as np

from edged import STEP_S
from edged.languages import AUTO
from edged.options import Options
from edged.stt.commit import (
    commit_prefix_length,
    first_uncommitted,
    has_grown,
    is_complete,
    remainder,
)
from edged.stt.confidence import low_confidence
from edged.stt.decoder import DecodedText, Decoder
from edged.stt.family import (
    EncoderOutput,
    Floats,
    SpeechModel,
    Tuning,
    first_language,
    language_traits,
)
from edged.stt.frame_power import FramePower
from edged.stt.keyterms import keyterms_of
from edged.stt.language_id import spoken_language
from edged.stt.repetition import loop_free_length, loop_period
from edged.stt.words import SegmentWord, group_words

# How long the decoder may predict the end of the text during ongoing speech before an early end is
# no longer allowed.
MAX_EOS_DURING_SPEECH_S = 1.5
# A word is no longer waited for, once a segment has grown too long, when its delay and this have
# passed. Younger words are decoded again in the next segment.
OVERDUE_S = 4.0
SPARE_S = 3.0  # audio beyond `max_segment_s` for which a segment has room


class Segment:
    """Recogniser state of one segment, from its first sample on.

    The cost of an update does not grow with the segment's age except for attention. Memory is
    bounded by `tuning.max_segment_s`. One thread uses a segment at a time.

    language: the code of the language that is decoded.
    """

    def __init__(
        self,
        model: SpeechModel,
        options: Options,
        tuning: Tuning,
        random: np.random.Generator,
        dropped: Counter[str],
        expected_language: str | None = None,
    ) -> None:
        """dropped: the caller's counter of words that guards withheld, by reason.
        expected_language: the language so far, where the options leave it to the model; None if
            nothing is known.
        """
        self._keyterms = keyterms_of(model, options)
        self._model, self._options, self._tuning = model, options, tuning
        self._random = random
        self._frame_s = model.timing.frame_s
        self._frames = int((tuning.max_segment_s + SPARE_S) / self._frame_s)
        self._encoder = model.streaming_encoder(tuning, self._frames)
        self._power = FramePower()
        self._expected = expected_language
        fixed = None if options.language == AUTO else options.language
        self._set_language(fixed or expected_language or first_language(model))
        self._dropped = dropped
        self.voice_uncertainty = 0.0  # the voice gate's, which the caller keeps up to date
        self._committed: list[SegmentWord] = []
        self._frames_decoded = 0
        self._frames_attended = 0  # fewer where the latest frames wait for their lookahead
        self.decoded_to_end = False  # whether the last update decoded to the end of the text
        self._ended_at_s: float | None = None  # age since which the decoder predicts the end
        self._early_eos = True  # until the decoder predicts the end for too long
        self._loop_updates = 0
        self._previous_cutoff_s = 0.0  # words that stopped by then were due at the last update

    def _set_language(self, language: str) -> None:
        """Decodes in this language from now on, from the beginning of the segment."""
        self.language = language
        self._traits = language_traits(self._model, language)
        options = self._options
        self._decoder = Decoder(
            self._model,
            language,
            self._traits.max_tokens(self._frames * self._frame_s) + 1,
            options.temp,
            options.padding_bonus,
            self._random,
            realtime=True,
            beam_width=self._tuning.beam_width,
            keyterms=self._keyterms,
        )

    def _find_language(self, audio: EncoderOutput) -> None:
        """Finds the language where the options leave it to the model, until a word is committed."""
        if self._options.language != AUTO or self._committed:
            return
        probabilities = self._model.detect_language(audio)
        if probabilities is None:
            return
        language = spoken_language(probabilities, self.age_s, self._expected)
        if language != self.language:
            self._set_language(language)

    def push(self, samples: Floats) -> None:
        """Adds samples: float32[any], 16 kHz, -1..1."""
        self._power.push(samples)
        self._encoder.push(samples)

    @property
    def new_frames(self) -> int:
        """Frames that no update has covered yet."""
        return self._encoder.frames - self._frames_decoded

    @property
    def age_s(self) -> float:
        """Seconds of audio so far."""
        return self._encoder.frames * self._frame_s

    @property
    def decoded(self) -> DecodedText:
        """The text of the last update."""
        return self._decoder.decoded

    @property
    def runs(self) -> int:
        """Decoder runs so far."""
        return self._decoder.runs

    @property
    def is_looping(self) -> bool:
        """Whether the decoder repeats itself although more audio arrived."""
        return self._loop_updates >= self._tuning.max_loop_updates

    @property
    def committed_s(self) -> float:
        """Where the last committed word stopped, in seconds from the segment's start."""
        return self._committed[-1].stop_s if self._committed else 0.0

    @property
    def overdue_s(self) -> float:
        """Uncommitted words older than this are no longer waited for."""
        return self.age_s - self._options.delay_in_frames * STEP_S - OVERDUE_S

    def update(self, last: bool = False, pause: bool = False) -> list[SegmentWord]:
        """Decodes what has arrived and returns the words that may be committed now.

        last: the segment ends here, so that all its words are committed. pause: decode to the end
        of the text, to learn whether the decoder finds the phrase complete.
        """
        now, is_new = self.age_s, self.new_frames > 0
        delay = self._options.delay_in_frames * STEP_S
        cutoff = now - delay + self._tuning.early_commit_s
        is_final = self.decoded_to_end and self._frames_attended == self._encoder.frames
        if is_new or not (last and is_final):  # else the text is already the final one
            self._frames_decoded = self._encoder.frames
            if not last and now < self._tuning.min_age_s:
                return []
            audio = self._encoder.update(last)
            if audio is None:
                return []
            self._frames_attended = audio.frames
            self._find_language(audio)
            margin = self._tuning.horizon_margin_s
            horizon = None if last or pause else int((now - delay + margin) / self._frame_s)
            limit = self._traits.max_tokens(now)
            decoded = self._decoder.update(audio, limit, horizon, last, self._early_eos)
            self._watch_eos(decoded.ended and horizon is not None)
            self.decoded_to_end = horizon is None and (last or decoded.ended)
        decoded = self.decoded
        believed = self._loop_free_length()
        is_loop = believed < len(decoded.tokens)
        is_stuck = is_loop and not loop_period(decoded.tokens[:believed])
        self._loop_updates = self._loop_updates + is_new if is_stuck else 0
        words = self._words(believed)
        new = self._uncommitted(words)
        count = len(new)
        unsure = self._low_confidence(believed)
        if last:
            if is_loop:
                self._dropped["loop"] += 1
            if unsure and new:
                self._dropped["unsure"] += len(new)
        else:
            count = commit_prefix_length(new, lambda word: self._may_commit(word, decoded, cutoff))
            if self._keyterms is not None and not self.decoded_to_end:
                count = min(count, self._keyterms.closed(new))
            self._previous_cutoff_s = cutoff
        fresh = [] if unsure else self._commit(new[:count], words)
        fixed_s = now - delay - self._tuning.prefix_lag_s
        done = words[: len(words) - len(new)] + fresh
        fixed = max((w.end_token for w in done if w.stop_s < fixed_s), default=0)
        self._decoder.commit(fixed)
        return fresh

    def commit_overdue(self) -> list[SegmentWord]:
        """Returns the overdue words of a segment that ends although nothing was committed for long,
        or none of them if the text has low confidence."""
        believed = self._loop_free_length()
        words = self._words(believed)
        overdue = [w for w in self._uncommitted(words) if w.start_s < self.overdue_s]
        if overdue and self._low_confidence(believed):
            self._dropped["unsure"] += len(overdue)
            return []
        return self._commit(overdue, words)

    def _uncommitted(self, words: list[SegmentWord]) -> list[SegmentWord]:
        """The decoded words that have not been committed. If the last committed word has become
        the beginning of a longer one, the rest of that one comes first."""
        first = first_uncommitted(self._committed, words)
        new = words[first:]
        if first and has_grown(self._committed[-1], words[first - 1]):
            rest = remainder(self._committed[-1], words[first - 1])
            new = [rest, *new] if rest else new
        return new

    def _commit(self, fresh: list[SegmentWord], words: list[SegmentWord]) -> list[SegmentWord]:
        """Commits words and returns them. A word that has grown replaces its beginning, so that
        later updates find it."""
        for word in fresh:
            whole = next(w for w in words if w.end_token == word.end_token)
            if whole is not word:
                self._committed.pop()
            self._committed.append(whole)
        return fresh

    def _watch_eos(self, ended: bool) -> None:
        """Ends the permission for an early end of the text after MAX_EOS_DURING_SPEECH_S.

        ended: the decoder predicts the end of the text although speech goes on.
        """
        if not ended:
            self._ended_at_s = None
        elif self._ended_at_s is None:
            self._ended_at_s = self.age_s
        elif self.age_s - self._ended_at_s > MAX_EOS_DURING_SPEECH_S:
            self._early_eos = False

    def _words(self, tokens: int) -> list[SegmentWord]:
        """The words of the first `tokens` tokens."""
        decoded = self.decoded
        words = group_words(
            decoded.tokens[:tokens],
            decoded.frames[:tokens],
            decoded.probabilities[:tokens],
            self._model.vocabulary,
            self._model.timing,
        )
        return words if self._keyterms is None else self._keyterms.replaced(words)

    def _loop_free_length(self) -> int:
        decoded = self.decoded
        return loop_free_length(decoded.tokens, decoded.frames, self._frame_s, self._power)

    def _low_confidence(self, tokens: int) -> bool:
        return low_confidence(
            self.decoded.probabilities[:tokens], self.voice_uncertainty, self._model.confidence
        )

    def _may_commit(self, word: SegmentWord, decoded: DecodedText, cutoff_s: float) -> bool:
        """Whether the word is complete, old enough, and one of: the same as in the previous update;
        probable, shared by all hypotheses and no beginning of a number; waited for long enough.

        A word has waited only if it was already due at the previous update: where audio has piled
        up, one update alone covers more than the time-out.
        """
        if word.stop_s > cutoff_s or not is_complete(word, len(decoded.tokens), decoded.p_eos):
            return False
        tuning = self._tuning
        if word.end_token <= decoded.agreed_prefix:
            return True
        may_grow = word.text[-1].isdigit()  # numbers are decoded digit by digit
        is_probable = word.probability >= tuning.uncontested_p
        if is_probable and not may_grow and word.end_token <= decoded.shared_prefix:
            return True
        waited_s = cutoff_s - tuning.early_commit_s - tuning.confirmation_timeout_s
        return word.stop_s <= min(waited_s, self._previous_cutoff_s)
