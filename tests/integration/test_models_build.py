"""Built graphs are whole or not there: stamps, crashes, crowds and full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edged.cli import model_table
from edged.errors import ModelError
from edged.export import moonshine
from edged.models import build as built
from edged.models.catalogue import Catalogue
from edged.models.fetch import fetch
from edged.models.store import ModelStore
from edged.stt.moonshine.build_version import GRAPH_FILES
from edged.stt.moonshine.registration import FAMILY
from tests.support.model_sources import Web, catalogue, entry, file_lines, web

VOICE = os.urandom(700_000)


@pytest.fixture
def site() -> Iterator[Web]:
    with web() as running:
        yield running


def one_file(folder: Path, url: str) -> Catalogue:
    return catalogue(folder, entry("toy", file_lines("a.bin", VOICE, url=url)))


# ---- built graphs -------------------------------------------------------------------------------
def recogniser(folder: Path, weights: bytes = b"weights") -> Catalogue:
    """A toy recogniser with its loose files in `stick`."""
    (folder / "stick").mkdir(exist_ok=True)
    (folder / "stick/a").write_bytes(VOICE)
    (folder / "stick/w").write_bytes(weights)
    return catalogue(
        folder,
        entry(
            "talk",
            file_lines("encoder_model.ort", VOICE, url="https://h/a"),
            kind="recogniser",
            more='streaming_encoder = "layers"\narchitecture = "moonshine-tiny"',
        ),
        entry("layers", file_lines("w.npz", weights, url="https://h/w"), kind="weights"),
    )


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A builder that writes small files, and the folders it was asked to write."""
    asked: list[Path] = []

    def build(upstream: Path, out: Path, streaming_encoder: Path | None, _: str) -> None:
        asked.append(out)
        assert streaming_encoder is not None
        for name in GRAPH_FILES:
            (out / name).write_bytes((upstream / "encoder_model.ort").read_bytes()[:100])

    monkeypatch.setattr(moonshine, "build", build)
    return asked


def problem(folder: Path, toys: Catalogue) -> str | None:
    return built.quick_check(ModelStore(folder), toys, toys.get("talk"))


def test_graphs_are_built_once_and_again_when_weights_or_builder_change(
    tmp_path: Path, builder: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    toys = recogniser(tmp_path)
    for _ in range(2):
        fetch(["talk"], tmp_path / "m", tmp_path / "stick", catalogue=toys)
    assert (len(builder), problem(tmp_path / "m", toys)) == (1, None)

    toys = recogniser(tmp_path, weights=b"better weights")
    assert "from other weights" in str(problem(tmp_path / "m", toys))
    fetch(["talk"], tmp_path / "m", tmp_path / "stick", catalogue=toys)
    assert (len(builder), problem(tmp_path / "m", toys)) == (2, None)

    newer = replace(FAMILY, build_version=1000)
    monkeypatch.setattr("edged.models.build.family_of", lambda _: newer)
    assert "another version of edged" in str(problem(tmp_path / "m", toys))
    fetch(["talk"], tmp_path / "m", tmp_path / "stick", catalogue=toys)
    assert (len(builder), problem(tmp_path / "m", toys)) == (3, None)


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda graphs: (graphs / "built.json").unlink(), "no valid built.json"),
        (lambda graphs: (graphs / "built.json").write_text("{"), "no valid built.json"),
        (lambda graphs: (graphs / "built.json").write_text("[]"), "no valid built.json"),
        (lambda graphs: (graphs / "cross.onnx").unlink(), "cross.onnx is missing"),
        (lambda graphs: (graphs / "cross.onnx").write_bytes(b"x"), "cross.onnx is damaged: 1"),
    ],
)
def test_a_folder_of_graphs_that_is_not_whole_is_named_and_built_again(
    tmp_path: Path, harm: Callable[[Path], object], said: str
) -> None:
    toys = recogniser(tmp_path)
    fetch(["talk"], tmp_path / "m", tmp_path / "stick", catalogue=toys)
    harm(tmp_path / "m/talk/graphs")
    assert said in str(problem(tmp_path / "m", toys))
    fetch(["talk"], tmp_path / "m", tmp_path / "stick", catalogue=toys)
    assert problem(tmp_path / "m", toys) is None


@pytest.mark.usefixtures("builder")
def test_a_graph_with_a_flipped_bit_is_found_by_its_hash(tmp_path: Path) -> None:
    toys = recogniser(tmp_path)
    fetch(["talk"], tmp_path / "m", tmp_path / "stick", catalogue=toys)
    path = tmp_path / "m/talk/graphs/cross.onnx"
    path.write_bytes(bytes(path.stat().st_size))
    assert problem(tmp_path / "m", toys) is None
    said = built.check(ModelStore(tmp_path / "m"), toys, toys.get("talk"))
    assert "cross.onnx is damaged" in str(said)


