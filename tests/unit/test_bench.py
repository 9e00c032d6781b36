"""`edged bench`: word errors, clips, and what is counted when."""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edged.bench import bench, measure, offline, report, table, wer
from edged.bench.isolated_run import Run, run_isolated
from edged.bench.manifest import Clip, choose, read_manifest, sample_clips, within
from edged.bench.measure import ClipResult, RunResult, TimedInlineExecutor
from edged.errors import ConfigError, EdgedError
from edged.events import EndOfStream, EndText, Event, Step, Text, Turn, Word
from edged.models import choice
from edged.models.catalogue import Catalogue, shipped
from edged.options import Options

WORDS = st.lists(st.sampled_from("abc"), max_size=8)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Mr. Hale, it's OK.", "mister hale it's okay"),
        ("It cost $5, or 3.14% more.", "it cost five dollars or three point one four percent more"),
        ("In 1955, 1905 and 1900", "in nineteen fifty five nineteen oh five and nineteen hundred"),
        ("1,200,000 people", "one two zero zero zero zero zero people"),
        ("the 21st of 342, 9:30 pm", "the twenty one of three hundred forty two nine thirty pm"),
        ("Uh, um—mhm. 'Tis well-known", "tis well known"),
        ("agent 007 dialled 12345", "agent zero zero seven dialled one two three four five"),
        ("I’m gonna see 'em", "i'm going to see them"),
        ("12000", "one two zero zero zero"),
        ("2500 men", "two thousand five hundred men"),
    ],
)  # fmt: skip
def test_texts_that_say_the_same_are_made_the_same(text: str, normal: str) -> None:
    assert " ".join(wer.words(text)) == normal


@pytest.mark.parametrize(
    ("language", "text", "normal"),
    [
        ("de", "Weißenburg, 21 Häuser!", "weissenburg 21 hauser"),
        ("de", "einundzwanzig Häuser", "21 hauser"),
        ("fr", "L’été, c'est où ?", "l ete c est ou"),
        ("fr", "quatre-vingts", "80"),
        ("es", "¿Cuántos? 1.200", "cuantos 1200"),
        ("ja", "日本、です。", "日 本 で す"),
        ("tr", "Işık 5", "isık 5"),
    ],
)
def test_other_languages_are_compared_without_accents_and_numbers_as_digits(
    language: str, text: str, normal: str
) -> None:
    assert " ".join(wer.words(text, language)) == normal


def test_each_recording_is_compared_as_its_own_language_is_written() -> None:
    german = Clip("a", Path("a"), "einundzwanzig Häuser", language="de", text_language="de")
    english = Clip("b", Path("b"), "twenty one houses", language="en")
    rates = report.error_rates([german, english], ["21 hauser", "21 houses"])
    assert rates["all"]["wrong"] == 0


def test_each_kind_of_word_error_counts_one() -> None:
    expected_text = "she had your dark suit"
    assert wer.errors(expected_text, "She had your dark suit.") == wer.Errors(0, 5)
    assert wer.errors(expected_text, "she had your duck suit").wrong == 1
    assert wer.errors(expected_text, "she had dark suit").wrong == 1
    assert wer.errors(expected_text, "so she had your dark suit").wrong == 1
    assert wer.errors(expected_text, "").wrong == 5
    assert wer.Errors().rate is None


def edits(a: list[str], b: list[str]) -> int:
    """Levenshtein's definition, word for word."""
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return edits(a[1:], b[1:])
    return 1 + min(edits(a[1:], b[1:]), edits(a[1:], b), edits(a, b[1:]))


@given(WORDS.filter(lambda w: len(w) < 6), WORDS.filter(lambda w: len(w) < 6))
def test_the_alignment_is_the_cheapest_there_is(a: list[str], b: list[str]) -> None:
    pairs = wer.align(a, b)
    assert [i for i, _ in pairs if i is not None] == list(range(len(a)))
    assert [j for _, j in pairs if j is not None] == list(range(len(b)))
    cost = sum(i is None or j is None or a[i] != b[j] for i, j in pairs)
    assert cost == edits(a, b)


def manifest(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(entry) for entry in entries) + "\n\n")
    return path


