"""Memory and temperature are read from the kernel."""

from __future__ import annotations

from pathlib import Path

from edged.daemon.machine import cpu_temp_c, rss_mb


def test_memory_of_this_process_is_plausible() -> None:
    assert 5 < (rss_mb() or 0) < 4000


def test_what_the_kernel_does_not_have_is_none(tmp_path: Path) -> None:
    assert rss_mb(tmp_path / "none") is None
    assert cpu_temp_c(tmp_path) is None


def test_the_temperature_is_that_of_the_processor_even_if_another_zone_is_hotter(
    tmp_path: Path,
) -> None:
    for n, (kind, temp) in enumerate([("gpu", "70000"), ("cpu-thermal", "51234"), ("x", "bad")]):
        zone = tmp_path / f"thermal_zone{n}"
        zone.mkdir()
        (zone / "type").write_text(kind + "\n")
        (zone / "temp").write_text(temp)
    assert cpu_temp_c(tmp_path) == 51.2