def test_files_that_the_builder_cannot_read_are_one_sentence(tmp_path: Path) -> None:
    toys = recogniser(tmp_path)
    with pytest.raises(
        ModelError, match=r"no streaming graphs can be built from the files of talk"
    ):
        fetch(["talk"], tmp_path / "m", tmp_path / "stick", catalogue=toys)
    assert not (tmp_path / "m/talk/graphs").exists()
    assert not list((tmp_path / "m/talk").glob(".*"))


# ---- killed, crowded, full ----------------------------------------------------------------------
_RUN = """
import sys
from pathlib import Path
from edged.export import moonshine
from edged.stt.moonshine.build_version import GRAPH_FILES
from edged.models.catalogue import read
from edged.models.fetch import fetch

def build(upstream, out, streaming_encoder, language):
    for name in GRAPH_FILES:
        (out / name).write_bytes(b"graph")
        if "die" in sys.argv:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)

moonshine.build = build
folder = Path(sys.argv[1])
stick = folder / "stick" if (folder / "stick").exists() else None
fetch([sys.argv[2]], folder / "m", stick, catalogue=read(folder / "catalogue.toml"))
"""


def run(folder: Path, *words: str) -> subprocess.Popen[str]:
    asked = [sys.executable, "-c", _RUN, str(folder), *words]
    return subprocess.Popen(asked, stderr=subprocess.PIPE, text=True)


def test_killed_while_it_builds_nothing_is_loadable_and_the_next_run_completes_it(
    tmp_path: Path, builder: list[Path]
) -> None:
    toys = recogniser(tmp_path)
    killed = run(tmp_path, "talk", "die")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "m/talk").glob(".graphs.*.tmp/*.onnx"))
    assert "not built" in str(problem(tmp_path / "m", toys))
    fetch(["talk"], tmp_path / "m", tmp_path / "stick", catalogue=toys)
    assert problem(tmp_path / "m", toys) is None
    assert not list((tmp_path / "m/talk").glob(".*"))


def test_killed_while_it_downloads_the_next_run_goes_on(site: Web, tmp_path: Path) -> None:
    site.pace_s = 0.2
    toys = one_file(tmp_path, site.give("/a", VOICE))
    running = run(tmp_path, "toy")
    part = tmp_path / "m/downloads/toy-a.bin.part"
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 100_000):
        assert time.monotonic() < until
        time.sleep(0.02)
    running.kill()
    running.communicate(timeout=60)
    assert not (tmp_path / "m/toy").exists()
    site.pace_s = 0
    fetch(["toy"], tmp_path / "m", catalogue=toys)
    assert int(str(site.ranges[-1])[6:-1]) > 90_000
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE


def test_two_at_once_take_turns_and_fetch_once(site: Web, tmp_path: Path) -> None:
    site.pace_s = 0.05
    one_file(tmp_path, site.give("/a", VOICE))
    both = [run(tmp_path, "toy"), run(tmp_path, "toy")]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert site.paths == ["/a"]
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failing write is put in by hand: a full disk cannot be had without privileges."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edged.models.fetch.shutil.copyfile", full)
    toys = recogniser(tmp_path)
    with pytest.raises(
        ModelError, match=r"talk/encoder_model\.ort cannot be written because the disk is full"
    ):
        fetch(["talk"], tmp_path / "m", tmp_path / "stick", catalogue=toys)
    assert not list((tmp_path / "m").glob("*/*"))


def test_a_directory_of_someone_else_is_one_sentence(tmp_path: Path) -> None:
    toys = recogniser(tmp_path)
    with pytest.raises(ModelError, match="cannot be written") as caught:
        fetch(["talk"], Path("/proc/models"), tmp_path / "stick", catalogue=toys)
    assert "\n" not in str(caught.value)


# ---- list ---------------------------------------------------------------------------------------
@pytest.mark.usefixtures("builder")
def test_the_list_says_what_is_here(tmp_path: Path) -> None:
    toys = recogniser(tmp_path)

    def states() -> dict[str, str]:
        return {row.name: row.state for row in model_table.rows(tmp_path / "m", toys)}

    assert states() == {"talk": "not fetched", "layers": "not fetched"}
    fetch(["talk"], tmp_path / "m", tmp_path / "stick", catalogue=toys)
    assert states() == {"talk": "ready", "layers": "ready"}
    (tmp_path / "m/layers/w.npz").write_bytes(b"")
    (tmp_path / "m/talk/graphs/built.json").unlink()
    assert states() == {"talk": "damaged", "layers": "damaged"}
