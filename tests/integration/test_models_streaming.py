"""Moonshine's streaming models are fetched from a server in upstream's layout, verified and loaded.

The server is a local one, and the files are of the same form, with random weights: the published
ones cannot be had where edged is tested.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from rich.console import Console

from edged.errors import ModelError
from edged.languages import AUTO
from edged.models import build
from edged.models.catalogue import Catalogue, Entry, File, shipped
from edged.models.choice import choose
from edged.models.download import Transport
from edged.models.fetch import fetch
from edged.models.reporter import Reporter
from edged.models.store import FileState, ModelStore
from edged.models.verify import verify
from edged.stt.families import family_of
from tests.support.model_sources import QUICK, Web, sha, web
from tests.support.mosquitto import certificates
from tests.support.streaming_models import ENGLISH, OTHER, TOYS, write_model

UPSTREAM = "https://download.moonshine.ai"
ENTRIES = [e for e in shipped().entries if e.architecture == "moonshine-streaming"]
NAMES = [entry.name for entry in ENTRIES]
TRUSTING = replace(QUICK, verify=str(certificates() / "ca.crt"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of files for each entry. Those of one size and vocabulary are the same."""
    made: dict[tuple[str, int], Path] = {}
    found = {}
    for entry in ENTRIES:
        _, size, language = entry.name.split("-")
        kind = (size, ENGLISH if language == "en" else OTHER)
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("published")
            shape = TOYS["tiny" if size == "tiny" else "small"]
            write_model(made[kind], replace(shape, vocabulary=kind[1]))
        found[entry.name] = made[kind]
    return found


@pytest.fixture
def site(published: dict[str, Path]) -> Iterator[Web]:
    """An HTTPS server with upstream's paths: model/<id>/<revision>/<file>."""
    with web(certificates()) as running:
        for entry in ENTRIES:
            for file in entry.files:
                path = str(file.url).removeprefix(UPSTREAM)
                running.give(path, (published[entry.name] / file.name).read_bytes())
        yield running


def crc32c(data: bytes) -> str:
    checksum: Any = google_crc32c.Checksum(data)  # type: ignore[no-untyped-call]
    return base64.b64encode(checksum.digest()).decode()


def local(site: Web) -> Catalogue:
    """The shipped entries with this server's address, sizes and checksums; a file has a SHA-256
    where the shipped entry has one."""

    def file_here(file: File) -> File:
        path = str(file.url).removeprefix(UPSTREAM)
        data = site.pages[path]
        return replace(
            file,
            url=site.url + path,
            size=len(data),
            sha256=sha(data) if file.sha256 else None,
            crc32c=crc32c(data),
        )

    def entry_here(entry: Entry) -> Entry:
        return replace(entry, files=tuple(map(file_here, entry.files)))

    return Catalogue(tuple(map(entry_here, ENTRIES)))


def recorded(folder: Path, catalogue: Catalogue, *names: str, transport: Transport) -> str:
    """Fetches, and returns what was reported."""
    console = Console(file=open(os.devnull, "w"), record=True, width=300)  # noqa: SIM115
    fetch(
        names,
        folder,
        catalogue=catalogue,
        transport=transport,
        allow_unverified=True,
        reporter=Reporter(console),
    )
    return console.export_text()


def test_all_13_published_models_have_an_entry() -> None:
    sizes = {"tiny": "en de es ja ar tl vi zh", "small": "en de es ja", "medium": "en"}
    expected = {f"streaming-{s}-{code}" for s, codes in sizes.items() for code in codes.split()}
    assert set(NAMES) == expected
    assert len(NAMES) == 13
    for entry in ENTRIES:
        assert entry.licence == "MIT"
        assert not entry.non_commercial
        assert not entry.tried
        assert not entry.default
        assert len(entry.files) == 8
        assert all(file.size and file.crc32c for file in entry.files)


def test_the_old_non_commercial_models_stand_behind_the_free_ones() -> None:
    names = [entry.name for entry in shipped().entries]
    for name in ("tiny-ja", "tiny-ko"):
        assert shipped().get(name).non_commercial
        assert names.index(name) > max(map(names.index, NAMES))


@pytest.mark.parametrize("language", ["de", "es", "ja", "ar", "tl", "vi", "zh"])
def test_auto_prefers_an_installed_streaming_model_but_not_for_english(language: str) -> None:
    tiny = f"streaming-tiny-{language}"
    others = ["tiny-en", "tiny-ja", "whisper-base", "whisper-small", "streaming-medium-en"]
    assert choose(shipped(), [*others, tiny], AUTO, language).entry.name == tiny
    assert choose(shipped(), [*others, tiny], AUTO, "en").entry.name == "tiny-en"
    if language in ("de", "es", "ja"):
        small = tiny.replace("tiny", "small")
        assert choose(shipped(), [*others, tiny, small], AUTO, language).entry.name == small


