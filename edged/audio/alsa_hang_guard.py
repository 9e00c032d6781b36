"""Keeps away from a sound server that hangs: one that answers neither yes nor no.

pyalsaaudio opens and closes with the interpreter locked, so that such a server would stop the whole
process: no broker, no commands, nobody to tell that the box is deaf. Before each of the two a
thread tries the door through libasound itself (ctypes unlocks the interpreter). A device whose
server hangs is left open, and closed when the server answers again. Kernel cards always answer.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from typing import Any

ANSWER_S = 1.5
_CAPTURE, _NONBLOCK = 1, 1  # snd_pcm_stream_t, SND_PCM_NONBLOCK (alsa/pcm.h)

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_asking: dict[str, threading.Thread] = {}  # by name: one at a time, however often somebody asks
_left_open: list[Any] = []


def answers(name: str) -> bool:
    """Whether libasound opens `name`, or refuses to, within ANSWER_S."""
    with _lock:
        asking = _asking.get(name)
        if asking is None:
            asking = threading.Thread(target=_try, args=(name,), name="alsa-answers", daemon=True)
            _asking[name] = asking
            asking.start()
    asking.join(ANSWER_S)
    return not asking.is_alive()


def _try(name: str) -> None:
    try:
        library = ctypes.CDLL("libasound.so.2")
        pcm = ctypes.c_void_p()
        if library.snd_pcm_open(ctypes.byref(pcm), name.encode(), _CAPTURE, _NONBLOCK) == 0:
            library.snd_pcm_close(pcm)
    except OSError:  # no such library here: then pyalsaaudio says so
        pass
    finally:
        with _lock:
            _asking.pop(name, None)


def leave_open(pcm: Any) -> None:
    """Its server hangs: closing it, or only forgetting it, would hang too."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(pcm))  # not even at the end of the process
    _left_open.append(pcm)
    _log.warning("the sound server does not answer: the microphone could not be closed")


def anything_left_open() -> bool:
    return bool(_left_open)


def close_left_open(name: str) -> bool:
    """Closes what was left open if the server of `name` answers again; whether all is closed."""
    if _left_open and answers(name):
        while _left_open:
            pcm = _left_open.pop()
            pcm.close()
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(pcm))
    return not _left_open
