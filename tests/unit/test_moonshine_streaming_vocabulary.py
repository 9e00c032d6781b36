"""Text of Moonshine's streaming models: pieces without marks, and word groups."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edged.errors import ModelError
from edged.stt.moonshine_streaming.language_traits import traits
from edged.stt.moonshine_streaming.specification import CONFIG, Sizes, read_config
from edged.stt.moonshine_streaming.vocabulary import StreamingVocabulary
from tests.support.streaming_models import TOYS, config, pieces, tokenizer

MARKS = [b"<unk>", b"<s>", b"</s>"]
SIZES = Sizes(16, 16, 4, 2, 8, 12_288, 1, 2, 16)


def vocabulary(language: str, *text: str | bytes) -> StreamingVocabulary:
    given = [piece if isinstance(piece, bytes) else piece.encode() for piece in text]
    return StreamingVocabulary([*MARKS, *given], eos=2, language=language)


def groups(words: StreamingVocabulary, tokens: list[int]) -> list[str]:
    starts = words.word_starts(tokens)
    ends = [*starts[1:], len(tokens)]
    return [words.text(tokens[a:b]) for a, b in zip(starts, ends, strict=True)]


def all_groups(language: str, *text: str | bytes) -> list[str]:
    return groups(vocabulary(language, *text), list(range(3, 3 + len(text))))


def test_marks_are_no_text_and_no_transcript_has_them() -> None:
    words = vocabulary("en", "\u2581a", "<<ST_0>>", "<b", "", "<>")
    assert words.text([1, 3, 4, 5, 6, 7, 2]) == "a<b<>"
    assert words.spelling(4) == b""
    assert words.transcript_tokens() == [2, 3, 5, 7]


def test_bytes_of_one_character_are_joined() -> None:
    words = vocabulary("de", "\u2581stra", b"\xc3", b"\x9f", "e")
    assert words.text([3, 4, 5, 6]) == "straße"
    assert words.text([3, 4]) == "stra\ufffd"


def test_words_begin_where_the_pieces_say_so() -> None:
    assert all_groups("es", "\u2581buenos", "\u2581d", "ías", ",", "\u2581amigo") == [
        "buenos",
        "días,",
        "amigo",
    ]


@pytest.mark.parametrize(
    ("pieces_", "expected"),
    [
        (["今日", "は", "いい", "天気", "です", "。"], ["今日", "は", "いい", "天気", "です。"]),
        # Small letters and the mark of a long vowel belong to what is before them.
        (["コ", "ーヒ", "ー", "き", "ょう"], ["コーヒー", "きょう"]),
        # Bytes of a character stay together, whatever is before them.
        (["日", b"\xe6\x9c", b"\xac", "の"], ["日", "本", "の"]),
        ([b"\xe6", b"\x97\xa5", "本"], ["日", "本"]),
        # Numbers and Latin words are not taken apart.
        (["20", "26", "年", "W", "i", "Fi", "を"], ["2026", "年", "WiFi", "を"]),
        (["我", "在", "北京", "，", "你", "呢", "？"], ["我", "在", "北京，", "你", "呢？"]),
    ],
)
def test_word_groups_of_languages_without_spaces(
    pieces_: list[str | bytes], expected: list[str]
) -> None:
    assert all_groups("ja", *pieces_) == expected


def test_scripts_other_than_latin_may_have_twice_as_many_tokens_a_second() -> None:
    assert [traits(code).tokens_per_s for code in ("en", "vi", "tl")] == [6.5] * 3
    assert [traits(code).tokens_per_s for code in ("ar", "ja", "zh")] == [13.0] * 3


def test_both_vocabularies_of_the_published_models_are_read(tmp_path: Path) -> None:
    for count in (32_768, 12_288):
        (tmp_path / "tokenizer.bin").write_bytes(tokenizer(pieces(count)))
        sizes = replace(SIZES, vocabulary=count)
        words = StreamingVocabulary.load(tmp_path / "tokenizer.bin", sizes, "en")
        assert len(words) == count
        assert words.eos == 2
        assert words.text([300]) == pieces(count)[300].decode().replace("\u2581", "")


def test_a_tokenizer_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(tokenizer(pieces(32_768)))
    with pytest.raises(ModelError, match=f"{path} has 32768 pieces instead of the 12288"):
        StreamingVocabulary.load(path, SIZES, "de")


def test_the_published_configuration_is_read(tmp_path: Path) -> None:
    """Sizes of tiny, small and medium, with their left context of 16 frames a layer."""
    shape = replace(TOYS["tiny"], wide=768, narrow=640, depth=14, heads=10, head_dim=64)
    (tmp_path / CONFIG).write_text(json.dumps(config(shape), indent=2))
    sizes = read_config(tmp_path / CONFIG)
    assert (sizes.encoder_dim, sizes.decoder_dim, sizes.lookahead) == (768, 640, 16)
    assert sizes.left_context == 224
    assert len((tmp_path / CONFIG).read_bytes()) == 513  # as published for medium
