"""`edged bench` in a process of its own, with the real models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edged.bench import measure
from edged.bench.isolated_run import Run, run_isolated
from edged.bench.manifest import Clip
from edged.errors import InputError
from edged.options import Options


def test_a_run_in_a_process_of_its_own_gives_figures_and_reports_progress(speech: Path) -> None:
    """The libraries of the command line counted as 13 MB of the recogniser's memory."""
    clip = Clip("read", speech, "", "read")
    done: list[float] = []
    figures = run_isolated(Run((clip, clip), Options()), done.append)
    assert figures["clips"] == 2
    assert figures["wer"]
    assert 0 < sum(done) <= figures["audio_s"]


def test_an_error_in_that_process_is_raised_here(tmp_path: Path) -> None:
    missing = Clip("none", tmp_path / "none.wav", "", "read")
    with pytest.raises(InputError, match=r"none\.wav"):
        run_isolated(Run((missing,), Options()), lambda seconds: None)


def test_the_process_does_not_import_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m` looks there first: with a json.py in it the run ended early."""
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        run_isolated(Run((Clip("none", tmp_path / "none.wav"),), Options()), lambda seconds: None)


def test_a_process_has_its_own_peak_and_not_that_of_its_parent() -> None:
    """`ru_maxrss` outlives exec: a child that had used 14 MB reported the 313 MB of its parent."""
    child = "from edged.bench.measure import peak_rss; print(peak_rss())"
    large = np.ones(400_000_000, np.int8)
    peak = int(subprocess.check_output([sys.executable, "-P", "-c", child]))
    assert peak < len(large) < measure.peak_rss()
