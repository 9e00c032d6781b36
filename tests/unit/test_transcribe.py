"""`edged transcribe`: what goes where, with a session that says the same words each time."""

from __future__ import annotations

import json
import resource
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile

from edged.audio.files import open_audio
from edged.cli import transcribe as work
from edged.cli.transcribe import TranscribeJob, raw_format, transcribe
from edged.errors import ConfigError, InputError, RequestError
from edged.events import EndOfStream, EndText, Event, Step, Text, Turn, Word


class Scripted:
    """Hears "she had" early and closes a turn "She had." after 5 steps, whatever the audio."""

    backlog: ClassVar[list[bool]] = []

    dropped: ClassVar[Counter[str]] = Counter(loop=2)

    def __init__(self, models: Any, options: Any, background: Any = None) -> None:
        self.step_idx = 0

    def push(self, frame: Any, backlog: bool = False) -> list[Event]:
        Scripted.backlog.append(backlog)
        self.step_idx += 1
        events: list[Event] = []
        if self.step_idx == 2:
            events += [Text("she", 0.01), EndText(0.05), Text("had", 0.06), EndText(0.12)]
        events.append(Step(self.step_idx - 1))
        if self.step_idx == 5:
            words = (Word("She", 0.01, 0.05), Word("had.", 0.06, 0.12))
            events.append(Turn("She had.", 0.01, 0.12, words))
        return events

    def end(self) -> list[Event]:
        return (
            [Text("tail", 9.0), EndText(9.5), EndOfStream()] if self.step_idx else [EndOfStream()]
        )


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "Session", Scripted)
    recogniser = SimpleNamespace(has_keyterms=False)
    models = SimpleNamespace(name="tiny-en", recogniser=recogniser)
    monkeypatch.setattr(work, "load", lambda *_: models)
    Scripted.backlog = []


@pytest.fixture
def clip(tmp_path: Path) -> str:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(24_000), 24_000)
    return str(path)


