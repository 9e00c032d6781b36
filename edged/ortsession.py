"""ONNX Runtime sessions, all opened the same way, and the memory that their runs leave behind."""

from __future__ import annotations

import ctypes
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

import edged  # noqa: F401  (switches ONNX Runtime's telemetry off: before its first import)

import onnxruntime as ort  # isort: skip

from edged.errors import ConfigError, ModelError

RELEASE_MEMORY = ort.RunOptions()
"""Run options that empty the session's memory arena when the run ends."""
RELEASE_MEMORY.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

SLOWDOWN = "EDGED_SLOWDOWN"
"""Environment variable: each run of a model takes this many times as long, to try what edged does
on a slower device. A run's CPU time counts, so that other work does not slow it down further."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MMAP_BYTES = 640 << 10  # blocks of this size are mapped, and unmapped when they are freed
_TRIM_BYTES = 1 << 20  # free memory that may stay at the end of the heap


def open_session(
    path: Path, threads: int, arena: bool = False, in_order: bool = False
) -> ort.InferenceSession:
    """Opens one model file on the CPU.

    `threads`, `arena` and `in_order`: see `session_options`. Raises ModelError, which names the
    file and the command that repairs it, if the file is missing or cannot be loaded.
    """
    if not path.is_file():
        raise ModelError(f"{path} is missing. Run `edged models fetch` to repair it.")
    try:
        session = ort.InferenceSession(
            str(path),
            sess_options=session_options(threads, arena=arena, in_order=in_order),
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # ONNX Runtime has a class of its own for each kind of broken file
        text = str(error).strip()
        reason = text.splitlines()[0][:200] if text else "no reason given"
        raise ModelError(
            f"{path} cannot be loaded by ONNX Runtime {ort.__version__} ({reason})."
            " Run `edged models fetch` to repair a damaged file."
        ) from error
    factor = slowdown()
    return session if factor == 1.0 else _SlowSession(session, factor, threads)


def slowdown() -> float:
    """How many times as long each run of a model is to take. Raises ConfigError."""
    text = os.environ.get(SLOWDOWN, "1")
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1.0 <= factor <= 1000.0:
        raise ConfigError(f"{SLOWDOWN} must be a number from 1 to 1000, not {text!r}")
    return factor


class _SlowSession:
    """A session whose runs take `factor` times as long: it sleeps after each of them."""

    def __init__(self, session: ort.InferenceSession, factor: float, threads: int) -> None:
        self._session = session
        self._factor = factor
        # With one thread the run is done by the caller, whose CPU time other work does not change.
        self._clock = time.thread_time if threads == 1 else time.perf_counter

    def run(self, *arguments: Any) -> Any:
        started = self._clock()
        outputs = self._session.run(*arguments)
        time.sleep((self._factor - 1) * max(0.0, self._clock() - started))
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def session_options(
    threads: int, exact_int8: bool | None = None, arena: bool = False, in_order: bool = False
) -> ort.SessionOptions:
    """Returns options for small graphs that run every 80 ms on a device without a fan.

    threads: 1 or 2 threads work on one node; between runs they sleep instead of spinning.
    exact_int8: whether this processor sums products of uint8 and int8 in 32 bits; None finds out.
    arena: keep a memory arena, for runs that are made with `RELEASE_MEMORY`. By default there is
        neither an arena nor a memory pattern: tensor shapes grow from run to run, and an arena
        keeps the largest ever.
    in_order: run the nodes in the order of the file. By default ONNX Runtime runs nodes that
        nothing waits for last, and keeps their inputs until then.
    """
    exact_int8 = has_vnni() if exact_int8 is None else exact_int8
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = arena
    options.enable_mem_pattern = False
    if in_order:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    options.log_severity_level = 3  # errors only: they come as exceptions too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without VNNI, x86 adds pairs of products with int8 weights in 16 bits, which saturates. The
    # slower products with uint8 weights do not. This option makes ONNX Runtime convert the weights.
    options.add_session_config_entry("session.x64quantprecision", "0" if exact_int8 else "1")
    return options


@cache
def has_vnni() -> bool:
    """Whether this x86 processor has 8-bit dot products that do not saturate.

    False on other architectures: they never saturate and have no such option.
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").split())
    except OSError:
        return False
    return not flags.isdisjoint({"avx512_vnni", "avx_vnni"})


def limit_malloc_growth() -> None:
    """Makes glibc return large blocks at once. Call it once, before the models are loaded.

    A second pass over 15 s of speech needs tens of megabytes for an instant. glibc would keep them
    for the next time, and raises its threshold for returning memory each time they are used.
    """
    if library := _glibc():
        library.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def release_memory() -> None:
    """Returns free memory to the system. Takes a few milliseconds: not for the 80 ms path."""
    if library := _glibc():
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """None with another C library, which manages its memory without these calls."""
    try:
        library = ctypes.CDLL("libc.so.6")
        return library if hasattr(library, "malloc_trim") else None
    except OSError:
        return None
