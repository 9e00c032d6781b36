"""Incremental decoding: the text of a segment is decoded again as more of it is heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edged.stt.beam import BEAM_WIDTH, MAX_DRAFT_ROWS, Beam, Hypothesis, SearchBounds
from edged.stt.family import EncoderOutput, SpeechModel
from edged.stt.keyterms import START, Keyterms, TermState
from edged.stt.sampler import Sampler
from edged.stt.token_tree import MAX_TOKENS_PER_RUN, TokenTree, common_prefix

# Decoder runs of one update of the first pass, which somebody waits for: after so many only the
# best hypothesis goes on, and after so many it is cut off, unless the update is the last one.
GREEDY_AFTER_RUNS, MAX_UPDATE_RUNS = 8, 12


@dataclass(slots=True)
class DecodedText:
    """What the decoder currently finds most likely for the whole segment.

    tokens: without prompt and end. frames: the encoder frame of each token's attention.
    probabilities: of each token. agreed_prefix: how many tokens the previous update had, too.
    shared_prefix: how many tokens all surviving hypotheses share; 0 for sampled text, which has no
    alternatives. ended: the decoder predicted the end of the text. p_eos: with what probability;
    None if decoding stopped before. language: the code of the language that was decoded.
    """

    tokens: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    agreed_prefix: int = 0
    shared_prefix: int = 0
    ended: bool = False
    p_eos: float | None = None
    language: str = "en"


class Decoder:
    """Decodes one segment: by beam search, or by sampling.

    The first `committed` tokens are fixed, with their self-attention keys and values in the
    decoder's cache. The rest, and the alternatives to it, are drafts that each update reads again
    against the newest audio.
    """

    def __init__(
        self,
        model: SpeechModel,
        language: str,
        max_tokens: int,
        temperature: float = 0.0,
        eos_bonus: float = 0.0,
        random: np.random.Generator | None = None,
        realtime: bool = False,
        beam_width: int = BEAM_WIDTH,
        keyterms: Keyterms | None = None,
    ) -> None:
        """max_tokens: the most tokens of the segment. eos_bonus: added to the logit of the end of
        the text; above 0 words come later, below 0 sooner. random: needed where temperature > 0.
        realtime: whether somebody waits for each update. keyterms: terms with a bonus in the beam
        search; sampling does not use them."""
        eos = model.vocabulary.eos
        self._language = language
        self._prompt = model.prompt(language)
        max_rows = max_tokens + 2 * MAX_DRAFT_ROWS + 2 * MAX_TOKENS_PER_RUN + len(self._prompt) - 1
        self._keyterms = None if temperature > 0 else keyterms
        sampler = Sampler(eos, temperature, eos_bonus, random, beam_width, self._keyterms)
        self.tree = TokenTree(model.decoder_step(max_rows), sampler)
        self._eos = eos
        self._beam_width = beam_width
        self._max_tokens = max_tokens
        self._greedy_after = GREEDY_AFTER_RUNS if realtime else None
        self._sampled = temperature > 0
        self._alternatives: list[list[int]] = []  # the other texts of the last update, behind
        self._alternatives_from = 0  # so many tokens, which were committed then
        self._term = START  # within key terms, behind the first `_term_tokens` tokens
        self._term_tokens = 0
        self.committed = 0
        self.decoded = DecodedText(language=language)

    @property
    def runs(self) -> int:
        """Decoder runs so far."""
        return self.tree.runs

    def update(
        self,
        audio: EncoderOutput,
        limit: int,
        horizon: int | None,
        last: bool = True,
        early_eos: bool = True,
    ) -> DecodedText:
        """Decodes against `audio`, all of the segment so far.

        limit: the most tokens of the whole segment. horizon: encoder frame beyond which tokens are
        of no use yet, so that decoding stops there; None: decode to the end. last: decode however
        long that takes; else at most MAX_UPDATE_RUNS runs, after which the text may be shorter than
        before and the next update goes on from its end. early_eos: see
        `edged.stt.beam.SearchBounds`.
        """
        old, base = self.decoded, self.committed
        limit = min(limit, self._max_tokens - 1)
        if base >= limit:
            return old
        self.tree.attend_to(audio)
        self._forget_drafts(base)
        max_runs = None if last else MAX_UPDATE_RUNS
        bounds = SearchBounds(limit - base, horizon, max_runs, self._greedy_after, early_eos)
        # Sampled text keeps its drafted tokens, so that a draft at another place would bend it.
        beam = Beam(
            self.tree,
            bounds,
            self._eos,
            self._beam_width,
            resume_drafts=not self._sampled,
            keyterms=self._keyterms,
        )
        last_token = old.tokens[base - 1] if base else self._prompt[-1]
        start = Hypothesis(last_token, None, old.tokens[base:], term=self._term_state(base))
        best = beam.search(start, self._drafts())
        self._alternatives, self._alternatives_from = _leaves(beam.explored), base
        tokens = [*old.tokens[:base], *best.tokens]
        self.decoded = DecodedText(
            tokens,
            [*old.frames[:base], *best.frames],
            [*old.probabilities[:base], *best.probabilities],
            agreed_prefix=common_prefix(tokens, old.tokens),
            shared_prefix=0 if self._sampled else base + beam.shared_prefix,
            ended=best.p_eos is not None,
            p_eos=best.p_eos,
            language=self._language,
        )
        return self.decoded

    def commit(self, tokens: int) -> None:
        """The first `tokens` tokens of the text are fixed: they will not be decoded again."""
        self.committed = max(self.committed, min(tokens, len(self.decoded.tokens)))

    def _term_state(self, committed: int) -> TermState:
        """Where the committed tokens stand within key terms."""
        if self._keyterms is not None:
            fixed = self.decoded.tokens[self._term_tokens : committed]
            self._term = replace(self._keyterms.after(fixed, self._term), earned=0.0)
            self._term_tokens = committed
        return self._term

    def _forget_drafts(self, committed: int) -> None:
        """Reduces the tree to the prompt and the committed tokens, the last of which the search
        itself reads."""
        prefix = [*self._prompt, *self.decoded.tokens[:committed]][:-1]
        self.tree.commit(self.tree.rows_of(prefix))
        while (known := len(self.tree.rows_of(prefix))) < len(prefix):  # not read, or forgotten
            self.tree.read([(None, prefix[known:])])
            self.tree.commit(self.tree.rows_of(prefix))

    def _drafts(self) -> list[list[int]]:
        """The alternatives of the last update that agree with what was committed since."""
        since = self.decoded.tokens[self._alternatives_from : self.committed]
        n = len(since)
        return [text[n:] for text in self._alternatives if text[:n] == since]


def _leaves(texts: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """The texts that are not the beginning of another."""
    inner = {text[:-1] for text in texts}
    return [list(text) for text in dict.fromkeys(texts) if text and text not in inner]
