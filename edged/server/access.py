"""Who may come in: key, origin and rate. Pure: no socket, and the clock is given."""

from __future__ import annotations

import hmac
import ipaddress
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

NEW_PER_S = 5.0  # new sessions from one address, in the long run; wrong keys too
BURST = 20  # and at once
MAX_ADDRESSES = 1024  # remembered; the one that was quiet for longest goes first


def key_of(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """The key as a client sends it: `x-api-key`, or a bearer token (Prometheus), or `?token=`
    (browsers, whose WebSockets cannot send headers)."""
    if key := headers.get("x-api-key"):
        return key
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return query.get("token", "")


def key_fits(expected: str | None, given: str) -> bool:
    """In a time that does not tell how much of it was right. None: no key is asked for."""
    return expected is None or hmac.compare_digest(
        expected.encode(), given.encode(errors="replace")
    )


@dataclass(frozen=True)
class Origins:
    """Which web pages may connect, and by which names the door may be called.

    A page may if it came from this very address, and that address is a name of this machine: a
    foreign name that merely leads here (DNS rebinding) is not. Other pages must be listed; the
    machine then goes by their names too.
    """

    allowed: frozenset[str] = frozenset()
    own_names: frozenset[str] = field(default_factory=lambda: own_names())

    def may(self, origin: str | None, host: str) -> bool:
        """`origin` and `host` as the headers have them."""
        if origin is None or origin in self.allowed:
            return True
        return _netloc(origin) == host and bool(host) and self.knows(host)

    def knows(self, host: str) -> bool:
        """Whether a request without an Origin may call the door so: a page that was loaded from
        here asks without one. No Host is what no browser sends."""
        if not host:
            return True
        name = _name(f"//{host}")
        if not name:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            # Names without a dot are not in the public DNS, so that no foreign page has one.
            listed = {_name(origin) for origin in self.allowed}
            return "." not in name or name in self.own_names or name in listed
        return True


def own_names() -> frozenset[str]:
    name = socket.gethostname().lower()
    return frozenset({"localhost", name, name.split(".")[0], f"{name.split('.')[0]}.local"})


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _name(url: str) -> str:
    """The host's name in small letters, without port; empty if there is none."""
    try:
        return (urlsplit(url).hostname or "").removesuffix(".")
    except ValueError:
        return ""


class Rate:
    """A bucket of BURST tokens per address, refilled with NEW_PER_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """False: too many in too short a time."""
        now = self._clock()
        tokens = self._tokens(address, now)
        allowed = tokens >= 1
        self._buckets.pop(address, None)
        self._buckets[address] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return allowed

    def has(self, address: str) -> bool:
        """Whether `take` would be allowed. Takes nothing."""
        return self._tokens(address, self._clock()) >= 1

    def _tokens(self, address: str, now: float) -> float:
        tokens, then = self._buckets.get(address, (float(BURST), now))
        return min(float(BURST), tokens + (now - then) * NEW_PER_S)
