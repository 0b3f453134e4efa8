"""A test's own virtual host, and the applications that use it instead of their own broker."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final

from amqflow.app import Hosted
from amqflow.errors import ConfigurationError
from amqflow.protocol import new_id
from amqflow.provision import apply
from amqflow.results.open import open_store
from amqflow.testing.reading import dead_of, enqueued_of
from amqflow.topology import BrokerFacts

if TYPE_CHECKING:
    from amqflow.abc import ResultStore
    from amqflow.app import App
    from amqflow.clock import Clock
    from amqflow.testing.clock import SteppedClock
    from amqflow.testing.reading import Dead, Enqueued
    from amqflow.testing.server import BrokerThread

_NUMBERS: Final = itertools.count(1)


class VhostBroker:
    """One virtual host of the session's broker: what the fixture ``amqflow_broker`` gives."""

    def __init__(self, server: BrokerThread) -> None:
        """Make the virtual host."""
        self.server = server
        self.vhost = f"test-{next(_NUMBERS)}"
        server.call(lambda: server.broker.add_vhost(self.vhost))
        self._bound: dict[App, Clock] = {}
        self._stores: list[ResultStore | None] = []

    @property
    def url(self) -> str:
        """The ``amqp://`` URL of the virtual host, for any AMQP client."""
        return self.server.broker.vhost_url(self.vhost)

    @property
    def management_url(self) -> str | None:
        """The URL of the broker's HTTP management API."""
        return self.server.broker.management_url

    @property
    def clock(self) -> SteppedClock:
        """The time of the broker and of bound applications; ``clock.step(60)`` is a minute."""
        return self.server.clock

    def bind(self, app: App, *, backend: str | None = None) -> App:
        """Let an application use this virtual host until the test ends; return it.

        Its tasks' queues are made, so that calls have somewhere to go; results are kept in memory.

        Args:
            app: the application; bind it when its tasks are declared.
            backend: a result store's URL instead of memory.
        """
        if app.hosted is not None:
            message = f"the application {app.main!r} is bound to another broker already"
            raise ConfigurationError(message)
        app.import_modules()
        if backend is None:
            backend = f"memory://{self.vhost}-{new_id()}"
            # Held: the memory of a name lasts as long as somebody uses it.
            self._stores.append(open_store(backend, app_name=app.main))
        self._bound[app] = app.clock
        app.clock = self.clock
        app.hosted = Hosted(self.url, backend, self.management_url, self)
        self.server.run(_provide(app))
        return app

    def close(self) -> None:
        """Give the applications back what they had, and remove the virtual host."""
        for app, clock in self._bound.items():
            app.close_everywhere()
            app.hosted = None
            app.clock = clock
        self._bound.clear()
        self._stores.clear()
        self.server.call(lambda: self.server.broker.remove_vhost(self.vhost))

    # -- looking ---------------------------------------------------------------------------

    def enqueued(self) -> list[Enqueued]:
        """Return every task of this virtual host that waits to be run, queue by queue."""
        tasks = self._tasks()
        found = (enqueued_of(seen, tasks) for seen in self.server.look(self.vhost))
        return [each for each in found if each is not None]

    def dead(self) -> list[Dead]:
        """Return every task that was parked."""
        tasks = self._tasks()
        found = (dead_of(seen, tasks) for seen in self.server.look(self.vhost))
        return [each for each in found if each is not None]

    def _tasks(self) -> dict[str, Any]:
        return {name: task for app in self._bound for name, task in app.tasks.items()}


async def _provide(app: App) -> None:
    """Make what the application's tasks need, as its worker would."""
    try:
        async with asyncio.timeout(20):
            transport = app.runtime().transport
            facts = BrokerFacts((await transport.server()).version)
            await apply(app.derived_topology(facts), transport, fresh=True)
    finally:
        await app.aclose()


def broker_of(app: App) -> VhostBroker:
    """Return the virtual host an application is bound to.

    Raises:
        ConfigurationError: it is bound to none.
    """
    broker = app.hosted.broker if app.hosted is not None else None
    if not isinstance(broker, VhostBroker):
        message = (
            f"the application {app.main!r} is not bound to a test's broker: use the fixture "
            "amqflow_app, or amqflow_broker.bind(app)"
        )
        raise ConfigurationError(message)
    return broker
