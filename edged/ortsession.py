"""Opens ONNX Runtime sessions, all of them the same way."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import edged  # noqa: F401  (switches ONNX Runtime's telemetry off: before its first import)

import onnxruntime as ort  # isort: skip

from edged.errors import ModelError

RELEASE_MEMORY = ort.RunOptions()  # the arena is empty again when the run ends
RELEASE_MEMORY.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


def options(
    threads: int, exact_int8: bool | None = None, arena: bool = False, in_order: bool = False
) -> ort.SessionOptions:
    """For small graphs run every 80 ms on a board that should stay cool.

    `threads` (1 or 2) work on one node; they sleep between runs instead of spinning. No memory
    arena and no memory pattern: shapes grow from run to run, and an arena keeps the largest ever.
    exact_int8: products of uint8 and int8 are summed in 32 bits here; None: look. arena: have one
    all the same, for runs that end with `GIVING_BACK`. in_order: run the nodes as the file has
    them, not those last that nothing waits for, with all that they need kept until then.
    """
    exact_int8 = has_vnni() if exact_int8 is None else exact_int8
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.enable_cpu_mem_arena = arena
    chosen.enable_mem_pattern = False
    if in_order:
        chosen.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    chosen.log_severity_level = 3  # errors only: they come as exceptions too
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without VNNI, x86 adds pairs of products with int8 weights in 16 bits, which clips. The slower
    # products with uint8 weights do not; by this option ONNX Runtime turns the weights around.
    chosen.add_session_config_entry("session.x64quantprecision", "0" if exact_int8 else "1")
    return chosen


@cache
def has_vnni() -> bool:
    """Of x86 processors alone; others never clip and have no such option."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").split())
    except OSError:
        return False
    return not flags.isdisjoint({"avx512_vnni", "avx_vnni"})


def open_session(
    path: Path, threads: int, arena: bool = False, in_order: bool = False
) -> ort.InferenceSession:
    """`arena`, `in_order`: see `options`. Raises ModelError that names the file and the mending
    command."""
    if not path.is_file():
        raise ModelError(f"{path} is missing: `edged models fetch` mends it")
    try:
        return ort.InferenceSession(
            str(path),
            sess_options=options(threads, arena=arena, in_order=in_order),
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # ONNX Runtime has a class of its own for each kind of broken file
        said = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no reason given"
        raise ModelError(
            f"{path} cannot be loaded by ONNX Runtime {ort.__version__} ({said}):"
            " `edged models fetch` mends a damaged file"
        ) from error
