"""One file over HTTP into a `.part` file: goes on where it broke off, tries again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests

from edged import __version__
from edged.errors import ModelError
from edged.models.store import not_written

_CHUNK = 1 << 14  # at most this much of what came is lost when a connection breaks
_WORTH = 1 << 18  # bytes of progress after which the count of attempts starts again
_LONGEST_WAIT_S = 60.0

Told = Callable[[int, int | None], None]  # bytes here so far, bytes in all if known


@dataclass(frozen=True)
class Transport:
    """How to reach the network; the defaults honour the usual environment variables."""

    verify: bool | str = True  # or a file of certificate authorities
    cert: str | None = None
    proxies: dict[str, str] | None = None
    trusted_hosts: tuple[str, ...] = ()
    connect_s: float = 15.0
    read_s: float = 30.0  # silence longer than this is a broken connection
    attempts: int = 5  # in a row without progress
    backoff_s: float = 1.0  # doubles each time

    def trust(self, url: str) -> bool | str:
        """What to check the server's certificate against."""
        return self.verify if urlsplit(url).hostname not in self.trusted_hosts else False


class RefusedError(ModelError):
    """The server wants credentials, or its certificate is not trusted: another way in may exist."""


class _BrokenError(Exception):
    """Worth another attempt."""

    def __init__(self, said: str, wait_s: float | None = None) -> None:
        super().__init__(said)
        self.wait_s = wait_s


def download(
    url: str, part: Path, transport: Transport, told: Told, size: int | None = None
) -> None:
    """Completes `part` with the bytes of `url`. Bytes are not verified here, but never more than
    `size` are taken.

    Raises ModelError (what has arrived is kept) or RefusedError.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            _attempt(url, part, transport, told, size)
            return
        except _BrokenError as problem:
            failures = 1 if _size(part) - before >= _WORTH else failures + 1
            if failures >= transport.attempts:
                raise ModelError(
                    f"{bare(url)} could not be fetched: {problem}; what has arrived is kept,"
                    " run the same command to go on"
                ) from problem
            wait_s = transport.backoff_s * 2 ** (failures - 1)
            time.sleep(min(problem.wait_s or wait_s, _LONGEST_WAIT_S))


def _attempt(url: str, part: Path, transport: Transport, told: Told, size: int | None) -> None:
    have = _size(part)
    headers = {"Accept-Encoding": "identity", "User-Agent": f"edged/{__version__}"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(
            url,
            headers=headers,
            stream=True,
            timeout=(transport.connect_s, transport.read_s),
            verify=transport.trust(url),
            cert=transport.cert,
            proxies=transport.proxies,
        ) as reply:
            start = _start(reply, part, have, url)
            if start is not None:
                _save(reply, part, start, told, size, url)
    except requests.exceptions.SSLError as error:
        raise RefusedError(
            f"the certificate of {bare(url)} is not trusted: {_short(error)}"
        ) from error
    except requests.exceptions.ProxyError as error:
        raise _BrokenError(f"the proxy did not answer ({_short(error)})") from error
    except requests.exceptions.Timeout as error:
        raise _BrokenError("the server went silent") from error
    except requests.exceptions.RequestException as error:
        raise _BrokenError(f"the connection broke ({_short(error)})") from error
    except OSError as error:  # requests' own are caught above: this one is the disk's
        raise not_written(part, error) from error


def _start(reply: requests.Response, part: Path, have: int, url: str) -> int | None:
    """The offset the body begins at; None if `part` is complete already."""
    code = reply.status_code
    if code == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        return have
    if code == 200:
        return 0  # no ranges here: from the start
    if code == 416 and reply.headers.get("Content-Range", "") == f"bytes */{have}":
        return None
    if code in (206, 416):
        part.unlink(missing_ok=True)
        raise _BrokenError("the server gave another part than was asked for")
    said = f"{code} {reply.reason}".strip()
    if code in (401, 403, 407):
        raise RefusedError(f"{bare(url)} was refused: {said}")
    if code in (408, 425, 429) or code >= 500:
        asked = reply.headers.get("Retry-After", "")
        raise _BrokenError(f"the server said {said}", float(asked) if asked.isdigit() else None)
    raise ModelError(f"{bare(url)} could not be fetched: the server said {said}")


def _save(
    reply: requests.Response, part: Path, start: int, told: Told, size: int | None, url: str
) -> None:
    length = reply.headers.get("Content-Length", "")
    total = start + int(length) if length.isdigit() else None
    if size is not None and total not in (None, size):
        part.unlink(missing_ok=True)
        raise ModelError(
            f"{bare(url)} has {total} bytes where the catalogue says {size}: it has changed since"
            " this edged was made, look for a newer edged"
        )
    got = start
    told(got, total or size)
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab" if start else "wb") as out:
        for chunk in reply.iter_content(_CHUNK):
            out.write(chunk)
            got += len(chunk)
            if size is not None and got > size:
                out.truncate(0)
                raise ModelError(f"{bare(url)} gives more than the {size} bytes of the catalogue")
            told(got, total or size)
    if got < (total or size or 0):
        raise _BrokenError(f"the connection ended after {got} of {total or size} bytes")


def bare(url: str) -> str:
    """The address without user, password and query, fit to be shown."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _short(error: Exception) -> str:
    """The innermost reason of requests' nested messages, which may hold a whole URL."""
    inner = error.args[0] if error.args else error
    reason = getattr(inner, "reason", inner)
    return type(reason).__name__


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0
