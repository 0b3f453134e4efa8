"""The broker without its sockets: virtual hosts, users, connections, timers and faults."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from amqflow.broker.faults import Faults
from amqflow.broker.limits import Limits
from amqflow.broker.timers import Timers
from amqflow.broker.users import User
from amqflow.broker.vhost import VirtualHost

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from amqflow.broker.channel import Channel
    from amqflow.broker.connection import Connection
    from amqflow.clock import Clock


class Node:
    """What all connections of one broker share.

    Args:
        name: what it calls itself.
        users: passwords by name; each may do everything everywhere.
        vhosts: names of the virtual hosts it begins with.
        clock: the time that TTLs, ``x-expires`` and ``x-death`` go by.
    """

    def __init__(
        self, name: str, users: Mapping[str, str], vhosts: Iterable[str], clock: Clock
    ) -> None:
        """Begin with nobody connected."""
        self.name = name
        #: Where it listens, as connections' names tell it.
        self.address = name
        self.clock = clock
        self.limits = Limits()
        self.timers = Timers(clock)
        self.users = {
            user: User(user, password, everywhere=True) for user, password in users.items()
        }
        self.vhosts = {vhost: VirtualHost(self, vhost) for vhost in vhosts}
        self.connections: dict[Connection, None] = {}
        self.faults = Faults(self)
        #: Where replies to amq.rabbitmq.reply-to go, by the rest of the reply queue's name.
        self.reply_consumers: dict[str, Channel] = {}

    def add_vhost(self, name: str) -> VirtualHost:
        """Create a virtual host; return the one of this name where there is one."""
        if name not in self.vhosts:
            self.vhosts[name] = VirtualHost(self, name)
        return self.vhosts[name]

    def remove_vhost(self, name: str) -> bool:
        """Delete a virtual host with all it holds; its connections are closed."""
        vhost = self.vhosts.pop(name, None)
        if vhost is None:
            return False
        for connection in [one for one in self.connections if one.vhost is vhost]:
            connection.shut(f"vhost '{name}' is deleted")
        vhost.close()
        for user in self.users.values():
            user.permissions.pop(name, None)
        return True

    def unique_name(self, prefix: str) -> str:
        """Return a name for what a client left nameless: ``amq.gen-…``."""
        return f"{prefix}-{secrets.token_urlsafe(16)}"

    def restart(self) -> None:
        """Forget what a restart forgets; connections are ended by the caller first."""
        self.reply_consumers.clear()
        for vhost in self.vhosts.values():
            vhost.forget_transient()
