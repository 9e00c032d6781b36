"""Whether a model transcribes the sample speech in its language: for `edged models verify` and
`edged doctor`.

A model can be whole by its checksums and still not transcribe: files of two revisions, an encoder
that is run in another way than it was trained for. A minute of known speech shows it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from edged.audio.files import read_samples
from edged.errors import ModelError
from edged.languages import WITHOUT_SPACES, word_separator
from edged.models.samples import Sample, samples
from edged.models.store import sha256
from edged.stt.family import SpeechModel
from edged.stt.second_pass import transcribe

MAX_WRONG = 0.35  # share of the words: a small model that works is far below, nonsense far above


@dataclass(frozen=True, slots=True)
class SampleCheck:
    """What a model made of the sample speech in one language.

    wrong, words: how many words (characters in languages without spaces) were wrong, of how many.
    first_wrong: the first text with a wrong word, as it was recognised; "" if there is none.
    """

    language: str
    recordings: int
    wrong: int
    words: int
    first_wrong: str = ""

    @property
    def ok(self) -> bool:
        """Whether the model works."""
        return self.wrong <= MAX_WRONG * self.words

    @property
    def message(self) -> str:
        """The result in one sentence."""
        text = (
            f"{self.wrong} of {self.words} words of {self.recordings} recordings in"
            f" {self.language} are wrong (at most {MAX_WRONG:.0%} is allowed)"
        )
        return text if self.ok else f"{text}; one was recognised as {self.first_wrong!r}"


def check_samples(model: SpeechModel, language: str) -> SampleCheck | None:
    """Transcribes the sample speech in `language`; None if there is none in it.

    Takes some seconds. Raises ModelError if a recording is damaged.
    """
    known = samples(language)
    if not known:
        return None
    wrong, words, first_wrong = 0, 0, ""
    for sample in known:
        text = _text(model, sample, language)
        expected, recognised = _words(sample.text, language), _words(text, language)
        off = _distance(expected, recognised)
        first_wrong = first_wrong or (text if off else "")
        wrong, words = wrong + off, words + len(expected)
    return SampleCheck(language, len(known), wrong, words, first_wrong)


def _text(model: SpeechModel, sample: Sample, language: str) -> str:
    if sha256(sample.path) != sample.sha256:
        raise ModelError(
            f"{sample.path}, which is a part of edged, is damaged. Install edged again."
        )
    audio = read_samples(str(sample.path))[0][:, 0]
    words = transcribe(model, audio, language).words
    return word_separator(language).join(word.text for word in words)


def _words(text: str, language: str) -> list[str]:
    """Letters and digits of each word, in lower case and without accents; each letter in languages
    without spaces."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(
        c if c.isalnum() else "" if unicodedata.combining(c) or c in "'’" else " " for c in plain
    )
    return list(kept.replace(" ", "")) if language in WITHOUT_SPACES else kept.split()


def _distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Words to be replaced, removed or added to make one text of the other."""
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        above, row = row, [i]
        for j, candidate in enumerate(other, 1):
            row.append(min(above[j - 1] + (word != candidate), above[j] + 1, row[j - 1] + 1))
    return row[-1]
