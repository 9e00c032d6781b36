"""Access to the API server: keys, origins, host names and rates."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from edged.server import access
from edged.server.access import AccessControl, Origins, RateLimiter, key_matches, presented_key


def test_the_key_is_in_a_header_a_bearer_token_or_the_query() -> None:
    assert presented_key({"x-api-key": "k"}, {"token": "other"}) == "k"
    assert presented_key({"Authorization": "Bearer k"}, {}) == "k"
    assert presented_key({"Authorization": "Basic k"}, {"token": "k"}) == "k"
    assert presented_key({}, {}) == ""


def test_only_the_right_key_matches_and_none_is_required_without_one() -> None:
    assert key_matches(None, "")
    assert key_matches("schlüssel", "schlüssel")
    for wrong in ("", "schlüsse", "schlüssel ", "\ud800"):
        assert not key_matches("schlüssel", wrong)


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "192.168.1.5:8765", True),  # not a browser
        ("http://127.0.0.1:8765", "127.0.0.1:8765", True),  # a page that this device serves
        ("http://kitchen.local:8765", "kitchen.local:8765", True),
        ("http://localhost:3000", "localhost:8765", False),  # another server's page
        ("https://evil.example", "127.0.0.1:8765", False),
        (
            "https://evil.example",
            "evil.example",
            False,
        ),  # DNS rebinding: the name resolves to this device
        ("null", "127.0.0.1:8765", False),  # a file, or a sandboxed frame
        ("https://kiosk.example", "127.0.0.1:8765", True),  # listed
        ("", "127.0.0.1:8765", False),
        ("http://[", "127.0.0.1:8765", False),
        ("", "", False),
        ("http://kitchen:8765", "kitchen:8765", True),  # no foreign page can have this name
        ("http://kiosk.example:8765", "kiosk.example:8765", True),  # a listed name of this device
    ],
)
def test_pages_may_connect_if_listed_or_served_by_this_device(
    origin: str | None, host: str, allowed: bool
) -> None:
    origins = Origins(frozenset({"https://kiosk.example"}), frozenset({"kitchen.local"}))
    assert origins.permits(origin, host) is allowed


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8765", True),
        ("[::1]:8765", True),
        ("[fe80::1%25eth0]:8765", True),
        ("localhost", True),
        ("Kitchen.local:8765", True),
        ("kitchen.local.:8765", True),
        ("hall:8765", True),
        ("kiosk.example:8765", True),
        ("", True),  # HTTP/1.0, which browsers do not use
        ("evil.example:8765", False),
        ("127.0.0.1.evil.example", False),
        ("kitchen.local@evil.example", False),
        ("evil.example#kitchen.local", False),
        ("[::1", False),
        (":8765", False),
    ],
)
def test_a_foreign_name_is_not_a_name_of_this_device(host: str, known: bool) -> None:
    """A page under such a name (DNS rebinding) could read the metrics of a server without a key:
    a browser sends no Origin with requests to the host that a page came from."""
    origins = Origins(frozenset({"https://kiosk.example"}), frozenset({"kitchen.local"}))
    assert origins.is_own_name(host) is known


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    now = 0.0
    rate = RateLimiter(lambda: now)
    assert [rate.take("a") for _ in range(access.BURST + 1)] == [True] * access.BURST + [False]
    assert rate.take("b")
    now = 1.0
    allowed = sum(rate.take("a") for _ in range(100))
    assert allowed == access.NEW_PER_S


def test_a_rate_limiter_remembers_a_bounded_number_of_addresses() -> None:
    rate = RateLimiter(lambda: 0.0)
    for number in range(access.MAX_ADDRESSES * 2):
        rate.take(str(number))
    assert len(rate) == access.MAX_ADDRESSES


@dataclass
class FakeRequest:
    """A GET request, by default from a client that is not a browser."""

    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    method: str = "GET"
    path: str = "/metrics"
    scheme: str = "http"
    host: str = "127.0.0.1:8765"
    remote: str | None = "127.0.0.1"


ORIGINS = Origins(frozenset({"https://kiosk.example"}), frozenset({"kitchen.local"}))


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_browsers_request_for_a_foreign_page_is_refused_before_its_key_is_checked(
    site: str,
) -> None:
    """An image on a foreign page has no Origin, and used up the wrong keys of its visitor."""
    control = AccessControl("right", ORIGINS)
    for path in ("/metrics", "/api/speech/asr", "/api/events"):
        denial = control.deny_foreign(FakeRequest({"Sec-Fetch-Site": site}, path=path))
        assert denial is not None
        assert denial.status == 403
    for allowed in (
        FakeRequest({"Sec-Fetch-Site": site}, path="/healthz"),
        FakeRequest({"Sec-Fetch-Site": site}, path="/kiosk/"),  # a link to the captions page
        FakeRequest({"Sec-Fetch-Site": site, "Origin": "https://kiosk.example"}),
        FakeRequest({"Sec-Fetch-Site": "same-origin"}),
        FakeRequest({"Sec-Fetch-Site": "none"}),  # typed into the address bar
        FakeRequest(),
    ):
        assert control.deny_foreign(allowed) is None


def test_wrong_keys_in_the_query_do_not_lock_out_keys_in_headers_and_of_pages() -> None:
    control = AccessControl("right", ORIGINS)
    for _ in range(access.BURST * 2):
        control.deny_key(FakeRequest(query={"token": "wrong"}))
    locked_out = control.deny_key(FakeRequest(query={"token": "right"}))
    assert locked_out is not None
    assert locked_out.status == 429
    for request in (
        FakeRequest({"x-api-key": "right"}),
        FakeRequest({"Authorization": "Bearer right"}),
        FakeRequest({"Origin": "https://kiosk.example"}, {"token": "right"}),
        FakeRequest(query={"token": "right"}, remote="10.0.0.9"),
    ):
        assert control.deny_key(request) is None


def test_a_missing_key_is_refused_and_not_counted() -> None:
    control = AccessControl("right", ORIGINS)
    for _ in range(access.BURST * 2):
        denial = control.deny_key(FakeRequest())
        assert denial is not None
        assert denial.status == 401
    assert control.deny_key(FakeRequest(query={"token": "right"})) is None
