"""The broker's address is parsed once, and a mistake in it is named."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.sources import SettingsError, load
from edged.mqtt.broker_address import BrokerAddress


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker", BrokerAddress("broker", 1883, False)),
        ("mqtts://broker", BrokerAddress("broker", 8883, True)),
        ("mqtt://hub.local:99/", BrokerAddress("hub.local", 99, False)),
        ("MQTTS://Hub", BrokerAddress("hub", 8883, True)),
        ("MqttS://hub:1883", BrokerAddress("hub", 1883, True)),
        ("mqtts://[::1]:99/", BrokerAddress("::1", 99, True)),
        ("mqtt://[fe80::1%eth0]", BrokerAddress("fe80::1%eth0", 1883, False)),
        ("mqtt://192.168.1.2", BrokerAddress("192.168.1.2", 1883, False)),
        ("mqtt://müller", BrokerAddress("müller", 1883, False)),
    ],
)
def test_an_address_is_parsed_into_host_port_and_tls(url: str, address: BrokerAddress) -> None:
    """`MQTTS://hub` was TLS for the port and plain for the connection: the password was sent in
    the clear while `config check` and `doctor` were content."""
    assert BrokerAddress.parse(url) == address
    assert BrokerAddress.parse(address.url) == address


MISTAKES = [
    (" mqtts://hub", "without spaces"),
    ("mqtts://hub ", "without spaces"),
    ("mqtt://hub local", "without spaces"),
    ("mqtts://hub\n", "without spaces or control characters"),
    ("mqtt://hub\x00", "without spaces or control characters"),
    ("mqtt\xa0://hub", "without spaces"),
    ("hub.local", "must begin with mqtt:// or mqtts:// (TLS), as in mqtt://hub.local"),
    ("hub.local:1883", "as in mqtt://hub.local:1883"),
    ("mqtt:hub", "must begin with mqtt:// or mqtts://"),
    ("//hub", "must begin with mqtt:// or mqtts://"),
    ("", "must begin with mqtt:// or mqtts:// (TLS), as in mqtt://hub.local"),
    ("tcp://hub:1883", "not tcp://: write mqtt://hub:1883"),
    ("ssl://hub", "not ssl://: write mqtts://hub"),
    ("TLS://hub", "not tls://: write mqtts://hub"),
    ("wss://hub/mqtt", "does not use WebSockets"),
    ("http://hub", "not http://"),
    ("gopher://hub", "must be mqtt://host or mqtts://host (a :port may follow), not gopher://"),
    ("mqtt://", "the host is missing"),
    ("mqtt://:1883", "the host is missing"),
    ("mqtt://::1", "an IPv6 address in brackets, as in mqtt://[::1]"),
    ("mqtt://fe80::1:1883", "an IPv6 address in brackets, as in mqtt://[fe80::1:1883]"),
    ("mqtt://[::1", "a closing ']' after the IPv6 address"),
    ("mqtt://[hub]", "must have an IPv6 address in the brackets, not 'hub'"),
    ("mqtt://[::1]x", "after ']' only :port may follow"),
    ("mqtt://[::1%]", "network interface"),
    ("mqtt://hub:", "a port from 1 to 65535"),
    ("mqtt://hub:0", "a port from 1 to 65535 after the colon, not '0'"),
    ("mqtt://hub:99999", "a port from 1 to 65535 after the colon, not '99999'"),
    ("mqtt://hub:tls", "a port from 1 to 65535 after the colon, not 'tls'"),
    ("mqtt://hub/topic", "must end after the host and port: remove '/topic'"),
    ("mqtt://hub?x=1", "remove '?x=1'"),
    ("mqtt://hub#x", "remove '#x'"),
    ("mqtt://hub_1!", "a host name has no '!'"),
]


@pytest.mark.parametrize(("url", "says"), MISTAKES)
def test_each_mistake_has_a_sentence_of_its_own(url: str, says: str) -> None:
    """All mistakes once shared one general sentence, and a blank in the host passed."""
    with pytest.raises(ValueError, match="must") as error:
        BrokerAddress.parse(url)
    assert says in str(error.value)
    assert str(error.value).startswith("must ")


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://me:hidden@hub",
        "mqtts://me:hid#den@hub",
        "mqtt://me:hid/den@hub",
        "mqtt://me:hid?den@hub",
        "tcp://me:hidden@hub",
        "me:hidden@hub",
        "mqtt:me:hidden@hub",
    ],
)
def test_a_password_in_the_address_is_refused_and_never_repeated(url: str) -> None:
    """With a `#` in it the password was taken for a fragment, and shown in the error."""
    with pytest.raises(ValueError, match="EDGED_MQTT_USERNAME and EDGED_MQTT_PASSWORD") as error:
        BrokerAddress.parse(url)
    assert "hid" not in str(error.value)


@given(st.text(alphabet="mqtsMQTS:/ \t\n[]@#?.hub%0189-_", max_size=24))
def test_no_spelling_turns_tls_off_silently(url: str) -> None:
    """An address is TLS exactly if its scheme is mqtts in any case; everything else is refused."""
    with contextlib.suppress(ValueError):
        address = BrokerAddress.parse(url)
        assert_tls_as_written(url, address)


def assert_tls_as_written(url: str, address: BrokerAddress) -> None:
    assert address.tls == url.lower().startswith("mqtts://")
    assert address.tls or url.lower().startswith("mqtt://")


@pytest.mark.parametrize(("url", "says"), MISTAKES)
def test_the_settings_refuse_what_the_address_refuses(tmp_path: Path, url: str, says: str) -> None:
    """`mqtts://` was recognised in three places, each in its own way."""
    with pytest.raises(SettingsError) as error:
        load(None, {"mqtt_url": url, "state_dir": tmp_path})
    assert says in str(error.value)


def test_settings_and_broker_agree_about_tls(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"state_dir": tmp_path, "mqtt_ca_file": tmp_path / "ca.crt"}
    settings = load(None, flags | {"mqtt_url": "MQTTS://hub"}).settings
    assert settings.broker().address == BrokerAddress("hub", 8883, True)
    with pytest.raises(
        SettingsError, match="EDGED_MQTT_CA_FILE and EDGED_MQTT_CERT_FILE need EDGED_MQTT_URL"
    ):
        load(None, flags | {"mqtt_url": "MQTT://hub"})
