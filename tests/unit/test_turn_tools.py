"""What the turn model is fitted and scored with: streams, labels and figures of merit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from edged import SAMPLE_RATE, STEP_S
from edged.cli.main import app
from edged.errors import ConfigError
from edged.vad.text_evidence import Evidence
from models.turn import bench_turns
from models.turn.evidence import SessionTrace, in_pause, inactivity_labels, silence_s
from models.turn.first_words import count_first_words
from models.turn.material import (
    END_S,
    INNER_S,
    REST_S,
    LabelledStream,
    read_streams,
)
from models.turn.scores import (
    SilenceBaseline,
    Steps,
    auc,
    brier,
    calibration_error,
    turn_ends,
)
from models.turn.sentences import punctuated_texts, sentence_ends


def stream(**more: object) -> LabelledStream:
    """Speech at 1 to 2 s and 3 to 4 s of 7 s."""
    content: dict[str, object] = {
        "id": "x",
        "speakers": ("a",),
        "real": True,
        "audio": np.zeros(7 * SAMPLE_RATE, np.int16),
        "speech": ((1.0, 2.0), (3.0, 4.0)),
        "inner": ((2.0, 3.0),),
        "ends": (4.0,),
        "known_s": 7.0,
    }
    return LabelledStream(**(content | more))  # type: ignore[arg-type]


def at(seconds: float) -> int:
    """The step that ends at this time."""
    return round(seconds / STEP_S) - 1


# ---- labels
def test_a_label_says_whether_anybody_speaks_in_the_time_that_follows_the_step() -> None:
    labels = inactivity_labels(stream(), 87)
    assert labels[at(0.4)].tolist() == [1, 0, 0]
    assert labels[at(1.6)].tolist() == [0, 0, 0], "somebody speaks now"
    assert labels[at(2.08)].tolist() == [1, 0, 0]
    assert labels[at(4.08)].tolist() == [1, 1, 1]


def test_a_future_behind_the_end_of_the_recording_is_unknown_and_never_silence() -> None:
    labels = inactivity_labels(stream(), 87)
    assert np.isnan(labels[at(5.6), 2])
    assert labels[at(5.6), :2].tolist() == [1, 1]
    talks_on = inactivity_labels(stream(speech=((1.0, 2.0), (6.5, 7.0))), 87)
    assert talks_on[at(5.6), 2] == 0, "that somebody will speak is known before the end"


def test_a_pause_lies_between_what_is_spoken_and_not_before_the_first_word() -> None:
    paused = in_pause(stream(), 87)
    assert not paused[at(0.4)]
    assert not paused[at(1.6)]
    assert paused[at(2.4)]
    assert paused[at(5.6)]


# ---- figures
def test_the_roc_area_is_the_share_of_pairs_in_the_right_order() -> None:
    p, y = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0, 1, 1])
    assert auc(p, y) == pytest.approx(0.75)
    assert auc(np.full(4, 0.5), y) == pytest.approx(0.5), "ties count half"
    assert np.isnan(auc(p, np.ones(4)))


def test_calibration_error_is_the_mean_distance_of_what_is_said_from_what_is_seen() -> None:
    p = np.array([0.15] * 10 + [0.95] * 10)
    y = np.array([0.0] * 10 + [1.0] * 5 + [0.0] * 5)
    assert calibration_error(p, y) == pytest.approx((0.15 + 0.45) / 2)
    assert brier(p, y) == pytest.approx((0.15**2 + (0.05**2 + 0.95**2) / 2) / 2)


def test_the_baseline_is_the_share_of_each_duration() -> None:
    silence = np.array([0.05] * 4 + [0.95] * 4)
    y = np.array([0.0, 0, 0, 1, 1, 1, 1, 0])
    hazard = SilenceBaseline(silence, y, np.ones(8))
    assert hazard(np.array([0.02, 0.9])).tolist() == [0.25, 0.75]
    assert SilenceBaseline.of(hazard.shares)(np.array([0.9])).tolist() == [0.75]


def heard(*closed_s: float) -> SessionTrace:
    return SessionTrace(stream(), (), np.zeros((0, 3)), closed_s)


@pytest.mark.parametrize(
    ("closed_s", "delays", "missed", "cut"),
    [
        ((4.64,), [0.64], 0, 0),
        ((2.7, 4.8), [0.8], 0, 1),
        ((3.9,), [0.0], 0, 0),
        ((2.7,), [], 1, 1),
        ((), [], 1, 0),
    ],
)
def test_turns_are_late_missed_or_cut(
    closed_s: tuple[float, ...], delays: list[float], missed: int, cut: int
) -> None:
    ends = turn_ends([heard(*closed_s)])
    assert [round(d, 6) for d in ends.delays_s] == delays
    assert (ends.missed, ends.cut, ends.inner) == (missed, cut, 1)


def test_what_nobody_can_foresee_is_the_last_two_seconds_before_another_turn() -> None:
    evidence = tuple(Evidence((0.0,), n * STEP_S, n * STEP_S, 0.0) for n in range(1, 101))
    talk = stream(speech=((1.0, 2.0), (6.0, 6.5)), inner=(), ends=(2.0,), known_s=8.0)
    steps = Steps.of([SessionTrace(talk, evidence, np.zeros((100, 3)), ())])
    times = (np.flatnonzero(steps.sudden) + 1) * STEP_S
    assert (times.min(), times.max()) == pytest.approx((4.08, 6.0))
    inside = stream()
    steps = Steps.of([SessionTrace(inside, evidence[:87], np.zeros((87, 3)), ())])
    assert not steps.sudden.any(), "a pause inside a turn can be recognised when it ends"


def test_silence_before_any_speech_counts_from_the_start_and_not_as_speech() -> None:
    """It counted as no silence at all: a room where nobody had spoken yet was "speaking"."""
    evidence = tuple(Evidence((0.0,), n * STEP_S, None, 0.0) for n in range(1, 4))
    one = SessionTrace(stream(), evidence, np.zeros((3, 3)), ())
    assert silence_s(one).tolist() == pytest.approx([STEP_S, 2 * STEP_S, 3 * STEP_S])


# ---- material
@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two tones of one speaker, each with a gap inside, and a labelled conversation."""
    rng = np.random.default_rng(0)
    for name in ("one", "two", "talk"):
        x = rng.standard_normal(3 * 16000) * 0.001
        x[8000:20000] += 0.3 * np.sin(np.arange(12000) * 0.1)
        x[28000:40000] += 0.3 * np.sin(np.arange(12000) * 0.1)
        soundfile.write(tmp_path / f"{name}.wav", x, 16000)
    times = [["a", 0.5, 1.25], ["b", 1.75, 2.5]]
    clip = {"kind": "read", "speaker": "s", "duration_s": 3.0, "word_times": times}
    turns = [["x", 0.5, 1.25], ["y", 1.2, 1.25], ["x", 1.75, 2.5]]
    entries = [
        {"id": "one", "file": "one.wav", **clip},
        {"id": "two", "file": "two.wav", **clip},
        {"id": "copy", "file": "two.wav", "dup_of": "two", **clip},
        {"id": "talk", "file": "talk.wav", "duration_s": 3.0, "turns": turns},
        {"id": "hum", "file": "talk.wav", "kind": "noise", "duration_s": 3.0},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(e) for e in entries), encoding="utf-8")
    return path