def test_a_manifest_is_read_with_what_may_be_scored_only(tmp_path: Path) -> None:
    times = [["she", 0.1, 0.3]]
    clips = read_manifest(
        manifest(
            tmp_path / "m.jsonl",
            {"id": "a", "file": "a.wav", "text": "she", "text_exact": True, "kind": "read",
             "word_times": times, "word_times_source": "hand-labelled"},
            {"id": "b", "file": "b.wav", "text": "roughly", "text_exact": False,
             "word_times": times, "word_times_source": "aligner output"},
            {"id": "c", "file": "c.wav", "dup_of": "a"},
            {"id": "d", "file": "d.wav", "slots": {"size": "very large"}, "text": None,
             "condition": "hall"},
        )
    )  # fmt: skip
    assert [clip.id for clip in clips] == ["a", "b", "d"]
    assert clips[0] == Clip("a", tmp_path / "a.wav", "she", "read", (("she", 0.1, 0.3),))
    assert (clips[1].text, clips[1].word_times) == (None, ())
    assert clips[2].slot_words == ("very", "large")
    assert clips[2].conditions == ("hall",)


@pytest.mark.parametrize("line", ['{"id": "b"}', "[]", "{", '{"id": "b", "file": "x", "slots": 3}'])
def test_a_wrong_line_of_a_manifest_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"id": "a", "file": "a.wav"}\n' + line)
    with pytest.raises(ConfigError, match="line 2 of the manifest"):
        read_manifest(path)


def test_a_manifest_that_is_missing_or_empty_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="lists no recordings"):
        read_manifest(manifest(tmp_path / "m.jsonl"))


def test_clips_are_chosen_evenly_and_within_the_minutes() -> None:
    clips = sample_clips()
    assert choose(clips, 2) == [clips[0], clips[2]]
    assert choose(clips, 99) == clips
    assert within(clips, None) == clips
    two = sum(soundfile.info(clip.file).duration for clip in clips[:2])
    assert within(clips, (two + 0.1) / 60) == clips[:2]
    assert within(clips, 0.001) == clips[:1]


class Scripted:
    """A session that gives a word ending at 0.1 s in the third step, and has slow background work
    in the first."""

    dropped: ClassVar[Counter[str]] = Counter(loop=1)

    lost = 0

    def __init__(self, models: Any, options: Any, background: Any) -> None:
        self.background = background
        self.step_idx = 0

    def push(self, frame: Any) -> list[Event]:
        self.step_idx += 1
        if self.step_idx == 1:
            self.background.submit(time.sleep, 0.2)
        words: list[Event] = [Text("she", 0.02), EndText(0.1)] if self.step_idx == 3 else []
        return [*words, Step(self.step_idx - 1)]

    def flush(self, flush_id: str) -> list[Event]:
        return []

    def end(self) -> list[Event]:
        words = (Word("She", 0.02, 0.1), Word("had", 0.2, 0.4))
        return [
            Text("hat", 0.2), EndText(0.3), Turn("She had", 0.02, 0.4, words), EndOfStream()
        ]  # fmt: skip


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    soundfile.write(tmp_path / "a.wav", np.zeros(24_000), 24_000)
    file = tmp_path / "a.wav"
    return [
        Clip(
            "a",
            file,
            "She had",
            "read",
            (("she", 0.0, 0.1), ("had", 0.2, 0.42)),
            ("had",),
            ("clean",),
        ),
        Clip("b", file, None, "noise"),
        Clip("c", file, "who", "noisy", conditions=("3 m",)),
    ]


