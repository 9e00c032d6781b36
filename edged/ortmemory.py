"""Keeps the process small between its large moments.

A second pass over 15 s needs tens of megabytes for an instant. glibc would keep them for the next
time, and by default it raises its own threshold for giving memory back each time they are used.
"""

from __future__ import annotations

import ctypes
import functools

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
# A block that is mapped costs a page fault for every 4 kB, each time. Where all blocks of an update
# are smaller it takes half the time, at the end of a segment of 16 s; with 1 MB a second pass over
# 20 s left 25 MB of the heap in pieces.
_LARGE = 640 << 10  # bytes: blocks of this size are mapped, and unmapped when they are freed
_SPARE = 1 << 20  # bytes of free memory that may stay at the end of the heap


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libc.so.6")
        return library if hasattr(library, "malloc_trim") else None
    except OSError:  # another C library: it manages without us
        return None


def limit_malloc_growth() -> None:
    """Once, before the models are loaded."""
    if library := _glibc():
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_M_TRIM_THRESHOLD, _SPARE)


def release_memory() -> None:
    """Returns free memory to the system: a few milliseconds, so not on the 80 ms path."""
    if library := _glibc():
        library.malloc_trim(0)
