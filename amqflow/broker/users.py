"""Who may connect, and what they may do where: three patterns, as in RabbitMQ."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from amqflow.broker.replies import Refusal, Reply, precondition_failed, resource

CONFIGURE: Final = "configure"
WRITE: Final = "write"
READ: Final = "read"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Patterns of the names a user may declare, publish or bind to, and take from."""

    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"

    def allow(self, permission: str, name: str) -> bool:
        """Whether a permission holds for a name; an empty pattern allows nothing."""
        pattern = str(getattr(self, permission))
        return pattern == ".*" or (bool(pattern) and re.search(pattern, name) is not None)


@dataclass(slots=True)
class User:
    """A name and a password; ``permissions`` by virtual host."""

    name: str
    password: str
    tags: tuple[str, ...] = ("administrator",)
    permissions: dict[str, Permissions] = field(default_factory=dict)
    #: Whether it may do everything in every virtual host, those that come later too.
    everywhere: bool = False

    def in_vhost(self, vhost: str) -> Permissions | None:
        """Return what the user may do in a virtual host; None: not enter it."""
        found = self.permissions.get(vhost)
        return Permissions() if found is None and self.everywhere else found

    def check(self, permission: str, kind: str, name: str, vhost: str) -> None:
        """Refuse what the user may not do.

        Raises:
            Refusal: 403.
        """
        allowed = self.in_vhost(vhost)
        named = name or "amq.default"
        if allowed is None or not allowed.allow(permission, named):
            place = resource(kind, named if kind == "exchange" else name, vhost)
            raise Refusal(Reply.ACCESS_REFUSED, f"access to {place} refused for user '{self.name}'")

    def check_claim(self, claimed: str | None) -> None:
        """Refuse a message that says it is another user's.

        Raises:
            Refusal: 406.
        """
        if claimed is None or claimed == self.name or "impersonator" in self.tags:
            return
        raise precondition_failed(
            f"user_id property set to '{claimed}' but authenticated user was '{self.name}'"
        )
