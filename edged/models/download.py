"""Downloads one file over HTTP(S) into a `.part` file, resuming and retrying.

The only code of edged that downloads models; wheels.py finds the URL of a package's wheel.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests

from edged import __version__
from edged.errors import ModelError
from edged.models.reporter import ReportDownload
from edged.models.store import disk_error

_CHUNK = 1 << 14  # at most this much is lost when a connection breaks
_PROGRESS = 1 << 18  # bytes after which the count of failed attempts starts again
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Transport:
    """Network options. requests applies the usual environment variables (proxies, CA bundle) too.

    verify: whether to check certificates, or a file of certificate authorities.
    cert: a client certificate.
    proxies: proxy URL for each URL scheme.
    trusted_hosts: hosts whose certificate is not checked.
    connect_s, read_s: time-outs in seconds.
    attempts: failed attempts in a row, without report, after which a download ends.
    backoff_s: wait before the second attempt; doubles each time.
    """

    verify: bool | str = True
    cert: str | None = None
    proxies: dict[str, str] | None = None
    trusted_hosts: tuple[str, ...] = ()
    connect_s: float = 15.0
    read_s: float = 30.0
    attempts: int = 5
    backoff_s: float = 1.0

    def trust(self, url: str) -> bool | str:
        """Returns the `verify` argument of requests for this URL."""
        return self.verify if urlsplit(url).hostname not in self.trusted_hosts else False


class RefusedError(ModelError):
    """The server wants credentials, or its certificate is not trusted. pip may have both."""


class _BrokenError(Exception):
    """The attempt failed; another may succeed. wait_s: how long the server asks to wait."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


def download(
    url: str, part: Path, transport: Transport, report: ReportDownload, size: int | None = None
) -> None:
    """Downloads `url` into `part`, resuming if `part` exists. Does not verify the content.

    report: called with the bytes so far and, if known, in all.
    size: expected size in bytes; never more than this is stored.
    Raises ModelError (the part is kept for the next run) or RefusedError.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            _attempt(url, part, transport, report, size)
            return
        except _BrokenError as problem:
            failures = 1 if _size(part) - before >= _PROGRESS else failures + 1
            if failures >= transport.attempts:
                raise ModelError(
                    f"{bare(url)} could not be downloaded: {problem}",
                    "Run the same command again to resume the download.",
                ) from problem
            wait_s = transport.backoff_s * 2 ** (failures - 1)
            time.sleep(min(problem.wait_s or wait_s, _LONGEST_WAIT_S))


def _attempt(
    url: str, part: Path, transport: Transport, report: ReportDownload, size: int | None
) -> None:
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
                _save(reply, part, start, report, size, url)
    except requests.exceptions.SSLError as error:
        raise RefusedError(
            f"the certificate of {bare(url)} is not trusted: {_short(error)}"
        ) from error
    except requests.exceptions.ProxyError as error:
        raise _BrokenError(f"the proxy did not answer ({_short(error)})") from error
    except requests.exceptions.Timeout as error:
        raise _BrokenError("the server stopped sending") from error
    except requests.exceptions.RequestException as error:
        raise _BrokenError(f"the connection broke ({_short(error)})") from error
    except OSError as error:  # errors of requests are caught above: this one is of the disk
        raise disk_error(part, error) from error


def _start(reply: requests.Response, part: Path, have: int, url: str) -> int | None:
    """Returns the offset at which the body begins; None if `part` is complete already."""
    code = reply.status_code
    if code == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        return have
    if code == 200:
        return 0  # the server does not support ranges
    if code == 416 and reply.headers.get("Content-Range", "") == f"bytes */{have}":
        return None
    if code in (206, 416):
        part.unlink(missing_ok=True)
        raise _BrokenError("the server sent another range than requested")
    status = f"{code} {reply.reason}".strip()
    if code in (401, 403, 407):
        raise RefusedError(f"{bare(url)} was refused: {status}")
    if code in (408, 425, 429) or code >= 500:
        asked = reply.headers.get("Retry-After", "")
        raise _BrokenError(
            f"the server answered {status}", float(asked) if asked.isdigit() else None
        )
    raise ModelError(f"{bare(url)} could not be downloaded: the server answered {status}")


def _save(
    reply: requests.Response,
    part: Path,
    start: int,
    report: ReportDownload,
    size: int | None,
    url: str,
) -> None:
    length = reply.headers.get("Content-Length", "")
    total = start + int(length) if length.isdigit() else None
    if size is not None and total not in (None, size):
        part.unlink(missing_ok=True)
        raise ModelError(
            f"{bare(url)} has {total} bytes, but the catalogue says {size}: the file has changed"
            " since this version of edged was released",
            "Look for a newer version of edged.",
        )
    got = start
    report(got, total or size)
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab" if start else "wb") as out:
        for chunk in reply.iter_content(_CHUNK):
            out.write(chunk)
            got += len(chunk)
            if size is not None and got > size:
                out.truncate(0)
                raise ModelError(f"{bare(url)} sends more than the {size} bytes of the catalogue")
            report(got, total or size)
    if got < (total or size or 0):
        raise _BrokenError(f"the connection ended after {got} of {total or size} bytes")


def bare(url: str) -> str:
    """Returns the URL without user, password and query, for messages."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _short(error: Exception) -> str:
    """Returns the innermost reason of an error of requests, whose text may contain a whole URL."""
    inner = error.args[0] if error.args else error
    reason = getattr(inner, "reason", inner)
    return type(reason).__name__


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0
