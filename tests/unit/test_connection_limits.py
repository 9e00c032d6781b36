"""Connection limits and JSON limits of the API server."""

from __future__ import annotations

import json

import pytest

from edged.server import connection_limits, json_limits
from edged.server.connection_limits import Admission, ConnectionLimits, client_of


def test_one_address_gets_its_share_and_others_the_rest() -> None:
    limits = ConnectionLimits()
    share = [limits.admit("10.0.0.1") for _ in range(connection_limits.MAX_PER_ADDRESS)]
    assert set(share) == {Admission.ADMITTED}
    assert limits.admit("10.0.0.1") is Admission.HEALTH_ONLY
    assert limits.admit("10.0.0.2") is Admission.ADMITTED


def test_the_reserve_is_bounded_and_given_back() -> None:
    limits = ConnectionLimits()
    for n in range(connection_limits.MAX_CONNECTIONS):
        assert limits.admit(f"10.0.1.{n}") is Admission.ADMITTED
    reserve = [limits.admit("10.0.0.1") for _ in range(connection_limits.RESERVED)]
    assert set(reserve) == {Admission.HEALTH_ONLY}
    assert limits.admit("10.0.0.1") is Admission.REFUSED
    limits.release("10.0.0.1", Admission.HEALTH_ONLY)
    assert limits.admit("10.0.0.1") is Admission.HEALTH_ONLY
    limits.release("10.0.1.0", Admission.ADMITTED)
    assert limits.admit("10.0.0.1") is Admission.ADMITTED
    assert limits.total == connection_limits.MAX_CONNECTIONS


def test_a_listener_without_health_checks_has_no_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "MAX_CONNECTIONS", 0)
    assert ConnectionLimits().admit("10.0.0.1", health_checks=False) is Admission.REFUSED


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),  # one /64 network belongs to one host
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", False),  # all link-local addresses share one prefix
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("", "", True),
    ],
)
def test_what_counts_as_one_client(one: str, other: str, same: bool) -> None:
    assert (client_of(one) == client_of(other)) is same


@pytest.mark.parametrize(
    "text",
    [
        "[" + "[]," * 1_300_000 + "[]]",
        "[" * 2_000_000,
        '{"a":' * 500_000 + "1" + "}" * 500_000,
        "[" + "1," * 2_000_000 + "1]",
        "{" + ",".join(f'"{n}":1' for n in range(100_000)) + "}",
    ],
    ids=["lists", "open", "nested", "numbers", "keys"],
)
def test_json_with_too_many_values_is_not_parsed(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsing 4 MB of nested empty lists held the interpreter's lock for more than a second."""

    def never(text: str) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(json, "loads", never)
    with pytest.raises(ValueError, match="more than"):
        json_limits.loads(text)
    with pytest.raises(ValueError, match="more than"):
        json_limits.check_config(text)


def test_a_large_audio_message_is_parsed() -> None:
    text = json.dumps({"type": "audio", "audio": "A" * (4 << 20)})
    assert len(json_limits.loads(text)["audio"]) == 4 << 20


def test_nesting_that_is_too_deep_for_the_parser_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting"):  # by Python
        json_limits.loads("[" * 4000 + "]" * 90)
