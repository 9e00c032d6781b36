"""Keeps the process from hanging with a sound server that answers neither yes nor no.

pyalsaaudio opens and closes devices while it holds the interpreter's lock, so that such a server
would stop every thread. Before each of the two, a helper thread opens the device through libasound
itself (ctypes releases the lock). A device whose server hangs is not closed until the server
answers again. Kernel cards always answer.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from typing import Any

from edged.logs import log_event

ANSWER_S = 1.5  # how long a sound server may take
_CAPTURE, _NONBLOCK = 1, 1  # snd_pcm_stream_t, SND_PCM_NONBLOCK (alsa/pcm.h)

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_probes: dict[str, threading.Thread] = {}  # by name: one at a time for each device
_unclosed: list[Any] = []


def answers(name: str) -> bool:
    """Whether libasound opens `name`, or refuses to, within ANSWER_S."""
    with _lock:
        probe = _probes.get(name)
        if probe is None:
            probe = threading.Thread(target=_probe, args=(name,), name="alsa-probe", daemon=True)
            _probes[name] = probe
            probe.start()
    probe.join(ANSWER_S)
    return not probe.is_alive()


def _probe(name: str) -> None:
    try:
        library = ctypes.CDLL("libasound.so.2")
        pcm = ctypes.c_void_p()
        if library.snd_pcm_open(ctypes.byref(pcm), name.encode(), _CAPTURE, _NONBLOCK) == 0:
            library.snd_pcm_close(pcm)
    except OSError:  # no libasound: pyalsaaudio reports it
        pass
    finally:
        with _lock:
            _probes.pop(name, None)


def close_later(pcm: Any) -> None:
    """Keeps a device open whose server hangs: to close it, or to free it, would hang too."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(pcm))  # not freed at the end of the process either
    _unclosed.append(pcm)
    log_event(
        _log,
        logging.WARNING,
        "sound-server-hangs",
        "The microphone could not be closed: its sound server does not answer.",
    )


def has_unclosed() -> bool:
    """Whether a device waits to be closed."""
    return bool(_unclosed)


def close_pending(name: str) -> bool:
    """Closes what waits if the server of `name` answers -> whether nothing waits any more."""
    if _unclosed and answers(name):
        while _unclosed:
            pcm = _unclosed.pop()
            pcm.close()
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(pcm))
    return not _unclosed
