"""Who may come in: key, origin, rate."""

from __future__ import annotations

import pytest

from edged.server import access
from edged.server.access import Origins, RateLimiter, key_matches, presented_key


def test_the_key_comes_in_a_header_as_a_bearer_token_or_from_a_browser_in_the_query() -> None:
    assert presented_key({"x-api-key": "k"}, {"token": "other"}) == "k"
    assert presented_key({"Authorization": "Bearer k"}, {}) == "k"
    assert presented_key({"Authorization": "Basic k"}, {"token": "k"}) == "k"
    assert presented_key({}, {}) == ""


def test_only_the_right_key_fits_and_none_is_asked_for_without_one() -> None:
    assert key_matches(None, "")
    assert key_matches("schlüssel", "schlüssel")
    for wrong in ("", "schlüsse", "schlüssel ", "\ud800"):
        assert not key_matches("schlüssel", wrong)


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "192.168.1.5:8765", True),  # a program
        ("http://127.0.0.1:8765", "127.0.0.1:8765", True),  # a page that this box serves
        ("http://kitchen.local:8765", "kitchen.local:8765", True),
        ("http://localhost:3000", "localhost:8765", False),  # another server's page
        ("https://evil.example", "127.0.0.1:8765", False),
        ("https://evil.example", "evil.example", False),  # DNS rebinding: the name leads here
        ("null", "127.0.0.1:8765", False),  # a file, or a sandboxed frame
        ("https://kiosk.example", "127.0.0.1:8765", True),  # listed
        ("", "127.0.0.1:8765", False),
        ("http://[", "127.0.0.1:8765", False),
        ("", "", False),
        ("http://kitchen:8765", "kitchen:8765", True),  # no foreign page is there
        ("http://kiosk.example:8765", "kiosk.example:8765", True),  # the box by a listed name
    ],
)
def test_pages_may_connect_if_listed_or_served_here(
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
        ("box:8765", True),
        ("kiosk.example:8765", True),
        ("", True),  # of HTTP/1.0, which no browser speaks
        ("evil.example:8765", False),
        ("127.0.0.1.evil.example", False),
        ("kitchen.local@evil.example", False),
        ("evil.example#kitchen.local", False),
        ("[::1", False),
        (":8765", False),
    ],
)
def test_a_foreign_name_that_leads_here_is_none_of_the_boxs(host: str, known: bool) -> None:
    """A page by such a name (DNS rebinding) read the metrics of a door without a key: a browser
    sends no Origin with what a page asks of the address that it came from."""
    origins = Origins(frozenset({"https://kiosk.example"}), frozenset({"kitchen.local"}))
    assert origins.is_own_name(host) is known


def test_a_burst_of_sessions_is_taken_and_then_as_many_as_the_rate_allows() -> None:
    now = 0.0
    rate = RateLimiter(lambda: now)
    assert [rate.take("a") for _ in range(access.BURST + 1)] == [True] * access.BURST + [False]
    assert rate.take("b")
    now = 1.0
    allowed = sum(rate.take("a") for _ in range(100))
    assert allowed == access.NEW_PER_S


def test_the_rate_remembers_a_bounded_number_of_addresses() -> None:
    rate = RateLimiter(lambda: 0.0)
    for number in range(access.MAX_ADDRESSES * 2):
        rate.take(str(number))
    assert len(rate) == access.MAX_ADDRESSES
