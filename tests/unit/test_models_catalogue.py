"""The catalogue: the shipped one is right, and errors in one are named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged import resources
from edged.audio.file_capture import SAMPLE, device_files
from edged.errors import ModelError
from edged.models.catalogue import read, shipped
from edged.models.samples import samples
from edged.models.store import SYSTEM_DIR, default_models_dir, sha256
from tests.support.model_sources import catalogue, entry, file_lines


def test_the_default_set_is_complete_and_can_be_verified() -> None:
    chosen = shipped().choose([])
    assert {e.kind for e in chosen} == {"recogniser", "weights", "vad", "turn"}
    assert all(not e.non_commercial and e.tried for e in chosen)
    assert all(file.size and file.sha256 for e in chosen for file in e.files)


def test_every_entry_says_its_licence_and_non_commercial_ones_say_so_in_words() -> None:
    for model in shipped().entries:
        assert model.licence
        assert model.licence_note
        assert ("non-commercial" in model.licence_note) == model.non_commercial


def test_shipped_files_are_the_ones_of_the_catalogue() -> None:
    local = [file for e in shipped().entries for file in e.files if file.local]
    assert local
    for file in local:
        path = resources.models_data() / str(file.local)
        assert (path.stat().st_size, sha256(path)) == (file.size, file.sha256)


def test_every_sample_is_there_with_licence_and_source() -> None:
    notes = (resources.sample_speech() / "README.md").read_text()
    assert len(samples()) >= 4
    assert all(sample.language == "en" for sample in samples())
    assert {sample.language for sample in samples(None)} == {"en", "de", "fr", "es", "pt"}
    free = ("MIT", "Apache-2.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC0-1.0", "public domain")
    for sample in samples(None):
        assert sha256(sample.path) == sample.sha256
        assert sample.licence in free
        folder = resources.played_samples(sample.language)
        assert sample.path in device_files(SAMPLE, folder)
        assert sample.source
        assert sample.text in notes


def test_a_recogniser_brings_the_weights_it_is_built_with() -> None:
    assert [e.name for e in shipped().choose(["tiny-en"])] == ["encoder-streaming-1", "tiny-en"]


def test_an_unknown_name_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(ModelError, match=r"no model 'tiny-xx'.*tiny-en.*silero"):
        shipped().get("tiny-xx")
    with pytest.raises(ModelError, match=r"'silero' is not a speech model.*tiny-en"):
        shipped().recogniser("silero")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('name = "../x"\nurl = "https://h/x"', "may hold letters"),
        ('name = "x"\nurl = "http://h/x"', "only https"),
        ('name = "x"\nurl = "file:///etc/passwd"', "only https"),
        ('name = "x"\nurl = "https://h/x"\nsha256 = "12"', "64 lower-case hex"),
        ('name = "x"', "a member, a url or a local file"),
        ('name = "x"\nmember = "a/x"', "model.package"),
        ('name = "x"\nlocal = "/etc/passwd"', "may hold letters"),
        ('url = "https://h/x"', "'name' is missing"),
    ],
)
def test_a_wrong_entry_is_named_with_its_fault(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(ModelError, match=f"toy.*{re.escape(message)}"):
        catalogue(tmp_path, entry("toy", lines))


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    toy = entry("toy", file_lines("x", b"x", url="https://h/x"))
    with pytest.raises(ModelError, match="toy occurs twice"):
        catalogue(tmp_path, toy, toy)


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("any") / "catalogue.toml"
    path.write_text(text, encoding="utf-8")
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
        read(path)
    except (ModelError, tomllib.TOMLDecodeError):
        pass


def test_the_models_directory_is_the_setting_else_this_checkouts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGED_MODELS_DIR", str(tmp_path))
    assert default_models_dir() == tmp_path
    monkeypatch.delenv("EDGED_MODELS_DIR")
    assert default_models_dir() == resources.models_data() / "built"


def test_an_installed_edged_uses_the_systems_directory_else_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EDGED_MODELS_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("edged.resources.checkout", lambda: None)
    monkeypatch.setattr("edged.models.store.SYSTEM_DIR", tmp_path / "var")
    assert default_models_dir() == tmp_path / "data" / "edged" / "models"
    (tmp_path / "var").mkdir()
    assert default_models_dir() == tmp_path / "var"
    assert Path("/var/lib/edged/models") == SYSTEM_DIR


def test_a_user_who_may_not_look_at_the_services_models_has_models_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed: Any
) -> None:
    """/var/lib/edged is the service's alone (0750): what Path.is_dir raises for a folder below it
    made `edged --version` and most commands "a bug in edged" for everybody but root."""
    monkeypatch.delenv("EDGED_MODELS_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("edged.resources.checkout", lambda: None)
    monkeypatch.setattr("edged.models.store.SYSTEM_DIR", tmp_path / "var/models")
    (tmp_path / "var/models").mkdir(parents=True)
    with closed(tmp_path / "var"):
        assert default_models_dir() == tmp_path / "data" / "edged" / "models"


def test_an_installed_edged_has_all_that_a_checkout_has() -> None:
    """The wheel carries files of models/ one by one, as `built/` must stay out of it."""
    project = resources.checkout()
    assert project is not None
    build = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    carried = build["targets"]["wheel"]["force-include"]
    local = {f"models/{file.local}" for e in shipped().entries for file in e.files if file.local}
    assert local | {"models/catalogue.toml", "models/samples", "models/licences"} <= set(carried)
    assert all((project / source).exists() for source in carried)
