"""A speech model without weights, for tests of what all families share.

It differs from Moonshine where a family may differ: frames of 20 ms, and a prompt of four tokens
that depends on the language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edged.stt.confidence import DEFAULT_CONFIDENCE, ConfidenceBounds
from edged.stt.family import (
    AttentionTiming,
    EncoderOutput,
    Floats,
    LanguageTraits,
    TopTokens,
    Tuning,
)

FRAME = 320  # samples of 16 kHz
EOS = 0
PROMPTS = {"en": (1, 2, 4, 5), "de": (1, 3, 4, 5)}
FIRST_TEXT_TOKEN = 10
TUNING = Tuning(chunk_frames=12)
TIMING = AttentionTiming(frame_s=FRAME / 16_000)


@dataclass(frozen=True)
class Spoken:
    """A token that the audio holds at a frame, with the probability that the decoder gives it."""

    piece: str
    frame: int
    p: float = 0.9


Hear = Callable[[int], Sequence[Spoken]]
"""What the model hears of so many frames of audio."""


@dataclass
class ToyVocabulary:
    """Pieces get their tokens as they are first used. A piece that begins with a space begins a
    word."""

    eos: int = EOS
    pieces: list[str] = field(default_factory=lambda: [f"<{n}>" for n in range(FIRST_TEXT_TOKEN)])

    def __len__(self) -> int:
        return len(self.pieces)

    def token(self, piece: str) -> int:
        if piece not in self.pieces:
            self.pieces.append(piece)
        return self.pieces.index(piece)

    def text(self, tokens: Sequence[int]) -> str:
        return "".join(self.pieces[token] for token in tokens).strip()

    def spelling(self, token: int) -> bytes:
        return self.pieces[token].encode()

    def word_starts(self, tokens: Sequence[int]) -> list[int]:
        return [i for i, t in enumerate(tokens) if i == 0 or self.pieces[t].startswith(" ")]


@dataclass
class ToyEncoder:
    """Its output's state is the number of frames."""

    samples: int = 0
    updates: list[bool] = field(default_factory=list)  # `last` of each

    @property
    def frames(self) -> int:
        return self.samples // FRAME

    def push(self, samples: Floats) -> None:
        self.samples += len(samples)

    def update(self, last: bool = False) -> EncoderOutput | None:
        self.updates.append(last)
        return EncoderOutput(self.frames, self.frames) if self.frames else None


@dataclass
class ToyDecoder:
    """Predicts what `hear` says of the audio, behind a text that agrees with it; else the end."""

    model: ToySpeechModel
    tokens: list[int] = field(default_factory=list)  # of each row
    frames: int = 0
    runs: int = 0

    @property
    def rows(self) -> int:
        return len(self.tokens)

    def attend_to(self, audio: EncoderOutput) -> None:
        self.frames = audio.state

    def read(
        self, tokens: Sequence[int], branches: Sequence[Sequence[int]], prefix: int, top_k: int
    ) -> TopTokens:
        self.runs += 1
        found = []
        for token, branch in zip(tokens, branches, strict=True):
            self.tokens.append(token)
            assert branch[-1] == len(self.tokens) - 1
            found.append(self._next([*self.tokens[:prefix], *(self.tokens[r] for r in branch)]))
        best, p, frames = map(np.array, zip(*found, strict=True))
        other = np.where(best == EOS, FIRST_TEXT_TOKEN, EOS)
        p_eos = np.where(best == EOS, p, 1 - p)
        return TopTokens(
            np.stack([best, other], 1)[:, :top_k],
            np.stack([p, 1 - p], 1)[:, :top_k].astype(np.float32),
            p_eos.astype(np.float32),
            frames,
        )

    def keep(self, rows: Sequence[int]) -> None:
        self.tokens = [self.tokens[row] for row in rows]

    def score(self, prompt: Sequence[int], tokens: Sequence[int]) -> float:
        self.keep([])
        found = [self._next([*prompt, *tokens[:n]]) for n in range(len(tokens) + 1)]
        pairs = zip(found, [*tokens, EOS], strict=True)
        return float(sum(np.log(p if best == token else 1 - p) for (best, p, _), token in pairs))

    def _next(self, text: Sequence[int]) -> tuple[int, float, int]:
        """(token, probability, frame) behind `text`."""
        prompt = self.model.asked_prompt
        assert tuple(text[: len(prompt)]) == prompt[: len(text)], "the prompt comes first"
        spoken = self.model.hear(self.frames)
        n = len(text) - len(prompt)
        heard = [self.model.vocabulary.token(s.piece) for s in spoken]
        if n < 0 or list(text[len(prompt) :]) != heard[:n] or n >= len(heard):
            return EOS, 0.95, self.frames
        return heard[n], spoken[n].p, spoken[n].frame


@dataclass
class ToySpeechModel:
    """See `edged.stt.family.SpeechModel`."""

    hear: Hear
    tuned: Tuning = TUNING
    vocabulary: ToyVocabulary = field(default_factory=ToyVocabulary)
    timing: AttentionTiming = TIMING
    confidence: ConfidenceBounds = DEFAULT_CONFIDENCE
    languages: dict[str, LanguageTraits] = field(
        default_factory=lambda: {code: LanguageTraits() for code in PROMPTS}
    )
    has_keyterms: bool = True
    asked_prompt: tuple[int, ...] = ()
    spoken: Mapping[str, float] | None = None  # what `detect_language` finds
    encoders: list[ToyEncoder] = field(default_factory=list)

    def tuning(self, delay_in_frames: int) -> Tuning:
        return self.tuned

    def prompt(self, language: str) -> tuple[int, ...]:
        self.asked_prompt = PROMPTS[language]
        return self.asked_prompt

    def detect_language(self, audio: EncoderOutput) -> Mapping[str, float] | None:
        return self.spoken

    def streaming_encoder(self, tuning: Tuning, max_frames: int) -> ToyEncoder:
        self.encoders.append(ToyEncoder())
        return self.encoders[-1]

    def encode(self, samples: Floats) -> EncoderOutput | None:
        frames = len(samples) // FRAME
        return EncoderOutput(frames, frames) if frames else None

    def decoder_step(self, max_rows: int) -> ToyDecoder:
        return ToyDecoder(self)


def script(*spoken: Spoken) -> Hear:
    """Hears each token once its frame has passed."""
    return lambda frames: [s for s in spoken if s.frame < frames]


def sentence(text: str, first_frame: int = 10, frames_a_word: int = 15) -> list[Spoken]:
    """One token a word, at an even pace."""
    return [
        Spoken(f" {word}", first_frame + n * frames_a_word) for n, word in enumerate(text.split())
    ]
