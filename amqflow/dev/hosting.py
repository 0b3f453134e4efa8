"""Hosts a broker and a result store in this process, and lets others find them by name."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from amqflow import rendezvous
from amqflow.broker import Broker
from amqflow.clock import SYSTEM_CLOCK
from amqflow.errors import AmqflowError
from amqflow.guards.embedded import rate_methods, revocation_methods, shelf_methods
from amqflow.guards.rates import SharedRates
from amqflow.guards.revocations import SharedRevocations
from amqflow.guards.shelves import MemoryShelf
from amqflow.rendezvous import Rendezvous
from amqflow.results import embedded as results
from amqflow.results.memory import Records
from amqflow.scheduler import served as schedules
from amqflow.stores.server import StoreServer
from amqflow.workflow.stores import embedded as chords
from amqflow.workflow.stores.memory import Chords

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from amqflow.stores.server import Method

#: The machine itself: a broker without real users is nobody else's to reach.
LOOPBACK: Final = "127.0.0.1"
#: Bytes of all large bodies and results kept in memory; the oldest go first.
BLOBS: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What a command line may say of a host; port 0 takes a free one, None leaves a part out."""

    host: str = LOOPBACK
    port: int = 0
    management_port: int | None = 0
    vhosts: Sequence[str] = ("/",)
    store: bool = True


@dataclass(slots=True)
class Host:
    """A broker and a store, in the running event loop; ``async with`` starts and stops them.

    ``name`` None: nobody is to find them by a name.
    """

    name: str | None
    options: HostOptions = field(default_factory=HostOptions)
    _broker: Broker | None = None
    _store: StoreServer | None = None
    _entry: Rendezvous | None = None

    @property
    def entry(self) -> Rendezvous:
        """Where all of it is."""
        assert self._entry is not None, "not started"
        return self._entry

    async def __aenter__(self) -> Self:
        """Start.

        Raises:
            AmqflowError: the name is served by another process, or a port is taken.
        """
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Withdraw the name and stop."""
        await self._stop()

    async def _start(self) -> None:
        options = self.options
        broker = Broker(
            host=options.host,
            port=options.port,
            management_port=options.management_port,
            vhosts=tuple(options.vhosts),
        )
        try:
            await broker.start()
        except OSError as error:
            wanted = [str(port) for port in (options.port, options.management_port) if port]
            message = (
                f"cannot listen on {options.host}, port {' or '.join(wanted) or 'any'}: "
                f"{error.strerror or error}; take others with --port and --management-port (0: any)"
            )
            raise AmqflowError(message) from error
        self._broker = broker
        token = secrets.token_urlsafe(24)
        if options.store:
            self._store = StoreServer(_methods(), token=token)
            await self._store.start()
        entry = Rendezvous(
            name=self.name or "",
            pid=os.getpid(),
            broker=broker.url,
            management=broker.management_url,
            store=self._store.address if self._store is not None else None,
            token=token,
        )
        if self.name is not None:
            rendezvous.announce(entry)
        self._entry = entry

    async def _stop(self) -> None:
        if self._entry is not None and self.name is not None:
            rendezvous.withdraw(self._entry)
        if self._store is not None:
            await self._store.stop()
        if self._broker is not None:
            await self._broker.stop()


def _methods() -> dict[str, Method]:
    """Return all that one memory does for those who join."""
    return {
        **results.methods(Records()),
        **shelf_methods(MemoryShelf(BLOBS)),
        **revocation_methods(SharedRevocations(), SYSTEM_CLOCK),
        **rate_methods(SharedRates(), SYSTEM_CLOCK),
        **chords.methods(Chords()),
        **schedules.methods(),
    }
