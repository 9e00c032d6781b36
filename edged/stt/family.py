"""The interface between the recogniser, which all model families share, and one family of models.

A family is a folder below this one (`moonshine/`). It brings a `Family`, listed in
`edged.stt.families`, whose `load` opens a `SpeechModel`. Everything else (segments, commit rules,
beam search, guards, the second pass, stream time) reads a model through the classes below only.
See README.md in this folder for a table of what a family brings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edged.stt.confidence import ConfidenceBounds

RATE = 16_000  # Hz: the sample rate that every recogniser is given

Floats: TypeAlias = NDArray[np.float32]


# ---- what a model says about itself -------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class LanguageTraits:
    """What decoding needs to know about one language.

    tokens_per_s: the most tokens that one second of speech may have; a bound against endless
        loops.
    """

    tokens_per_s: float = 6.5

    def max_tokens(self, seconds: float) -> int:
        """The most tokens that `seconds` of speech may have."""
        return max(1, int(seconds * self.tokens_per_s) + 3)


@dataclass(frozen=True, slots=True)
class AttentionTiming:
    """How encoder frames and cross-attention become the times of words.

    frame_s: seconds per encoder frame.
    onset_lag_s: how far the attention peak of a word's first token lies behind the word's start.
    tail_frames: how many frames after the peak of its last token a word before a pause stops.
    """

    frame_s: float
    onset_lag_s: float = 0.0
    tail_frames: int = 0


@dataclass(frozen=True, slots=True)
class Tuning:
    """Settings of the first pass that were chosen by measurement (`edged bench`) for one delay.

    Frames are the model's encoder frames.

    chunk_frames: new frames that make an update worthwhile.
    backlog_chunk_frames: the same where audio has piled up, as from a file.
    revised_frames: the most recent frames, which every update encodes again.
    adapted_encoder: whether to use the encoder with weights adapted to little lookahead, where the
        model has one.
    prefix_lag_s: how long after its delay a committed word may still change inside the decoder;
        then its tokens are fixed and not decoded again.
    horizon_margin_s: how much further than the words whose delay has passed an update decodes.
    early_commit_s: how long before its delay has passed a word may be committed. About half the
        time between two updates; else words come with the first update after their delay.
    uncontested_p: a word with at least this probability, which all surviving hypotheses share, need
        not be confirmed by a second update. Above 1, every word must be confirmed.
    confirmation_timeout_s: how long after its delay a word waits for that confirmation.
    min_age_s: age of a segment before its first word may be committed; earlier text is often
        invented.
    max_segment_s: a segment that grows older is cut behind its last committed word.
    max_loop_updates: a repetition that lasts this many updates ends the segment.
    beam_width: hypotheses that are kept at a time.
    """

    chunk_frames: int = 10
    backlog_chunk_frames: int = 40
    revised_frames: int = 45
    adapted_encoder: bool = True
    prefix_lag_s: float = 1.5
    horizon_margin_s: float = 0.35
    early_commit_s: float = 0.24
    uncontested_p: float = 0.5
    confirmation_timeout_s: float = 0.3
    min_age_s: float = 0.9
    max_segment_s: float = 16.0
    max_loop_updates: int = 3
    beam_width: int = 3


class Vocabulary(Protocol):
    """Tokens to text."""

    def __len__(self) -> int: ...

    @property
    def eos(self) -> int:
        """The token that ends a text."""

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without spaces at its ends."""

    def word_starts(self, tokens: Sequence[int]) -> list[int]:
        """Indices of the tokens with which a word begins, in order; 0 is always one of them."""

    def spelling(self, token: int) -> bytes:
        """UTF-8 of one token, with a space in front where it begins a word. May be a part of a
        character. For key terms."""


# ---- encoder ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class EncoderOutput:
    """What the decoder attends to.

    frames: how many encoder frames of audio it covers: fewer than the encoder's `frames` where the
        latest ones wait for their lookahead.
    state: the family's own representation. It may be a view of memory that the next update of the
        same encoder overwrites.
    """

    frames: int
    state: Any


class StreamingEncoder(Protocol):
    """Encoder of one segment. Audio is pushed; each update covers all of it."""

    @property
    def frames(self) -> int:
        """Frames that the next update will cover."""

    def push(self, samples: Floats) -> None:
        """Adds samples: float32[any], 16 kHz, -1..1. Cheap: nothing is computed yet."""

    def update(self, last: bool = False) -> EncoderOutput | None:
        """Encodes what was pushed. Returns None if that is too little for one frame.

        last: no more audio will come, so that missing lookahead is replaced by the family's
        padding.
        """


