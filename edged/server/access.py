"""Decides who may use the server: API key, origin of web pages, host name and request rates.

Nothing here reads or writes a socket, and the clock is passed in.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

NEW_PER_S = 5.0  # sustained rate of new sessions, or of wrong keys, from one address
BURST = 20  # how many of them are allowed at once
MAX_ADDRESSES = 1024  # addresses that are remembered; the one seen longest ago is dropped first
MAX_SHOWN = 80  # characters of a foreign origin or host name in an error message
NO_KEY = "the x-api-key is missing or wrong"
TOO_MANY_KEYS = "too many wrong keys came from this address: try again later"
TOO_MANY_SESSIONS = "too many new sessions in a short time: try again later"
KEY_SUBPROTOCOL = "openai-insecure-api-key."
CROSS_SITE = ("cross-site", "same-site")  # Fetch Metadata, https://www.w3.org/TR/fetch-metadata/


class HttpRequest(Protocol):
    """The attributes of an aiohttp request that decide on access."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def remote(self) -> str | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def query(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is refused: a message for the client and the HTTP status that fits."""

    message: str
    status: int


def presented_key(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """The API key of a request, or "" if it has none.

    The key is taken from `x-api-key`, from `Authorization: Bearer` (OpenAI clients, Prometheus),
    from the subprotocol that OpenAI's browser client sends, or from `?token=`, in this order.
    Browsers cannot set headers on a WebSocket.
    """
    if key := _header_key(headers):
        return key
    for name in headers.get("Sec-WebSocket-Protocol", "").split(","):
        if name.strip().startswith(KEY_SUBPROTOCOL):
            return name.strip().removeprefix(KEY_SUBPROTOCOL)
    return query.get("token", "")


def _header_key(headers: Mapping[str, str]) -> str:
    if key := headers.get("x-api-key"):
        return key
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def key_matches(expected: str | None, given: str) -> bool:
    """Compares keys in constant time. An `expected` of None means that no key is required."""
    return expected is None or hmac.compare_digest(
        expected.encode(), given.encode(errors="replace")
    )


@dataclass(frozen=True)
class Origins:
    """The web pages that may connect, and the host names by which this server may be called.

    A page may connect if its origin is listed in `allowed`, or if it was loaded from this server
    under a name that belongs to this machine. A foreign name that resolves to this machine (DNS
    rebinding) does not count. The host names of listed origins count as names of this machine.
    """

    allowed: frozenset[str] = frozenset()
    own_names: frozenset[str] = field(default_factory=lambda: own_names())

    def permits(self, origin: str | None, host: str) -> bool:
        """Whether a page may connect; `origin` and `host` are the headers of its request."""
        if origin is None or origin in self.allowed:
            return True
        return _netloc(origin) == host and bool(host) and self.is_own_name(host)

    def is_own_name(self, host: str) -> bool:
        """Whether `host` is a name of this machine. A missing header ("") is accepted: every
        browser sends one."""
        if not host:
            return True
        name = _host_name(f"//{host}")
        if not name:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            # The public DNS has no names without a dot, so no foreign page can have one.
            listed = {_host_name(origin) for origin in self.allowed}
            return "." not in name or name in self.own_names or name in listed
        return True


def own_names() -> frozenset[str]:
    """`localhost` and the host name: as it is, its first label, and that label below .local."""
    name = socket.gethostname().lower()
    return frozenset({"localhost", name, name.split(".")[0], f"{name.split('.')[0]}.local"})


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _host_name(url: str) -> str:
    """The host name in lower case without its port, or "" if the URL has none."""
    try:
        return (urlsplit(url).hostname or "").removesuffix(".")
    except ValueError:
        return ""


class RateLimiter:
    """A token bucket for each key."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        burst: float | None = None,
        per_s: float | None = None,
    ) -> None:
        """burst: tokens of a full bucket; None: BURST. per_s: how many are added in a second; None:
        NEW_PER_S."""
        self._clock = clock
        self._burst = burst
        self._per_s = per_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """The number of keys that are remembered."""
        return len(self._buckets)

    def take(self, key: str) -> bool:
        """Takes a token. Returns False if there is none."""
        now = self._clock()
        tokens = self._tokens(key, now)
        allowed = tokens >= 1
        self._buckets.pop(key, None)
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return allowed

    def has_token(self, key: str) -> bool:
        """Whether `take` would succeed. Takes nothing."""
        return self._tokens(key, self._clock()) >= 1

    def _tokens(self, key: str, now: float) -> float:
        burst = float(BURST if self._burst is None else self._burst)
        tokens, then = self._buckets.get(key, (burst, now))
        per_s = NEW_PER_S if self._per_s is None else self._per_s
        return min(burst, tokens + (now - then) * per_s)


class AccessControl:
    """Checks requests against the API key, the origins and the rates."""

    def __init__(self, api_key: str | None, origins: Origins) -> None:
        """`api_key` None: no key is required."""
        self.origins = origins
        self._api_key = api_key
        self._sessions = RateLimiter()
        self._wrong_keys = RateLimiter()

    def deny_foreign(self, request: HttpRequest) -> Denial | None:
        """Refuses requests that a foreign web page makes, or that use a foreign host name.

        Checked before the key, so that a foreign page cannot use up the wrong keys of its visitor's
        address. The captions page is served to any origin, so that it can say why it gets no
        events, but not under a foreign host name. Clients that are not browsers may use any host
        name where a page could achieve nothing: a page has no key, and each of its requests except
        a plain GET has an Origin. `/healthz` is public.
        """
        origins, origin = self.origins, request.headers.get("Origin")
        is_captions_page = request.path == "/" or request.path.startswith("/kiosk")
        if origin is not None and not is_captions_page:
            if origins.permits(origin, request.host):
                return None
            return _foreign_page(_shown(origin))
        if origin is None and not is_captions_page:
            site = request.headers.get("Sec-Fetch-Site", "")
            if site in CROSS_SITE and request.path != "/healthz":
                return _foreign_page("that made this request")
        host = request.headers.get("Host", "")
        is_plain_get = request.method in ("GET", "HEAD") and "Upgrade" not in request.headers
        any_host_name = request.path == "/healthz" or not (is_plain_get and self._api_key is None)
        if origins.is_own_name(host) or (any_host_name and not is_captions_page):
            return None
        shown = _shown(host)
        return Denial(
            f"{shown} is not known as a name of this device: add {request.scheme}://{shown} to "
            "EDGED_LISTEN_ORIGINS, or use its IP address",
            403,
        )

    def deny_key(self, request: HttpRequest) -> Denial | None:
        """Refuses a missing or wrong key.

        After too many wrong keys from one address even the right key is refused for a while, so
        that keys cannot be guessed. A missing key is not counted. Wrong keys in headers, from
        allowed pages and in the query of other requests are counted apart: only the last can be
        caused by a foreign page, with an image whose address has a `?token=`.
        """
        key = presented_key(request.headers, request.query)
        if self._api_key is None:
            return None
        if not key:
            return Denial(NO_KEY, 401)
        bucket = f"{_key_source(request)} {request.remote or ''}"
        if not self._wrong_keys.has_token(bucket):
            return Denial(TOO_MANY_KEYS, 429)
        if key_matches(self._api_key, key):
            return None
        self._wrong_keys.take(bucket)
        return Denial(NO_KEY, 401)

    def admit_session(self, address: str | None) -> bool:
        """Whether one more session may begin from this address; counts it."""
        return self._sessions.take(address or "")


def _key_source(request: HttpRequest) -> str:
    if _header_key(request.headers):
        return "header"
    return "query" if request.headers.get("Origin") is None else "page"


def _foreign_page(page: str) -> Denial:
    return Denial(
        f"the page {page} may not connect: EDGED_LISTEN_ORIGINS lists those that may", 403
    )


def _shown(value: str) -> str:
    return ascii(value[:MAX_SHOWN])[1:-1]