@pytest.mark.parametrize("name", NAMES)
def test_each_model_is_fetched_verified_and_loaded(site: Web, tmp_path: Path, name: str) -> None:
    here = local(site)
    said = recorded(tmp_path, here, name, transport=TRUSTING)
    entry, store = here.get(name), ModelStore(tmp_path)
    weak = [file.name for file in entry.files if not file.sha256]
    assert f"{name}: checked " in said
    assert ("by size and CRC-32C alone" in said) == bool(weak)
    assert all(file_name in said for file_name in weak)
    assert all(store.check(entry, file) is FileState.READY for file in entry.files)
    assert build.check(store, here, entry) is None
    family = family_of(entry.architecture)
    model: Any = family.load(tmp_path / name, store.graphs(entry), entry.language, 1)
    assert model.graphs.cached_encoder
    assert model.graphs.reads_trees
    assert list(model.languages) == [entry.language]
    wide = 13.0 if entry.language in ("ar", "ja", "zh") else 6.5
    assert model.languages[entry.language].tokens_per_s == wide
    requests = len(site.paths)
    recorded(tmp_path, here, name, transport=TRUSTING)
    assert len(site.paths) == requests  # nothing is fetched twice


def test_a_server_whose_certificate_is_not_trusted_gives_nothing(site: Web, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"certificate of https://127\.0\.0\.1.* not trusted"):
        recorded(tmp_path, local(site), "streaming-tiny-en", transport=QUICK)


def test_a_download_that_broke_off_is_resumed(site: Web, tmp_path: Path) -> None:
    site.mishaps = ["cut", 503, 503, 503]
    here = local(site)
    with pytest.raises(ModelError, match="Run the same command again"):
        recorded(tmp_path, here, "streaming-tiny-de", transport=TRUSTING)
    recorded(tmp_path, here, "streaming-tiny-de", transport=TRUSTING)
    assert site.ranges[4] is not None


def test_a_model_without_sha256_is_not_fetched_unasked(site: Web, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be verified.*--allow-unverified"):
        fetch(["streaming-tiny-zh"], tmp_path, catalogue=local(site), transport=TRUSTING)
    fetch(["streaming-tiny-es"], tmp_path, catalogue=local(site), transport=TRUSTING)


@pytest.mark.parametrize("name", ["streaming-tiny-en", "streaming-tiny-vi"])
@pytest.mark.parametrize("change", ["same length", "longer"])
def test_a_file_that_changed_at_the_source_is_refused_with_a_sentence(
    site: Web, tmp_path: Path, name: str, change: str
) -> None:
    """By its SHA-256, or by its CRC-32C where there is none."""
    here = local(site)
    path = str(here.get(name).files[3].url).removeprefix(site.url)
    data = site.pages[path]
    site.pages[path] = data[:-1] + b"x" if change == "same length" else data + b"x"
    with pytest.raises(ModelError, match="has changed since") as caught:
        recorded(tmp_path, here, name, transport=TRUSTING)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / name / here.get(name).files[3].name).exists()


def test_a_file_of_another_form_is_refused_when_it_is_fetched(site: Web, tmp_path: Path) -> None:
    """The right bytes by their checksum, but not what edged can run: the file and the difference
    are named, and no graphs are built."""
    here = local(site)
    entry = here.get("streaming-small-es")
    file = next(f for f in entry.files if f.name == "adapter.ort")
    other = next(f for f in here.get("streaming-tiny-es").files if f.name == "adapter.ort")
    foreign = replace(other, url=other.url)
    files = tuple(foreign if f is file else f for f in entry.files)
    mixed = Catalogue((replace(entry, files=files),))
    with pytest.raises(ModelError, match=r"adapter\.ort is not of the form .* instead of"):
        recorded(tmp_path, mixed, entry.name, transport=TRUSTING)
    assert not (tmp_path / entry.name / "graphs").exists()


def test_verify_checks_every_file_the_graphs_and_whether_speech_is_transcribed(
    site: Web, tmp_path: Path
) -> None:
    """Random weights are whole and equal to upstream's, but make nonsense of the sample speech."""
    here = local(site)
    recorded(tmp_path, here, "streaming-tiny-en", transport=TRUSTING)
    checks = list(verify(["streaming-tiny-en"], tmp_path, catalogue=here))
    *right, words = checks
    assert all(check.ok for check in right), right
    assert sum("what the decoder attends to differs by 0.0%" in c.message for c in right) == 5
    assert words.what == "words"
    assert words.ok is False
    assert "are wrong (at most 35% is allowed); one was recognised as" in words.message


def test_verify_names_a_damaged_file_and_says_where_there_is_no_sample_speech(
    site: Web, tmp_path: Path
) -> None:
    here = local(site)
    recorded(tmp_path, here, "streaming-tiny-tl", transport=TRUSTING)
    *_, words = verify(["streaming-tiny-tl"], tmp_path, catalogue=here)
    assert words.ok is None
    assert "there is no sample speech in tl" in words.message
    (tmp_path / "streaming-tiny-tl/decoder_kv.ort").write_bytes(b"x")
    checks = {c.what: c for c in verify(["streaming-tiny-tl"], tmp_path, catalogue=here)}
    assert "decoder_kv.ort is damaged" in checks["decoder_kv.ort"].message
    assert "edged models fetch streaming-tiny-tl" in checks["decoder_kv.ort"].message
