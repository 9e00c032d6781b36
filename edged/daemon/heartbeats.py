"""Says which threads have stopped making progress."""

from __future__ import annotations

from collections.abc import Callable

STALE_S = 10.0  # every loop of edged beats at least once a second


class Heartbeats:
    """The ages of the heartbeats of all watched threads.

    A thread beats whether or not there is a microphone or a broker, so that an unplugged cable
    never causes a restart.
    """

    def __init__(self, stale_s: float = STALE_S) -> None:
        """stale_s: seconds without a beat after which a thread counts as hung."""
        self._watched: dict[str, tuple[Callable[[], float], float]] = {}
        self._stale_s = stale_s

    def watch(self, name: str, age_s: Callable[[], float], stale_s: float | None = None) -> None:
        """Watches one more thread.

        Args:
            name: of the thread, for messages.
            age_s: returns the seconds since its last beat; called from any thread.
            stale_s: a limit of its own.
        """
        self._watched[name] = age_s, self._stale_s if stale_s is None else stale_s

    def stale(self) -> list[str]:
        """The names of the threads that count as hung. May be called from any thread."""
        watched = list(self._watched.items())
        return [name for name, (age_s, stale_s) in watched if age_s() > stale_s]
