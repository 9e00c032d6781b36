"""`edged models verify`: every hash, and the built graphs against upstream's own on real speech."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from edged.errors import ModelError
from edged.models import build, parity
from edged.models.catalogue import Catalogue, Entry, shipped
from edged.models.samples import samples
from edged.models.store import MEND, State, Store, default_models_dir, sha256

# Measured on the four samples: 3.2 to 3.9 %; 2.4 % between two processors with one and the same
# graph; 3.5 % between upstream and the same weights in float. It is the rounding of activations to
# uint8. The streamed pass's encoder, which is a different one, is 13 % away and more.
STATES_MAY_DIFFER = 0.08  # relative RMS
# By the same rounding logits differ by up to 1.0 between processors with one and the same graph, so
# that of two tokens that are nearly as likely either may win.
MAY_BE_BEHIND = 1.0  # in log probability


@dataclass(frozen=True)
class Check:
    """`ok` None: could not be looked at because of an earlier problem, or is not needed."""

    model: str
    what: str
    ok: bool | None
    said: str


def verify(
    names: list[str] | None = None,
    models_dir: Path | None = None,
    threads: int = 1,
    catalogue: Catalogue | None = None,
) -> Iterator[Check]:
    """Checks one by one, as they are done. No name: all models that are there, and the default
    set."""
    catalogue = catalogue or shipped()
    store = Store(models_dir or default_models_dir())
    for entry in _which(store, catalogue, names or []):
        right = True
        for file in entry.files:
            state = store.check(entry, file)
            right &= state is State.READY
            path = store.path(entry, file)
            said = (
                "SHA-256 is right" if state is State.READY else f"{path} is {state.value}: {MEND}"
            )
            yield Check(entry.name, file.name, state is State.READY, said)
        if entry.kind == "recogniser":
            yield from _recogniser(store, catalogue, entry, right, threads)


def _which(store: Store, catalogue: Catalogue, names: list[str]) -> list[Entry]:
    if names:
        return catalogue.choose(names)
    # Not Path.is_dir, which raises where this user may not look.
    there = [e.name for e in catalogue.entries if os.path.isdir(store.root / e.name)]
    default = [e.name for e in catalogue.choose([])]
    return catalogue.choose(list(dict.fromkeys([*default, *there])))


def _recogniser(
    store: Store, catalogue: Catalogue, entry: Entry, files_right: bool, threads: int
) -> Iterator[Check]:
    problem = build.check(store, catalogue, entry)
    said = f"{problem}: {MEND}" if problem else "stamp and every SHA-256 are right"
    yield Check(entry.name, "graphs", not problem, said)
    if problem or not files_right:
        yield Check(entry.name, "speech", None, "not compared: mend the files first")
        return
    if entry.language != "en":
        yield Check(entry.name, "speech", None, "not compared: the sample speech is English")
        return
    yield from _speech(store, entry, threads)


def _speech(store: Store, entry: Entry, threads: int) -> Iterator[Check]:
    """Upstream's tokens are as good as the likeliest to our graphs, their encoder states close."""
    for sample in samples():
        if sha256(sample.path) != sample.sha256:
            raise ModelError(f"{sample.path}, a part of edged, is damaged: install edged again")
        audio: NDArray[np.float32]
        audio, _ = soundfile.read(sample.path, dtype="float32")
        theirs = parity.upstream(store.root / entry.name, audio, threads)
        ours = parity.rebuilt(store.graphs(entry), audio, theirs.tokens, threads)
        apart, behind = parity.apart(theirs.states, ours.states), float(ours.behind.max())
        yield Check(
            entry.name,
            sample.path.name,
            apart <= STATES_MAY_DIFFER and behind <= MAY_BE_BEHIND,
            f"{_agreement(ours.behind)} (none may be more than {MAY_BE_BEHIND:.1f} behind);"
            f" encoder states {apart:.1%} apart (at most {STATES_MAY_DIFFER:.0%})",
        )


def _agreement(behind: NDArray[np.float32]) -> str:
    close = int(np.count_nonzero(behind))
    if not close:
        return f"all {len(behind)} tokens of upstream's are ours"
    return (
        f"{len(behind) - close} of {len(behind)} tokens of upstream's are ours,"
        f" the rest is up to {behind.max():.2f} behind"
    )
