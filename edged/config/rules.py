"""Rules for values beyond their type, and for settings that depend on each other.

The message of a rule reads "must be ...", so that an error can put the setting's name before it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import AfterValidator

from edged.errors import ConfigError
from edged.keyterm_list import join_terms, read_terms, split_terms
from edged.languages import is_language
from edged.mqtt.broker_address import BrokerAddress
from edged.mqtt.topics import check_base, check_device

if TYPE_CHECKING:
    from edged.config.settings import Settings


EMBEDDED = "embedded"  # the value of EDGED_MQTT_URL for the broker inside the daemon


class ConflictError(ValueError):
    """Settings that contradict each other.

    Attributes:
        conflicts: pairs of (the fields concerned, one sentence).
    """

    def __init__(self, conflicts: list[tuple[tuple[str, ...], str]]) -> None:
        super().__init__("; ".join(message for _, message in conflicts))
        self.conflicts = conflicts


def split_host_port(value: str) -> tuple[str, int]:
    """Splits `host:port` or `[IPv6]:port` into host and port. Raises ValueError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:/\[\]]+)):(\d{1,5})", value)
    if not match or not 1 <= int(match[3]) <= 65535:
        raise ValueError("must be host:port, as in 127.0.0.1:8080")
    return match[1] or match[2], int(match[3])


def is_loopback(host: str) -> bool:
    """Whether `host` is a loopback address or "localhost". Other names may resolve to anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def one_of(*allowed: Any) -> AfterValidator:
    """A validator that accepts only `allowed`."""

    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(map(str, allowed))}")
        return value

    return AfterValidator(check)


def _topic_part(check: Callable[[str], str], allowed: str) -> AfterValidator:
    """A validator made of a check of `edged.mqtt.topics`; its error says what is `allowed`."""

    def checked(value: str) -> str:
        try:
            return check(value)
        except ConfigError:
            raise ValueError(f"must be {allowed}") from None

    return AfterValidator(checked)


def _broker_url(value: str) -> str:
    if value == EMBEDDED:
        return value
    try:
        BrokerAddress.parse(value)
    except ValueError as error:
        hint = "" if "://" in value or "@" in value else ", or be embedded"
        raise ValueError(f"{error}{hint}") from None
    return value


def _listen(value: str) -> str:
    if value in ("", "off"):
        return ""
    split_host_port(value)
    return value


def _language(value: str) -> str:
    if not is_language(value):
        raise ValueError("must be auto or the code of a language, such as en, de or fr")
    return value


def _keyterms(value: str) -> str:
    found = read_terms(split_terms(value))
    if found.problems:
        raise ValueError(f"must be terms with commas between them ({'; '.join(found.problems)})")
    return join_terms(found.lines)


DEVICE = _topic_part(check_device, "1 to 63 of a-z, 0-9 and - (not at an end)")
TOPIC = _topic_part(
    check_base, "1 to 128 bytes of topic levels such as home/edged, without + # or empty ones"
)
BROKER_URL = AfterValidator(_broker_url)
LISTEN = AfterValidator(_listen)
KEYTERMS = AfterValidator(_keyterms)
LANGUAGE = AfterValidator(_language)


def conflicts(s: Settings) -> list[tuple[tuple[str, ...], str]]:
    """Finds settings that contradict each other though each of them is valid.

    Returns pairs of (the fields concerned, one sentence).
    """
    reachable = bool(s.listen) and not is_loopback(split_host_port(s.listen)[0])
    tls = s.broker_address is not None and s.broker_address.tls
    rules = (
        (
            bool(s.mqtt_cert_file) != bool(s.mqtt_key_file),
            ("mqtt_cert_file", "mqtt_key_file"),
            "EDGED_MQTT_CERT_FILE and EDGED_MQTT_KEY_FILE must be set together",
        ),
        (
            bool(s.mqtt_ca_file or s.mqtt_cert_file) and not tls,
            ("mqtt_url", "mqtt_ca_file", "mqtt_cert_file"),
            "EDGED_MQTT_CA_FILE and EDGED_MQTT_CERT_FILE need EDGED_MQTT_URL to begin with mqtts://",
        ),
        (
            bool(s.mqtt_password and not s.mqtt_username),
            ("mqtt_username", "mqtt_password"),
            "EDGED_MQTT_PASSWORD needs EDGED_MQTT_USERNAME",
        ),
        (
            bool(s.tls_cert_file) != bool(s.tls_key_file),
            ("tls_cert_file", "tls_key_file"),
            "EDGED_TLS_CERT_FILE and EDGED_TLS_KEY_FILE must be set together",
        ),
        (
            reachable and not (s.api_key or s.listen_without_key),
            ("listen", "api_key", "listen_without_key"),
            "EDGED_LISTEN on an address that other machines reach needs EDGED_API_KEY "
            "(or EDGED_LISTEN_WITHOUT_KEY=on)",
        ),
    )
    return [(fields, sentence) for broken, fields, sentence in rules if broken]
