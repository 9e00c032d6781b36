"""The `edged` command as a process: exit codes, streams, signals."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from edged import __version__
from edged.cli import exits
from edged.cli import main as cli

RUN = [sys.executable, "-c", "from edged.cli.main import main; main()"]


def edged(
    *words: str, stdin: bytes = b"", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*RUN, *words],
        input=stdin,
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=300,
        check=False,
    )


def seconds_of_silence(path: Path, seconds: float) -> str:
    soundfile.write(path, np.zeros(int(24_000 * seconds)), 24_000)
    return str(path)


@pytest.mark.parametrize(
    "command", ["transcribe", "bench", "devices", "run", "listen", "doctor", "models", "config"]
)
def test_every_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(cli.app, [command, "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output


def test_help_loads_nothing_heavy() -> None:
    """`edged --help` must answer at once, also on a board."""
    code = (
        "import sys, edged.cli.main\n"
        "heavy = {'numpy', 'onnxruntime', 'onnx', 'av', 'paho', 'pydantic', 'alsaaudio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert shown.stdout == "[]\n"


def test_the_version_names_what_matters_for_a_report() -> None:
    shown = edged("--version")
    assert shown.returncode == 0
    for words in (f"edged {__version__}", "Python 3.", "onnxruntime ", "tiny-en"):
        assert words in shown.stdout.decode()


def test_speech_becomes_text_and_nothing_else_on_stdout(speech: Path) -> None:
    done = edged("transcribe", str(speech), "--stats")
    assert done.returncode == 0
    assert "influence over her" in done.stdout.decode()
    assert done.stdout.count(b"\n") == 1
    assert b"s of CPU" in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr


def test_raw_pcm_on_standard_input_gives_the_same_events(speech: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(speech, dtype="int16")
    result = edged(
        *("transcribe", "-", "--rate", str(rate), "--format", "events"), stdin=samples.tobytes()
    )
    assert result.returncode == 0
    by_name = edged("transcribe", str(speech), "--format", "events")

    def without_file_names(out: bytes) -> list[object]:
        lines = [json.loads(line) for line in out.splitlines()]
        return [{**line, "file": ""} for line in lines if line["type"] != "ready"]

    assert without_file_names(result.stdout) == without_file_names(by_name.stdout)
    assert {line["type"] for line in map(json.loads, result.stdout.splitlines())} == {
        "ready", "text", "end_text", "step", "turn", "end_of_stream"
    }  # fmt: skip


def test_a_file_on_standard_input_is_read_by_its_header(speech: Path) -> None:
    done = edged("transcribe", "-", stdin=speech.read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == edged("transcribe", str(speech)).stdout


def test_standard_input_that_was_opened_for_writing_is_one_sentence(tmp_path: Path) -> None:
    """`edged transcribe - 0>file`, a slip of the finger, was "a bug in edged"."""
    with (tmp_path / "file").open("wb") as writable:
        done = subprocess.run(
            [*RUN, "transcribe", "-"], stdin=writable, capture_output=True, timeout=300, check=False
        )
    assert done.returncode == 3
    assert done.stderr == b"edged: error: standard input cannot be read: bad file descriptor\n"


def test_a_file_name_may_be_any_bytes(speech: Path, tmp_path: Path) -> None:
    """A name that is not UTF-8, as on disks of old cameras, was "a bug in edged": the binding of
    libsndfile, JSON and standard output take only what is text."""
    name = os.fsencode(tmp_path) + b"/a\xff.flac"
    Path(os.fsdecode(name)).write_bytes(speech.read_bytes())
    odd, shown = os.fsdecode(name), f"{tmp_path}/a\N{REPLACEMENT CHARACTER}.flac"
    done = edged("transcribe", odd, str(speech))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().startswith(f"==> {shown} <==\nHe has")
    done = edged("transcribe", odd, odd + "x", "-f", "events")
    assert (done.returncode, done.stderr.count(b"\n")) == (3, 1)
    assert f"{shown}x cannot be opened".encode() in done.stderr
    files = {json.loads(line)["file"] for line in done.stdout.splitlines()}
    assert files == {shown, shown + "x"}
    done = edged("transcribe", odd, "-o", str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.listdir(os.fsencode(tmp_path / "out")) == [b"a\xff.txt"]


@pytest.mark.parametrize("command", ["transcribe", "bench"])
def test_a_seed_below_zero_is_a_wrong_command_line(command: str) -> None:
    """NumPy has none, and reported it as "a bug in edged"."""
    words = [command, *(["-"] if command == "transcribe" else []), "--seed", "-5"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 2
    assert "greater than or equal to 0" in done.stderr


def test_a_terminal_as_standard_input_is_not_waited_for() -> None:
    screen, terminal = pty.openpty()
    done = subprocess.run(
        [*RUN, "transcribe", "-"], stdin=terminal, capture_output=True, timeout=300, check=False
    )
    os.close(screen)
    os.close(terminal)
    assert done.returncode == 3
    assert b"is no pipe" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["transcribe", "none.wav"], 3, "none.wav cannot be opened: no such file"),
        (["transcribe", "none.wav", "--delay", "9"], 2, "delay_in_frames must be one of 7, 8, 10"),
        (["transcribe", "none.wav", "--temp", "2"], 2, "temp must be from 0 to 1"),
        (
            ["transcribe", "none.wav", "--language", "xx"],
            2,
            "language must be auto or the code of a language",
        ),
        (["transcribe", "none.wav", "--format", "srt", "b.wav"], 2, "--output-dir"),
        (["transcribe", "none.wav", "--rate", "8000"], 2, "--input-format"),
        (["transcribe", "-", "--channels", "0"], 3, "1 to 64 are accepted"),
        (["transcribe", "none.wav", "--models-dir", "/nowhere"], 4, "edged models fetch"),
        (["bench", "--manifest", "none.jsonl"], 5, "none.jsonl cannot be read"),
        (["bench", "--delay", "x"], 2, "--delay must be numbers"),
    ],
)
def test_an_error_is_one_sentence_and_a_documented_exit_code(
    words: list[str], code: int, says: str
) -> None:
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == code
    assert done.stdout == ""
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["transcribe"], ["transcribe", "--dalay", "3"], ["transcrib"]])
def test_a_mistyped_command_line_ends_with_2(words: list[str]) -> None:
    assert CliRunner().invoke(cli.app, words).exit_code == 2


def test_a_bug_is_one_line_with_70_and_its_traceback_on_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = typer.Typer(cls=exits.ErrorReportingGroup, pretty_exceptions_enable=False)
    app.command("other")(lambda: None)

    @app.command()
    def broken() -> None:
        raise KeyError("the bug")

    shown = CliRunner().invoke(app, ["broken"])
    assert shown.exit_code == 70
    assert shown.output.count("\n") == 1
    assert "EDGED_DEBUG=1" in shown.output
    monkeypatch.setenv("EDGED_DEBUG", "1")
    assert "Traceback" in CliRunner().invoke(app, ["broken"]).output


def start(*words: str) -> subprocess.Popen[bytes]:
    """As from a terminal: a shell that runs the tests in the background has Ctrl-C ignored, which
    every process below it would inherit."""
    return subprocess.Popen(
        [*RUN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_events_leave_as_they_happen_and_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    clip = seconds_of_silence(tmp_path / "a.wav", 60)
    process = start("transcribe", clip, "--realtime", "--format", "events")
    assert process.stdout is not None
    kinds = [json.loads(process.stdout.readline())["type"] for _ in range(3)]  # not after a minute
    assert kinds == ["ready", "step", "step"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == b""


def test_a_reader_that_leaves_ends_the_run_quietly(tmp_path: Path) -> None:
    clip = seconds_of_silence(tmp_path / "a.wav", 300)
    process = start("transcribe", clip, "--format", "events")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=300) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_full_disk_is_told_in_a_sentence(speech: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*RUN, "transcribe", str(speech)],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=300,
            check=False,
        )
    assert done.returncode == 5
    assert b"cannot be written: no space left on device" in done.stderr.lower()
    assert done.stderr.count(b"\n") == 1


WRITES = {
    "version": ["--version"],
    "help": ["--help"],
    "help of a command": ["transcribe", "--help"],
    "Rich": ["config", "show"],
    "Rich, JSON": ["config", "show", "--json"],
    "a table": ["models", "list"],
    "Typer": ["models", "list", "--json"],
    "print": ["config", "example"],
    "the title of one of two files": ["transcribe", "{clip}", "{clip}"],
}


@pytest.mark.parametrize("words", WRITES.values(), ids=WRITES)
def test_every_writer_ends_with_5_on_a_full_disk_and_with_141_without_a_reader(
    words: list[str], tmp_path: Path
) -> None:
    """Only the writers of transcribe handled these: all else was "a bug in edged", was silent
    until the interpreter's last flush, or (Rich, where the reader had gone) ended with 1."""
    clip = seconds_of_silence(tmp_path / "a.wav", 0.2)
    command = [*RUN, *(word.format(clip=clip) for word in words)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=300)
    expected = b"edged: error: the result cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (5, expected)
    reader, pipe = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, timeout=300)
    os.close(pipe)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_closed_standard_output_takes_no_result_either() -> None:
    """`>&-`: Python then has no sys.stdout at all, which transcribe met as "a bug in edged"."""
    for words in (["--version"], ["transcribe", "none.wav", "-f", "events"]):
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *RUN, *words], stderr=subprocess.PIPE, timeout=300
        )
        expected = b"edged: error: the result cannot be written: Bad file descriptor\n"
        assert (done.returncode, done.stderr) == (5, expected)


