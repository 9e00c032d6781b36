"""One file over HTTP: resumed, tried again, never trusted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.errors import ModelError
from edged.models.download import RefusedError, bare, download
from tests.support.model_sources import QUICK, Web, web

DATA = os.urandom(1_500_000)


@pytest.fixture
def site() -> Iterator[Web]:
    with web() as running:
        running.give("/model.bin", DATA)
        yield running


def fetch(site: Web, part: Path, size: int | None = len(DATA)) -> list[tuple[int, int | None]]:
    progress: list[tuple[int, int | None]] = []
    download(
        site.url + "/model.bin",
        part,
        QUICK,
        lambda done, total: progress.append((done, total)),
        size,
    )
    return progress


def test_a_file_arrives_whole_and_its_progress_is_told(site: Web, tmp_path: Path) -> None:
    progress = fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == DATA
    assert progress[0] == (0, len(DATA))
    assert progress[-1] == (len(DATA), len(DATA))


def test_a_cut_connection_is_gone_on_from_with_a_range(site: Web, tmp_path: Path) -> None:
    site.mishaps = ["cut", "cut"]
    fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == DATA
    starts = [int(str(asked)[6:-1]) for asked in site.ranges[1:]]
    assert site.ranges[0] is None
    assert starts == pytest.approx([len(DATA) / 2, len(DATA) * 3 / 4], abs=40_000)


def test_what_an_earlier_run_left_is_gone_on_from(site: Web, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA[:1000])
    progress = fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == DATA
    assert site.ranges == ["bytes=1000-"]
    assert progress[0] == (1000, len(DATA))


def test_a_part_that_is_complete_already_is_kept(site: Web, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA)
    fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == DATA


def test_a_server_without_ranges_gives_it_from_the_start(site: Web, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA[:1000])
    site.mishaps = ["norange"]
    fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == DATA


def test_a_range_that_was_not_asked_for_is_not_appended(site: Web, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA[:1000])
    site.mishaps = ["shift"]
    fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == DATA


def test_a_part_longer_than_the_file_is_started_again(site: Web, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA + b"more")
    fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == DATA


@pytest.mark.parametrize("mishap", [503, 429, 500, 408, "stall"])
def test_a_passing_fault_is_tried_again(site: Web, tmp_path: Path, mishap: int | str) -> None:
    site.mishaps = [mishap]
    fetch(site, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == DATA


def test_a_server_that_stays_broken_is_given_up_and_what_came_is_kept(
    site: Web, tmp_path: Path
) -> None:
    site.mishaps = ["cut", 503, 503, 503]
    with pytest.raises(ModelError, match=r"503.*Run the same command") as caught:
        fetch(site, tmp_path / "part")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "part").stat().st_size == pytest.approx(len(DATA) / 2, abs=20_000)


def test_attempts_are_counted_only_while_nothing_arrives(site: Web, tmp_path: Path) -> None:
    site.give("/model.bin", DATA * 4)
    site.mishaps = ["cut"] * (QUICK.attempts + 1)  # halves: the last still brings over 40 kB
    download(site.url + "/model.bin", tmp_path / "part", QUICK, lambda *_: None)
    assert (tmp_path / "part").read_bytes() == DATA * 4


def test_a_missing_page_is_said_at_once(site: Web, tmp_path: Path) -> None:
    site.mishaps = [404]
    with pytest.raises(
        ModelError, match=r"/model\.bin could not be downloaded: the server answered 404"
    ):
        fetch(site, tmp_path / "part")
    assert len(site.paths) == 1


def test_a_wrong_password_is_told_apart(site: Web, tmp_path: Path) -> None:
    site.password = "user:secret"
    with pytest.raises(RefusedError, match="401"):
        fetch(site, tmp_path / "part")


def test_another_length_than_the_catalogue_says_is_refused_before_it_is_read(
    site: Web, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="1500000 bytes, but the catalogue says 10"):
        fetch(site, tmp_path / "part", size=10)
    assert not (tmp_path / "part").exists()


def test_no_server_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"could not be downloaded: the connection broke"
    ) as caught:
        download("http://127.0.0.1:9/x.bin", tmp_path / "part", QUICK, lambda *_: None)
    assert "\n" not in str(caught.value)


def test_a_directory_that_may_not_be_written_is_one_sentence(site: Web) -> None:
    with pytest.raises(ModelError, match="cannot be written"):
        download(site.url + "/model.bin", Path("/proc/nowhere/part"), QUICK, lambda *_: None)


def test_a_full_disk_is_one_sentence(site: Web) -> None:
    with pytest.raises(ModelError, match="the disk is full"):
        download(site.url + "/model.bin", Path("/dev/full"), QUICK, lambda *_: None)


def test_secrets_of_an_address_are_not_shown() -> None:
    assert bare("https://me:pass@host:8443/a/b.whl?token=x#y") == "https://host:8443/a/b.whl"
