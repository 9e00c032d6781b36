"""The retained topics: the last value of each, and which of them the broker does not have yet."""

from __future__ import annotations

FIRST = ("availability", "info")


class Retained:
    """Values by name; a name that begins with `/` is a whole topic (less that slash).

    One publish of a name is under way at a time, so that an old value never overtakes a new one.
    """

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._dirty: dict[str, None] = {}  # in the order of change
        self._away: set[str] = set()

    def set(self, name: str, payload: bytes) -> None:
        if self._values.get(name) != payload:
            self._values[name] = payload
            self._dirty[name] = None

    def all_again(self) -> None:
        """On a new connection: all of them, availability first."""
        self._away.clear()
        self._dirty = dict.fromkeys((*[n for n in FIRST if n in self._values], *self._values))

    def states_again(self) -> None:
        """For Home Assistant's birth: discovery and states; discovery first."""
        names = sorted(self._values, key=lambda name: not name.startswith("/"))
        self._dirty |= dict.fromkeys(names)

    @property
    def pending(self) -> bool:
        return bool(self._dirty or self._away)

    def next(self) -> tuple[str, bytes] | None:
        """The next to publish; `done` must follow."""
        for name in self._dirty:
            if name not in self._away:
                del self._dirty[name]
                self._away.add(name)
                return name, self._values[name]
        return None

    def done(self, name: str) -> None:
        self._away.discard(name)

    def forget(self, name: str) -> None:
        """The broker will not have it: until it changes, it is not sent again."""
        self._values.pop(name, None)
        self._dirty.pop(name, None)
        self._away.discard(name)