def messages(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_text_is_one_line_per_turn(clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe([clip], TranscribeJob()) == 0
    assert capsys.readouterr() == ("She had.\n", "")


def test_text_from_words_is_what_was_committed(
    clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    transcribe([clip], TranscribeJob(text_from="words"))
    assert capsys.readouterr().out == "she had\ntail\n"


def test_events_are_the_wire_messages_with_the_file(
    clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    transcribe([clip], TranscribeJob(form="events"))
    sent = messages(capsys.readouterr().out)
    assert {message["file"] for message in sent} == {clip}
    kinds = [message["type"] for message in sent]
    assert kinds[0] == "ready"
    assert kinds[-1] == "end_of_stream"
    assert kinds.count("step") == 13  # one second, the last step filled with silence
    assert sent[2] == {"type": "text", "text": "she", "start_s": 0.01, "stream_id": 0, "file": clip}


def test_several_files_of_text_are_told_apart_as_head_does(
    clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    transcribe([clip, clip], TranscribeJob())
    assert capsys.readouterr().out == f"==> {clip} <==\nShe had.\n\n==> {clip} <==\nShe had.\n"


def test_a_file_that_cannot_be_read_does_not_stop_the_others(
    clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transcribe([str(tmp_path / "gone.wav"), clip], TranscribeJob()) == InputError.exit_code
    out, err = capsys.readouterr()
    assert out.endswith("She had.\n")
    assert err.count("\n") == 1
    assert "gone.wav" in err


def test_a_file_that_cannot_be_read_is_an_error_event(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = str(tmp_path / "gone.wav")
    transcribe([gone], TranscribeJob(form="events"))
    (sent,) = messages(capsys.readouterr().out)
    assert (sent["type"], sent["code"], sent["file"]) == ("error", 1008, gone)


def test_what_stands_before_damage_is_transcribed_and_then_the_error_is_told(
    tmp_path: Path, speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(speech.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path = tmp_path / "damaged.flac"
    path.write_bytes(data)
    assert transcribe([str(path)], TranscribeJob(form="events")) == InputError.exit_code
    sent = messages(capsys.readouterr().out)
    assert [message["type"] for message in sent][-3:] == ["text", "end_text", "error"]
    assert "is damaged" in sent[-1]["message"]


def test_an_empty_file_is_no_error_but_is_remarked_upon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.empty(0), 24_000)
    assert transcribe([str(path)], TranscribeJob()) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "contains no audio" in err


@pytest.mark.parametrize(("form", "suffix"), [("srt", ".srt"), ("vtt", ".vtt"), ("text", ".txt")])
def test_with_an_output_folder_each_file_gets_its_own(
    clip: str, tmp_path: Path, form: Any, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(Path(clip).read_bytes())
    folder = tmp_path / "new" / "results"
    transcribe([clip, str(other)], TranscribeJob(form=form, output_dir=folder))
    assert sorted(path.name for path in folder.iterdir()) == ["clip" + suffix, "other" + suffix]
    assert "She had." in (folder / ("clip" + suffix)).read_text()
    assert capsys.readouterr().out == ""


def test_subtitles_number_their_cues_and_end_with_what_was_said_last(
    clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    transcribe([clip], TranscribeJob(form="srt", text_from="words"))
    cues = capsys.readouterr().out.strip().split("\n\n")
    assert [cue.splitlines()[0] for cue in cues] == ["1", "2"]
    assert [cue.splitlines()[2] for cue in cues] == ["she had", "tail"]


def test_vtt_starts_with_its_header(clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    transcribe([clip], TranscribeJob(form="vtt"))
    assert capsys.readouterr().out == "WEBVTT\n\n00:00:00.010 --> 00:00:01.010\nShe had.\n\n"


def test_no_result_file_is_left_when_the_run_is_interrupted(
    clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> list[Event]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scripted, "push", interrupt)
    with pytest.raises(KeyboardInterrupt):
        transcribe([clip], TranscribeJob(output_dir=tmp_path / "results"))
    assert list((tmp_path / "results").iterdir()) == []


def test_a_result_file_on_a_full_disk_is_said_and_not_left(clip: str, tmp_path: Path) -> None:
    """Closing the file writes again what the disk did not take: that second error, which nobody
    knew, took the place of the first."""
    (tmp_path / "out").mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        with pytest.raises(ConfigError, match="cannot be written: File too large"):
            transcribe([clip], TranscribeJob(output_dir=tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "out").iterdir())


def test_a_result_that_would_be_a_directory_is_said_before_the_work(
    clip: str, tmp_path: Path
) -> None:
    """It was met when all had been heard, as "a bug in edged", and the half-written file stayed."""
    (tmp_path / "out/clip.txt").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"clip\.txt cannot be written: it is a directory"):
        transcribe([clip], TranscribeJob(output_dir=tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip.txt"]


def test_a_name_that_is_taken_meanwhile_leaves_no_half_written_file(
    clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.cli.transcribe.os.path.isdir", lambda _: False)
    (tmp_path / "out/clip.txt").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"clip\.txt cannot be written: Is a directory"):
        transcribe([clip], TranscribeJob(output_dir=tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip.txt"]


def test_a_folder_that_cannot_be_made_is_said(clip: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        transcribe([clip], TranscribeJob(output_dir=tmp_path / "file" / "below"))


@pytest.mark.parametrize(
    ("files", "job", "says"),
    [
        (["a.wav", "b.wav"], TranscribeJob(form="srt"), "--output-dir"),
        (["x/a.wav", "y/a.mp3"], TranscribeJob(output_dir=Path("o")), "both be written"),
        (["-", "-"], TranscribeJob(), "only once"),
    ],
)
def test_what_can_be_refused_is_refused_before_any_work(
    files: list[str], job: TranscribeJob, says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        transcribe(files, job)


def test_a_rate_without_a_raw_format_is_refused_where_files_have_headers() -> None:
    with pytest.raises(RequestError, match="--input-format"):
        raw_format(["a.wav"], None, 16_000, None)
    raw = raw_format(["-"], None, 16_000, None)
    assert raw is not None
    assert (raw.encoding, raw.rate, raw.channels) == ("pcm", 16_000, 1)
    assert raw_format(["a.wav"], None, None, None) is None


def test_realtime_gives_no_frame_before_a_microphone_would(clip: str) -> None:
    started = time.monotonic()
    transcribe([clip], TranscribeJob(realtime=True))
    assert time.monotonic() - started >= 1.0


def test_realtime_tells_the_session_when_it_is_behind(
    clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = Scripted.push

    def slow_once(self: Scripted, frame: Any, backlog: bool = False) -> list[Event]:
        if self.step_idx == 0:
            time.sleep(0.5)
        return push(self, frame, backlog)

    monkeypatch.setattr(Scripted, "push", slow_once)
    transcribe([clip], TranscribeJob(realtime=True))
    assert Scripted.backlog[1]
    assert not Scripted.backlog[0]


def test_stats_are_on_stderr_and_name_the_cost(
    clip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    transcribe([clip], TranscribeJob(stats=True))
    out, err = capsys.readouterr()
    assert out == "She had.\n"
    assert "13 steps, 1.0 s of audio" in err
    assert "dropped: loop 2" in err


def test_the_source_is_closed_when_a_writer_fails(
    clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def remember(*args: Any) -> Any:
        opened.append(open_audio(*args))
        return opened[-1]

    monkeypatch.setattr(work, "open_audio", remember)
    monkeypatch.setattr(work, "_deliver", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        transcribe([clip], TranscribeJob())
    with pytest.raises(ValueError, match="closed file"):
        list(opened[0].frames())