def test_on_a_terminal_words_appear_while_the_speech_goes_on(speech: Path) -> None:
    """Standard input stays open until they are on the screen: the end did not bring them."""
    samples, rate = soundfile.read(speech, dtype="int16")
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [*RUN, "transcribe", "-", "--rate", str(rate)],
        stdin=subprocess.PIPE,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(terminal)
    assert process.stdin is not None
    process.stdin.write(samples[: 3 * rate].tobytes())
    process.stdin.flush()
    assert b"known" in read_until(screen, b"known")
    process.stdin.write(samples[3 * rate :].tobytes())
    process.stdin.close()
    rest = read_until(screen, None)
    os.close(screen)
    assert process.wait(300) == 0
    assert b"influence over her." in rest


def read_until(terminal: int, words: bytes | None) -> bytes:
    """What is written to the terminal, until `words` are there; None: until it is closed."""
    seen = b""
    while words is None or words not in seen:
        ready, _, _ = select.select([terminal], [], [], 300)
        assert ready, f"nothing more came after {seen!r}"
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
    return seen


def test_the_package_runs_as_a_module() -> None:
    """`python -m edged` ended with "No module named edged.__main__"."""
    shown = subprocess.run(
        [sys.executable, "-m", "edged", "--version"], capture_output=True, check=True, text=True
    )
    assert shown.stdout.startswith(f"edged {__version__}\n")
