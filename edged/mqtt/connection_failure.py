"""Why a broker cannot be reached, in one sentence for people."""

from __future__ import annotations

import logging
import socket
import ssl

from edged.errors import ConfigError
from edged.logs import log_exception
from edged.mqtt.broker_settings import BrokerSettings
from edged.mqtt.connection_status import ConnectionStatus

_log = logging.getLogger(__name__)


def describe_failure(broker: BrokerSettings, error: Exception) -> tuple[ConnectionStatus, str]:
    """Returns what kind of failure an exception of paho or of the socket is, and one sentence."""
    where = broker.address
    match error:
        case ConfigError():
            return ConnectionStatus.CONFIG, str(error)
        case ssl.SSLCertVerificationError():
            why = error.verify_message
            return ConnectionStatus.TLS, f"the certificate of {where} is not trusted: {why}"
        case ssl.SSLError():
            why = error.reason or str(error)
            return ConnectionStatus.TLS, f"TLS with {where} failed: {why}"
        case socket.gaierror():
            return ConnectionStatus.NETWORK, f"the broker's host name {where.host} is not known"
        case TimeoutError():
            return ConnectionStatus.NETWORK, f"{where} does not answer"
        case ConnectionRefusedError():
            return ConnectionStatus.NETWORK, f"no broker listens at {where}"
        case ConnectionResetError() if where.tls:
            hint = "is it a plain mqtt:// port?"
            return ConnectionStatus.NETWORK, f"{where} closed the TLS connection ({hint})"
        case OSError():
            return ConnectionStatus.NETWORK, f"{where} cannot be reached: {error.strerror or error}"
    log_exception(_log, "mqtt-link-failed", "the connection to the broker failed", error)
    return ConnectionStatus.PROTOCOL, f"the connection to {where} failed: {type(error).__name__}"
