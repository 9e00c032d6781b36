"""Why a broker cannot be reached, in one sentence for people."""

from __future__ import annotations

import logging
import socket
import ssl

from edged.errors import ConfigError
from edged.mqtt.broker_settings import BrokerSettings
from edged.mqtt.connection_status import ConnectionStatus

_log = logging.getLogger(__name__)


def explain(broker: BrokerSettings, problem: Exception) -> tuple[ConnectionStatus, str]:
    """What kind of trouble an exception of paho or the socket is, and the sentence."""
    if isinstance(problem, ConfigError):
        return ConnectionStatus.CONFIG, str(problem)
    host, port = broker.address.host, broker.address.port
    match problem:
        case ssl.SSLCertVerificationError():
            why = problem.verify_message
            return ConnectionStatus.TLS, f"the certificate of {host}:{port} is not trusted: {why}"
        case ssl.SSLError():
            return ConnectionStatus.TLS, f"no TLS with {host}:{port}: {problem.reason or problem}"
        case socket.gaierror():
            return ConnectionStatus.NETWORK, f"the broker's name {host} is not known"
        case TimeoutError():
            return ConnectionStatus.NETWORK, f"{host}:{port} does not answer"
        case ConnectionRefusedError():
            return ConnectionStatus.NETWORK, f"no broker listens at {host}:{port}"
        case ConnectionResetError() if broker.address.tls:
            return (
                ConnectionStatus.NETWORK,
                f"{host}:{port} hung up on TLS (is it a plain mqtt:// port?)",
            )
        case OSError():
            return ConnectionStatus.NETWORK, f"{host}:{port} cannot be reached: {problem.strerror}"
    _log.error("the MQTT link failed", exc_info=problem)
    return (
        ConnectionStatus.PROTOCOL,
        f"the connection to {host}:{port} failed: {type(problem).__name__}",
    )
