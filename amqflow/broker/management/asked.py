"""A request as its handler sees it: who asks, with what, and the ways to refuse it."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from amqflow.broker.channel import Channel
from amqflow.broker.connection import Connection
from amqflow.broker.tables import typed

if TYPE_CHECKING:
    from amqflow.broker.node import Node
    from amqflow.broker.tables import Table
    from amqflow.broker.users import User
    from amqflow.broker.vhost import VirtualHost


class HttpError(Exception):
    """A request that is refused: the status, and the two words RabbitMQ answers with."""

    def __init__(self, status: HTTPStatus, kind: str, reason: str) -> None:
        """Keep them."""
        super().__init__(reason)
        self.status = status
        self.kind = kind
        self.reason = reason

    @classmethod
    def not_found(cls) -> HttpError:
        """Return the 404."""
        return cls(HTTPStatus.NOT_FOUND, "Object Not Found", "Not Found")

    @classmethod
    def bad_request(cls, reason: str) -> HttpError:
        """Return a 400."""
        return cls(HTTPStatus.BAD_REQUEST, "bad_request", reason)

    @classmethod
    def unauthorised(cls, reason: str) -> HttpError:
        """Return a 401."""
        return cls(HTTPStatus.UNAUTHORIZED, "not_authorised", reason)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a handler answers."""

    node: Node
    user: User
    query: dict[str, str]
    body: dict[str, Any]

    def vhost(self, name: str) -> VirtualHost:
        """Return a virtual host.

        Raises:
            HttpError: 404, or 401: the user may not enter it.
        """
        found = self.node.vhosts.get(name)
        if found is None:
            raise HttpError.not_found()
        if self.user.in_vhost(name) is None:
            raise HttpError.unauthorised("User not authorised to access virtual host")
        return found

    def vhosts(self) -> list[VirtualHost]:
        """Return the virtual hosts the user may enter."""
        return [
            vhost
            for vhost in self.node.vhosts.values()
            if self.user.in_vhost(vhost.name) is not None
        ]

    def must_administrate(self) -> None:
        """Refuse everybody but administrators.

        Raises:
            HttpError: 401.
        """
        self._must_be({"administrator"}, "Not administrator user")

    def must_make_policies(self) -> None:
        """Refuse everybody who may not change policies.

        Raises:
            HttpError: 401.
        """
        self._must_be({"administrator", "policymaker"}, "Not policymaker user")

    def _must_be(self, tags: set[str], reason: str) -> None:
        if not tags.intersection(self.user.tags):
            raise HttpError.unauthorised(reason)

    def flag(self, name: str, *, otherwise: bool = False) -> bool:
        """Return a boolean of the body.

        Raises:
            HttpError: it is something else.
        """
        value = self.body.get(name, otherwise)
        if isinstance(value, str) and value in {"true", "false"}:
            return value == "true"
        if not isinstance(value, bool):
            raise HttpError.bad_request(f"{name} is no boolean")
        return value

    def string(self, name: str, otherwise: str = "") -> str:
        """Return a string of the body.

        Raises:
            HttpError: it is something else.
        """
        value = self.body.get(name, otherwise)
        if not isinstance(value, str):
            raise HttpError.bad_request(f"{name} is no string")
        return value

    def arguments(self) -> Table:
        """Return the arguments of the body as a field table.

        Raises:
            HttpError: they are none.
        """
        found = self.body.get("arguments") or {}
        if not isinstance(found, dict):
            raise HttpError.bad_request("arguments is no object")
        return {name: typed(value) for name, value in found.items()}

    def channel(self, vhost: VirtualHost) -> Channel:
        """Return a channel through which AMQP's own methods can be called for the user."""
        return Channel(Connection.inside(self.node, self.user, vhost), 1)