def test_a_labelled_conversation_stays_as_it_is(manifest: Path) -> None:
    [talk] = [s for s in read_streams(manifest, lambda audio: []) if s.real]
    assert talk.speech == ((0.5, 1.25), (1.75, 2.5)), "the union of all speakers"
    assert talk.inner == ((1.25, 1.75),), "x speaks on both sides"
    assert talk.ends == (), "what follows 2.5 s is known for half a second only"
    assert talk.speakers == ("x", "y")
    assert len(talk.audio) == pytest.approx(3 * SAMPLE_RATE, abs=2000)


def test_strung_clips_have_exactly_the_speech_and_the_silences_they_claim(manifest: Path) -> None:
    [made] = [s for s in read_streams(manifest, lambda audio: []) if not s.real]
    x = made.audio.astype(float) / 32768
    power = np.array([np.mean(x[i : i + 240] ** 2) for i in range(0, len(x) - 240, 240)])
    loud = power > 1e-3
    spoken = np.array(
        [any(a <= (i + 0.5) * 0.01 < b for a, b in made.speech) for i in range(len(loud))]
    )
    assert (loud != spoken).mean() < 0.01
    assert made.known_s == pytest.approx(len(x) / SAMPLE_RATE)
    assert made.known_s - made.ends[-1] >= REST_S
    for start, stop in made.inner:
        assert INNER_S[0] <= stop - start <= INNER_S[1] + 0.6
    for end in made.ends[:-1]:
        assert min(a for a, _ in made.speech if a > end) - end >= END_S