# ---- decoder ------------------------------------------------------------------------------------
class TopTokens(NamedTuple):
    """What may follow each of n tokens that were read. Shapes: n rows, k candidates.

    tokens: int64[n, k], the most probable first. p: float32[n, k], probabilities over the whole
    vocabulary. p_eos: float32[n], of the end of the text. frames: int64[n], the encoder frame to
    which the next token's attention belongs.
    """

    tokens: NDArray[np.int64]
    p: Floats
    p_eos: Floats
    frames: NDArray[np.int64]


class DecoderStep(Protocol):
    """The decoder of one segment, with the self-attention keys and values of what it has read.

    Each token that was read has one row. Rows are numbered in the order of reading; `keep`
    renumbers them.
    """

    @property
    def rows(self) -> int:
        """How many rows there are."""

    def attend_to(self, audio: EncoderOutput) -> None:
        """From now on tokens are read against this audio."""

    def read(
        self, tokens: Sequence[int], branches: Sequence[Sequence[int]], prefix: int, top_k: int
    ) -> TopTokens:
        """Reads n tokens, which become the rows `rows` .. `rows` + n - 1.

        prefix: the first rows, which every token sees. branches: for each token the rows behind the
        prefix that it sees, in order, its own row last; so its position in the text is prefix +
        len(branch) - 1. A family whose graph cannot read a tree in one run reads branch by branch.
        """

    def keep(self, rows: Sequence[int]) -> None:
        """These rows, in this order, become the rows 0, 1, ...; all others are forgotten."""

    def score(self, prompt: Sequence[int], tokens: Sequence[int]) -> float:
        """The log probability of the text `tokens` and of its end behind `prompt`. Forgets all
        rows that were read before."""


# ---- model and family ---------------------------------------------------------------------------
class SpeechModel(Protocol):
    """A loaded model. Shared by all sessions and threads: it holds no state of any stream."""

    @property
    def languages(self) -> Mapping[str, LanguageTraits]:
        """By language code."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def has_keyterms(self) -> bool:
        """Whether key terms have an effect. They need a decoder whose `top_k` may be 16."""

    @property
    def timing(self) -> AttentionTiming: ...

    @property
    def confidence(self) -> ConfidenceBounds:
        """Below which mean token probability a text is more likely invented than spoken."""

    def tuning(self, delay_in_frames: int) -> Tuning:
        """What suits words that are committed `delay_in_frames` steps of 80 ms late."""

    def prompt(self, language: str) -> tuple[int, ...]:
        """Tokens before the first token of text: at least one. They have no times."""

    def detect_language(self, audio: EncoderOutput) -> Mapping[str, float] | None:
        """Probability by language code, the most probable first; None for a model with one
        language."""

    def streaming_encoder(self, tuning: Tuning, max_frames: int) -> StreamingEncoder:
        """An encoder for one segment of at most `max_frames` frames."""

    def encode(self, samples: Floats) -> EncoderOutput | None:
        """Encodes a whole segment with full context, for the second pass.

        samples: float32[n], 16 kHz, -1..1. Returns None if they are too short for one frame.
        """

    def decoder_step(self, max_rows: int) -> DecoderStep:
        """A decoder for one segment with room for `max_rows` rows."""


def language_traits(model: SpeechModel, language: str) -> LanguageTraits:
    """The traits of `language`; of the model's first language if it does not have that one."""
    return model.languages.get(language) or model.languages[first_language(model)]


def first_language(model: SpeechModel) -> str:
    """The code of the model's first language, the only one of most models."""
    return next(iter(model.languages))


@dataclass(frozen=True, slots=True)
class SpeechCheck:
    """Whether a built model does on real speech what upstream's own model does, in one sentence."""

    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class Family:
    """What building, checking and loading models of one family needs to know.

    name: of the folder in `edged.stt` and of the module in `edged.export`, which has
        `build(upstream, out, streaming_encoder, language)`.
    architectures: values of `architecture` in the catalogue that belong to the family.
    build_version: raised whenever a built graph would differ, so that stale ones are rebuilt.
    graph_files: names of the files that `build` writes.
    load: (folder of upstream's files, folder of built graphs, language, threads) -> model. Raises
        ModelError, which names the file.
    check: (folder of upstream's files, folder of built graphs, samples float32[n] at 16 kHz,
        threads) -> comparison with upstream's own model.
    check_languages: languages of models that `check` may compare; the sample speech may be in
        English.
    """

    name: str
    architectures: tuple[str, ...]
    build_version: int
    graph_files: tuple[str, ...]
    load: Callable[[Path, Path, str, int], SpeechModel]
    check: Callable[[Path, Path, Floats, int], SpeechCheck]
    check_languages: tuple[str, ...] = field(default=("en",))