@pytest.fixture
def measured(clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> RunResult:
    monkeypatch.setattr(measure, "Session", Scripted)
    done: list[float] = []
    models: Any = SimpleNamespace()
    result = measure.measure(models, clips, Options(), done.append)
    assert sum(done) == pytest.approx(3 * 13 * 0.08)
    result.flushes_s = measure.flush_times(models, clips, Options(), 5)
    return result


def test_the_lag_is_the_time_of_the_step_that_gave_the_word(measured: RunResult) -> None:
    """And not that of `end`, for which nobody had to wait."""
    assert len(measured.lags_s) == 3
    assert all(lag == pytest.approx(3 * 0.08 - 0.1, abs=0.05) for lag in measured.lags_s)


class Punctual(Scripted):
    """Gives in every tenth step of the stream a word that began five steps before."""

    def push(self, frame: Any) -> list[Event]:
        self.step_idx += 1
        word: list[Event] = [
            Text("word", (self.step_idx - 5) * 0.08),
            EndText((self.step_idx - 4) * 0.08),
        ]
        return [*(word if self.step_idx % 10 == 0 else []), Step(self.step_idx - 1)]

    def end(self) -> list[Event]:
        word = Word("late", 27 * 0.08, 28 * 0.08)
        return [Turn("late", word.start_s, word.stop_s, (word,)), EndOfStream()]


def test_words_of_a_joined_stream_belong_to_the_clip_that_was_heard_then(
    clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three clips of 13 steps: words began in the steps 5, 15 and 25 of the stream."""
    monkeypatch.setattr(measure, "Session", Punctual)
    models: Any = SimpleNamespace()
    heard = measure.measure(models, clips, Options(), lambda s: None, joined=True).clips
    assert [h.clip.id for h in heard] == ["a", "b", "c"]
    starts = [[round(word.start_s / 0.08) for word in h.words] for h in heard]
    assert starts == [[5], [2, 12], []]
    assert all(w.stop_s - w.start_s == pytest.approx(0.08) for h in heard for w in h.words)
    assert [[round(w.start_s / 0.08) for w in h.turn_words] for h in heard] == [[], [], [1]]


def test_a_word_at_the_edge_of_a_clip_in_a_joined_stream_is_not_wrong_twice() -> None:
    """Its time was some ms off, so it counted as missing in one clip and as too many in the next:
    45 of 457 wrong words."""
    one = Clip("a", Path("a"), text="She had.", kind="read")
    two = Clip("b", Path("b"), text="Your dark suit.", kind="noisy")
    noise = Clip("n", Path("n"), kind="noise")
    heard = ["She", "had your dark suits"]
    apart = report.error_rates([one, two], heard)
    joined = report.error_rates([one, two], heard, joined=True)
    assert (apart["all"]["wrong"], joined["all"]["wrong"]) == (3, 1)
    assert (joined["read"]["wrong"], joined["noisy"]["wrong"]) == (0, 1)
    # what is heard in between belongs to neither
    broken = report.error_rates([one, noise, two], ["She", "had", "your dark suits"], joined=True)
    assert (broken["read"]["wrong"], broken["noisy"]["wrong"]) == (1, 1)


def test_background_work_is_counted_apart_from_the_steps(measured: RunResult) -> None:
    assert min(measured.background_s) >= 0.2
    assert max(measured.steps.step_ms) < 200


def test_the_figures_are_json_and_complete(measured: RunResult) -> None:
    figures = json.loads(json.dumps(report.figures(measured), allow_nan=False))
    assert figures["clips"] == 3
    assert figures["step_ms"]["count"] == sum(figures["step_histogram"].values()) == 39
    assert figures["flush_ms"]["count"] == 2  # not in noise
    assert figures["invented_texts"] == {"noise": 2}
    assert figures["wer"] == {
        "all": {"wer": 1.0, "wrong": 3, "words": 3},
        "read": {"wer": 0.5, "wrong": 1, "words": 2},
        "noisy": {"wer": 2.0, "wrong": 2, "words": 1},
    }
    assert figures["turn_wer"]["read"]["wer"] == 0
    assert (figures["slots"], figures["turn_slots"]) == (0.0, 1.0)
    assert figures["dropped"] == {"loop": 3}
    assert figures["condition_wer"] == {
        "clean": {"wer": 0.5, "wrong": 1, "words": 2},
        "3 m": {"wer": 2.0, "wrong": 2, "words": 1},
    }
    assert (figures["condition_slots"], figures["turn_condition_slots"]) == (
        {"clean": 0.0},
        {"clean": 1.0},
    )
    assert figures["peak_rss_mb"] > 10


def test_word_times_are_compared_for_the_words_that_were_heard_right(measured: RunResult) -> None:
    figures = report.figures(measured)
    assert figures["word_times"] == {
        "words": 1,  # she; hat is not had
        "start_median_abs_ms": 20.0,
        "start_median_ms": 20.0,
        "stop_median_abs_ms": 0.0,
        "stop_median_ms": 0.0,
    }
    assert figures["turn_word_times"]["words"] == 2
    assert figures["turn_word_times"]["stop_median_ms"] == -10.0


def test_nothing_measured_is_unknown_and_not_zero() -> None:
    figures = report.figures(RunResult(Options(), clips=[ClipResult(Clip("a", Path("a")))]))
    assert figures["step_ms"]["p99"] is None
    assert figures["wer"] == {}
    assert figures["cpu_s_per_audio_s"] is None
    assert figures["word_times"] is None


def test_the_table_fits_a_terminal_and_shows_what_there_is(measured: RunResult) -> None:
    figures = report.figures(measured)
    other = report.other("peer", [h.clip for h in measured.clips], ["she had", "", "who"], 3, 1)
    whole = {
        "machine": report.machine(), "model": "tiny-en", "threads": 1,
        "runs": [{"model": "tiny-en", **figures}], "offline": [], "peer": other,
    }  # fmt: skip
    console = Console(width=80, record=True, file=io.StringIO())
    table.show(whole, console)
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    for words in ("delay 10", "peer", "3 m", "WER of text", "80 ms: time of one step", "noisy"):
        assert words in shown


def test_models_are_compared_side_by_side(
    measured: RunResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`edged bench --model a,b` is one run for each model and delay, in one table."""
    runs: list[tuple[str, int]] = []

    def run(run: Run, progress: Any) -> dict[str, Any]:
        runs.append((run.model, run.options.delay_in_frames))
        return report.figures(measured)

    monkeypatch.setattr(bench, "run_isolated", run)
    monkeypatch.setattr(bench, "quick_check", lambda *_: None)
    tiny = shipped().get("tiny-en")
    catalogue = Catalogue((tiny, replace(tiny, name="base")))
    monkeypatch.setattr(bench, "shipped", lambda: catalogue)
    monkeypatch.setenv("COLUMNS", "120")
    options = (Options(), Options(delay_in_frames=16))
    assert bench.bench(bench.Plan(options, models=("tiny-en", "base"))) == 0
    assert runs == [("tiny-en", 10), ("tiny-en", 16), ("base", 10), ("base", 16)]
    shown = capsys.readouterr().out
    assert "tiny-en, base, threads: 1" in shown
    assert "base, delay 10" in shown


def test_an_error_of_background_work_reaches_its_result() -> None:
    background = TimedInlineExecutor()
    future = background.submit(lambda: 1 / 0)
    assert isinstance(future.exception(), ZeroDivisionError)
    assert background.submit(lambda: 3).result() == 3


def test_long_clips_are_cut_where_they_are_quietest_for_the_ceiling() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 45 * 16_000).astype(np.float32)
    noise[14 * 16_000 : 15 * 16_000] = 0
    parts = list(offline.pieces(noise))
    assert sum(map(len, parts)) == len(noise)
    assert max(map(len, parts)) <= 20 * 16_000
    assert 14 <= len(parts[0]) / 16_000 <= 15


@pytest.mark.slow
def test_a_measuring_process_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while its input is being written, which was a BrokenPipeError."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    many = tuple(Clip(f"clip {n}", Path("x" * 100)) for n in range(3000))
    with pytest.raises(EdgedError, match=r"ended early \(exit code 1\)"):
        run_isolated(Run(many, Options()), lambda seconds: None)


def test_each_recording_is_measured_in_its_language_by_the_best_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = shipped().get("tiny-en")
    whisper = replace(tiny, name="w", languages=("de", "en"), default=False)
    catalogue = Catalogue((tiny, whisper))
    monkeypatch.setattr(bench, "shipped", lambda: catalogue)

    def chosen(_: object, model: str, language: str) -> choice.ModelChoice:
        return choice.choose(catalogue, ["tiny-en", "w"], model, language)

    monkeypatch.setattr(bench, "chosen", chosen)
    clips = [Clip(str(n), Path("x"), language=code) for n, code in enumerate(["en", "de", None])]

    def parts(*models: str) -> dict[str, list[str]]:
        plan = bench.Plan((Options(),), models=models)
        return {name: [c.id for c in some] for name, some in bench._parts(plan, clips)}

    assert parts("auto") == {"tiny-en": ["0", "2"], "w": ["1"]}
    assert parts("w") == {"w": ["0", "1", "2"]}
    assert parts("tiny-en") == {"tiny-en": ["0", "2"]}
    assert "tiny-en: left out the recordings in languages" in capsys.readouterr().err
    assert measure.options_for(clips[1], Options()).language == "de"
    assert measure.options_for(clips[2], Options()).language == "en"
    rates = report.language_error_rates(
        [replace(clip, text="ja gut") for clip in clips], ["yes gut", "ja gut", ""]
    )
    assert [(code, r["wrong"]) for code, r in rates.items()] == [("en", 1), ("de", 0)]
