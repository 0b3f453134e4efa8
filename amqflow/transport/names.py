"""What may be a name: queue, exchange and routing key are AMQP short strings."""

from __future__ import annotations

from typing import Final

from amqflow.errors import TopologyError

#: Bytes of a short string (AMQP 0-9-1, 4.2.5.3).
NAME_MAX: Final = 255


def check_name(name: str, what: str) -> None:
    """Refuse a name that does not fit a short string.

    RabbitMQ takes any UTF-8, not only the letters of the specification's grammar (1.2).

    Args:
        name: the name.
        what: for the error: "queue name", "routing key".

    Raises:
        TopologyError: it is longer than 255 bytes in UTF-8, or is no UTF-8 at all.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        message = f"{what} {name!r} cannot be written as UTF-8"
        raise TopologyError(message) from error
    if size > NAME_MAX:
        message = f"{what} {name[:40]!r}… has {size} bytes: AMQP allows at most {NAME_MAX}"
        raise TopologyError(message)