def test_a_pause_between_sentences_may_be_a_turns_end_and_is_no_pause_inside_one(
    manifest: Path,
) -> None:
    """Seven in ten pauses "inside a turn" followed a full stop of read prose: whoever answered
    there was counted as interrupting."""
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for entry in lines:
        entry["text"] = "It left. It came."
    manifest.write_text("\n".join(json.dumps(e) for e in lines), encoding="utf-8")
    words = [("It", 0.5, 0.8), ("left", 0.8, 1.25), ("It", 1.75, 2.0), ("came", 2.0, 2.5)]
    made = [s for s in read_streams(manifest, lambda audio: [], lambda audio: words) if not s.real]
    assert sum(len(s.ends) + len(s.between) for s in made) == 4, "two clips of two sentences"
    assert not [pause for s in made for pause in s.inner]


@pytest.mark.parametrize(
    ("text", "heard", "expected"),
    [
        ("It left. It came.", "it left it came", [True]),
        ("It left, it came.", "it left it came", [False]),
        ("It left. It came.", "bit lift it came", [True]),  # misheard
        ("It left. It came.", "", [False]),  # nothing known
    ],
)
def test_a_sentence_ends_in_the_gap_where_its_last_word_was_heard(
    text: str, heard: str, expected: list[bool]
) -> None:
    spoken = [(word, 0.5 * i, 0.5 * i + 0.3) for i, word in enumerate(heard.split())]
    assert sentence_ends(text, spoken, [(0.8, 1.0)]) == expected


def test_every_clip_with_punctuation_has_a_text_that_ends() -> None:
    assert all(text[-1] in ".?!…" for text in punctuated_texts().values())


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        ("too boats left please call", (2, 0)),  # by sound
        ("boats left please call", (1, 1)),  # lost
        ("blue boats left please call", (1, 0)),  # heard as another word
    ],
)
def test_first_words_are_whole_or_lost_or_heard_as_others(
    heard: str, expected: tuple[int, int]
) -> None:
    assert count_first_words(["Two boats left.", "Please call."], heard.split()) == expected


def test_the_same_seed_gives_the_same_streams(manifest: Path) -> None:
    a, b = (read_streams(manifest, lambda audio: []) for _ in range(2))
    assert all(np.array_equal(s.audio, t.audio) for s, t in zip(a, b, strict=True))


def test_a_manifest_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("no json", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"m\.jsonl"):
        read_streams(path, lambda audio: [])


def test_the_bench_without_a_manifest_is_a_wrong_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measurement was documented and did not exist."""
    monkeypatch.setattr("sys.argv", ["bench_turns"])
    with pytest.raises(SystemExit) as ended:
        bench_turns.main()
    assert ended.value.code == 2
    assert "--manifest" in capsys.readouterr().err


def test_the_former_command_names_the_new_one() -> None:
    result = CliRunner().invoke(app, ["bench", "turns", "--manifest", "m.jsonl"])
    assert result.exit_code == 2
    assert "make bench-turns" in result.stderr
    assert result.stderr.count("\n") == 1
