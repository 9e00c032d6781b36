"""How to connect: with which version of MQTT, and whether with retained messages."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edged.mqtt.link_events import Disconnected


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """One way to connect.

    Attributes:
        protocol: 5 or 4 (MQTT 3.1.1).
        retain: whether the Will and the states are retained.
    """

    protocol: int = 5
    retain: bool = True


class ConnectOptionsSelector:
    """Chooses the next way to connect by how the last attempt ended.

    A broker may say what it does not support, or just close the connection. In the second case
    the next attempt changes one thing, and returns to `preferred` later: the network may have
    been the cause.
    """

    def __init__(self, preferred: ConnectOptions, silences: int = 2) -> None:
        """`silences` is the number of unexplained ends after which something is changed."""
        self.options = preferred
        self._preferred = preferred
        self._guessed = False  # the options are a guess, after unexplained ends
        self._silences_before_guess = silences
        self._silences = 0

    def disconnected(self, event: Disconnected) -> bool:
        """Notes the end of an attempt or of a connection.

        Returns whether the broker said what to change, so that the next attempt may follow at once.
        """
        if event.bad_version and self.options.protocol >= 5:
            self._preferred = self.options = replace(self.options, protocol=4)
            return True
        if event.retain_refused and self.options.retain:
            self._preferred = self.options = replace(self.options, retain=False)
            return True
        if not event.silent:
            if self._guessed:
                self._reset()
            else:
                self._silences = 0
            return False
        self._silences += 1
        if self._silences >= self._silences_before_guess:
            self._guess()
        return False

    def _guess(self) -> None:
        """Tries MQTT 3.1.1, then also without a retained Will, then begins anew."""
        if self.options.protocol >= 5:
            self.options, self._guessed = replace(self.options, protocol=4), True
        elif self.options.retain:
            self.options, self._guessed = replace(self.options, retain=False), True
        else:
            self._reset()

    def _reset(self) -> None:
        self.options, self._guessed = self._preferred, False
        self._silences = self._silences_before_guess - 1
