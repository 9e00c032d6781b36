"""Messages in memory, first in, first out, with a bound that spares the durable ones."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

from edged.mqtt.outbound import OutboundMessage


class MessageBuffer:
    """A queue of messages. One thread at a time.

    Args:
        limit: most messages that `trim` leaves.
        expendable_limit: most expendable messages among them.

    A durable message is dropped only if no expendable one is left.
    """

    def __init__(self, limit: int, expendable_limit: int) -> None:
        self._limit = limit
        self._expendable_limit = expendable_limit
        self._messages: OrderedDict[int, OutboundMessage] = OrderedDict()
        self._expendable: deque[int] = deque()  # keys of `_messages`, some of which may be gone
        self._first = 0
        self._next = 0
        self.durable = 0
        """How many durable messages it holds."""

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[OutboundMessage]:
        return iter(self._messages.values())

    def __reversed__(self) -> Iterator[OutboundMessage]:
        return reversed(self._messages.values())

    @property
    def expendable(self) -> int:
        """How many expendable messages it holds."""
        return len(self._messages) - self.durable

    def append(self, message: OutboundMessage) -> None:
        self._messages[self._next] = message
        if message.durable:
            self.durable += 1
        else:
            self._expendable.append(self._next)
        self._next += 1

    def extend(self, messages: Iterable[OutboundMessage]) -> None:
        for message in messages:
            self.append(message)

    def prepend(self, messages: Iterable[OutboundMessage]) -> None:
        """Puts `messages` in front of all others, in their order."""
        for message in reversed(list(messages)):
            self._first -= 1
            self._messages[self._first] = message
            self._messages.move_to_end(self._first, last=False)
            if message.durable:
                self.durable += 1
            else:
                self._expendable.appendleft(self._first)

    def popleft(self) -> OutboundMessage:
        """Removes and returns the oldest message. Raises KeyError if there is none."""
        key, message = self._messages.popitem(last=False)
        if message.durable:
            self.durable -= 1
        elif self._expendable and self._expendable[0] == key:
            self._expendable.popleft()
        return message

    def keep_durable(self) -> int:
        """Drops the expendable messages; returns how many."""
        return self._remove(durable=False)

    def keep_expendable(self) -> int:
        """Drops the durable messages, which are stored elsewhere now; returns how many."""
        return self._remove(durable=True)

    def trim(self) -> list[OutboundMessage]:
        """Removes the oldest messages beyond the limits, expendable ones first; returns them."""
        dropped: list[OutboundMessage] = []
        while self.expendable > self._expendable_limit:
            dropped.append(self._drop_expendable())
        while len(self) > self._limit:
            dropped.append(self._drop_expendable() if self.expendable else self._drop_durable())
        return dropped

    def _remove(self, *, durable: bool) -> int:
        gone = [key for key, message in self._messages.items() if message.durable is durable]
        for key in gone:
            del self._messages[key]
        if durable:
            self.durable = 0
        else:
            self._expendable.clear()
        return len(gone)

    def _drop_expendable(self) -> OutboundMessage:
        while (key := self._expendable.popleft()) not in self._messages:
            pass
        return self._messages.pop(key)

    def _drop_durable(self) -> OutboundMessage:
        self.durable -= 1
        return self._messages.popitem(last=False)[1]  # only durable ones are left
