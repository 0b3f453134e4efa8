"""Who logs in: the SASL mechanisms PLAIN (RFC 4616) and AMQPLAIN (a table of RabbitMQ's)."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from amqflow.broker import tables
from amqflow.broker.identity import MECHANISMS
from amqflow.broker.replies import Refusal, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.broker.users import User


def log_in(mechanism: str, response: bytes, users: Mapping[str, User]) -> User | None:
    """Return the user that a response of connection.start-ok proves; None: nobody.

    Raises:
        Refusal: the mechanism is not offered, or the response is none of it.
    """
    if mechanism not in MECHANISMS.split():
        raise Refusal(Reply.COMMAND_INVALID, f"unknown authentication mechanism '{mechanism}'")
    name, password = (_plain if mechanism == "PLAIN" else _amqplain)(response)
    user = users.get(name)
    if user is None:
        return None
    same = hmac.compare_digest(tables.octets(user.password), tables.octets(password))
    return user if same else None


def _plain(response: bytes) -> tuple[str, str]:
    parts = response.split(b"\x00")
    if len(parts) != 3 or parts[0]:  # noqa: PLR2004 - nobody else's authority, name, password
        raise Refusal(Reply.SYNTAX_ERROR, "response invalid")
    return tables.text(parts[1]), tables.text(parts[2])


def _amqplain(response: bytes) -> tuple[str, str]:
    try:
        table = tables.decode(response)
    except ValueError as error:
        raise Refusal(Reply.SYNTAX_ERROR, f"AMQPLAIN response invalid: {error}") from error
    name, password = table.get("LOGIN"), table.get("PASSWORD")
    if name is None or password is None:
        raise Refusal(Reply.SYNTAX_ERROR, "AMQPLAIN auth info is missing LOGIN or PASSWORD field")
    if name.type != "longstr" or password.type != "longstr":
        raise Refusal(
            Reply.SYNTAX_ERROR,
            "AMQPLAIN auth info uses unsupported type for LOGIN or PASSWORD field",
        )
    return name.value, password.value
