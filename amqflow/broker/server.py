"""The embedded broker as its users have it: started, stopped and restarted in an event loop."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from amqflow.broker import management
from amqflow.broker.limits import Limits
from amqflow.broker.line import Server
from amqflow.broker.listening import listen, reachable
from amqflow.broker.node import Node
from amqflow.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from amqflow.broker.faults import Faults
    from amqflow.clock import Clock

T = TypeVar("T")

#: Seconds between looks at a clock that is not the machine's: it may be stepped at any time.
LOOK: Final = 0.01

DEFAULT_LIMITS: Final = Limits()
_GUEST: Final = {"guest": "guest"}


class Broker:
    """An AMQP 0-9-1 server in memory, for development and tests; never for production.

    Args:
        host: the address to listen on.
        port: 0 takes a free one.
        management_port: of the HTTP API; 0 takes a free one, None: no HTTP API.
        users: passwords by name.
        vhosts: the virtual hosts to begin with.
        clock: the time of TTLs and ``x-expires``. One that is stepped is looked at every few
            milliseconds; :meth:`tick` looks at once.
        name: what the broker calls itself.
        limits: what it lets its clients do.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        management_port: int | None = None,
        *,
        users: Mapping[str, str] = _GUEST,
        vhosts: Iterable[str] = ("/",),
        clock: Clock = SYSTEM_CLOCK,
        name: str = "amqflow@localhost",
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Keep what it is to be; nothing listens yet."""
        self.host = host
        self.port = port
        self._clock = clock
        self._new_node = partial(Node, name, dict(users), tuple(vhosts), clock)
        self._node = self._new_node()
        self._node.limits = limits
        self._login = next(iter(self._node.users.values()), None)
        #: The HTTP API's port; None where there is none.
        self.management_port = management_port
        self._http: management.HttpServer | None = None
        self._numbers = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- addresses ---------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The URL of the virtual host ``/``, with the first user's name and password."""
        return self.vhost_url("/")

    def vhost_url(self, name: str) -> str:
        """Return the URL of a virtual host."""
        path = "" if name == "/" else quote(name, safe="")
        return f"amqp://{self._credentials}{self._host}:{self.port}/{path}"

    @property
    def management_url(self) -> str | None:
        """The URL of the HTTP API, with the first user's name and password; None: there is none."""
        if self.management_port is None:
            return None
        return f"http://{self._credentials}{self._host}:{self.management_port}"

    @property
    def _host(self) -> str:
        """The address as URLs write it: one of IPv6 stands in brackets (RFC 3986, 3.2.2)."""
        host = reachable(self.host)
        return f"[{host}]" if ":" in host else host

    @property
    def _credentials(self) -> str:
        user = self._login
        if user is None:
            return ""
        return f"{quote(user.name, safe='')}:{quote(user.password, safe='')}@"

    # -- living ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        self._loop = asyncio.get_running_loop()
        self._node.timers.on_earlier = self._plan
        await self._listen()
        self._plan()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server, self.port = await listen(
            lambda port: loop.create_server(
                lambda: Server(self._node, next(self._numbers)), self.host, port, backlog=1024
            ),
            self.port,
        )
        self._node.address = f"{self.host}:{self.port}"
        if self.management_port is None:
            return
        http = management.HttpServer(management.Management(self._node))
        try:
            self.management_port = await http.start(self.host, self.management_port)
        except OSError:
            self._server.close()
            raise
        self._http = http

    async def stop(self) -> None:
        """End every connection and forget everything.

        :meth:`start` begins again as it was made, with the limits set last, on the same ports.
        """
        await self.suspend()
        for name in list(self._node.vhosts):
            self._node.remove_vhost(name)
        limits = self._node.limits
        self._node = self._new_node()
        self._node.limits = limits

    async def restart(self) -> None:
        """Drop every connection and come back on the same port.

        Durable exchanges, queues and bindings stay, and persistent messages in them; messages
        that were out for acknowledgement are delivered again. Everything else is gone.
        """
        await self.suspend()
        await self.start()

    async def suspend(self, *, crash: bool = False) -> None:
        """Stop as a restart does; :meth:`start` comes back on the same ports.

        Args:
            crash: cut the connections without a word, as a killed broker does.
        """
        server, self._server = self._server, None
        if server is not None:
            server.close()
        http, self._http = self._http, None
        if http is not None:
            await http.close()
        # All go at once: what one gives back must not be delivered to, and counted by, another.
        for connection in self._node.connections:
            connection.congested = True
        if not crash:
            for connection in list(self._node.connections):
                connection.shut("broker forced connection closure with reason 'shutdown'")
            # One turn for the farewells to leave; who does not read them is cut off.
            await asyncio.sleep(0)
        for connection in list(self._node.connections):
            connection.abort()
        self._node.restart()
        self._node.timers.on_earlier = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- virtual hosts -----------------------------------------------------------------------

    def add_vhost(self, name: str) -> str:
        """Create a virtual host and return its URL; nothing changes where it is there."""
        self._in_loop(lambda: self._node.add_vhost(name))
        return self.vhost_url(name)

    def remove_vhost(self, name: str) -> None:
        """Delete a virtual host with all it holds; its connections are closed."""
        self._in_loop(lambda: self._node.remove_vhost(name))

    # -- misbehaving, and time ---------------------------------------------------------------

    @property
    def faults(self) -> Faults:
        """The fault switch. Use it in the broker's own thread."""
        return self._node.faults

    @property
    def limits(self) -> Limits:
        """What clients may do; what is set here holds from the next message and delivery on."""
        return self._node.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._node.limits = limits

    def tick(self) -> int:
        """Look at the clock and do what is due; return how much it was."""
        done = self._in_loop(self._node.timers.run_due)
        self._in_loop(self._plan)
        return done

    def _plan(self) -> None:
        """Have the loop call when the next timer is due."""
        loop = self._loop
        due = self._node.timers.next_due()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if loop is None or due is None:
            return
        wait = max(0.0, due - self._clock.monotonic())
        if self._clock is not SYSTEM_CLOCK:
            wait = LOOK
        self._timer = loop.call_later(wait, self._due)

    def _due(self) -> None:
        self._timer = None
        try:
            self._node.timers.run_due()
        finally:
            self._plan()  # whatever went wrong with one timer, the others are due

    def _in_loop(self, action: Callable[[], T]) -> T:
        """Do something in the broker's thread, and return when it is done."""
        loop = self._loop
        try:
            here: Any = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if loop is None or here is loop or not loop.is_running():
            return action()

        async def run() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), loop).result()
