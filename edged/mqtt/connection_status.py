"""What the connection to the broker is doing, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ConnectionStatus(StrEnum):
    """The status of the connection. All members but the first two and STOPPED are errors."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    NETWORK = "network"
    AUTH = "auth"
    """The broker refuses the credentials, or a topic."""
    TLS = "tls"
    PROTOCOL = "protocol"
    DUPLICATE = "duplicate"
    """Another client uses the same client id."""
    CONFIG = "config"
    """A file that the settings name cannot be used."""
    STOPPED = "stopped"

    @property
    def is_error(self) -> bool:
        return self not in (
            ConnectionStatus.CONNECTING,
            ConnectionStatus.CONNECTED,
            ConnectionStatus.STOPPED,
        )

    @property
    def is_refusal(self) -> bool:
        """Whether the error stays until somebody changes a setting."""
        return self.is_error and self is not ConnectionStatus.NETWORK


@dataclass(frozen=True, slots=True)
class ConnectionReport:
    """The status and one sentence about it for people."""

    connected: bool
    status: ConnectionStatus
    message: str


NOT_CONNECTED_YET = ConnectionReport(False, ConnectionStatus.CONNECTING, "not connected yet")
