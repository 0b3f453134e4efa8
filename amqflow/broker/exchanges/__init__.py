"""Exchanges: each kind answers one question, which bindings a message takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from amqflow.broker.exchanges.default import Default
from amqflow.broker.exchanges.direct import Direct
from amqflow.broker.exchanges.fanout import Fanout
from amqflow.broker.exchanges.headers import Headers
from amqflow.broker.exchanges.topic import Topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from amqflow.broker.bindings import Binding
    from amqflow.broker.message import Message


class Kind(Protocol):
    """The routing of one exchange: its bindings in the order that answers fastest."""

    def add(self, binding: Binding) -> None:
        """Take a binding in; it is not there yet.

        Raises:
            Refusal: its arguments mean nothing to this kind.
        """
        ...

    def remove(self, binding: Binding) -> None:
        """Let a binding go; it is there."""
        ...

    def route(self, message: Message) -> Iterable[Binding]:
        """Return the bindings a message takes; one may come twice."""
        ...


#: The types a client may declare.
KINDS: Final[dict[str, Callable[[], Kind]]] = {
    "direct": Direct,
    "fanout": Fanout,
    "headers": Headers,
    "topic": Topic,
}

#: What every virtual host has from the beginning (RabbitMQ's predeclared exchanges).
PREDECLARED: Final = {
    "": "direct",
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.rabbitmq.trace": "topic",
    "amq.topic": "topic",
}

__all__ = ["KINDS", "PREDECLARED", "Default", "Kind"]
