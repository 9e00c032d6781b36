"""Recognises another client with the same client id."""

from __future__ import annotations

from dataclasses import replace

from edged.mqtt.connection_status import ConnectionStatus
from edged.mqtt.link_events import Disconnected

_SHORT_S = 60
_SETTLED_S = 100  # each of two such clients waits up to 72 s, and then has the link as long
_DISCONNECTS = 3


class TakeoverDetector:
    """Recognises another client with the same client id, even if the broker does not say so.

    Mosquitto 2.0 gives no reason when another client takes a session over: it just closes the
    connection. Several short connections in a row look like that.
    """

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._short = 0
        self._taken_over = False

    def settled(self, lasted_s: float, stable_after_s: float) -> bool:
        """Whether a connection that lasted so long was a good one, which resets the backoff."""
        if lasted_s < (_SETTLED_S if self._taken_over else stable_after_s):
            return False
        self._taken_over = False
        return True

    def judge(self, event: Disconnected, lasted_s: float, message_suspected: bool) -> Disconnected:
        """Returns `event`, with the status DUPLICATE if it looks like a takeover."""
        limit = _SETTLED_S if self._taken_over else _SHORT_S
        short = lasted_s < limit and not message_suspected
        self._short = self._short + 1 if event.disconnected_by_peer and short else 0
        if self._short >= _DISCONNECTS and event.status is ConnectionStatus.NETWORK:
            message = (
                f"the broker closes the connection of {self._client_id} again and again: if "
                "another device has that name, give each its own EDGED_DEVICE"
            )
            event = replace(event, status=ConnectionStatus.DUPLICATE, message=message)
        self._taken_over |= event.status is ConnectionStatus.DUPLICATE
        return event
