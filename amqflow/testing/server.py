"""The broker of a test session: in this process, in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from amqflow.app.loopthread import LoopThread
from amqflow.broker import Broker
from amqflow.broker.looking import look, seconds_to_next
from amqflow.testing.clock import SteppedClock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Self

    from amqflow.broker.looking import Seen

T = TypeVar("T")

#: Seconds the broker's thread may take for anything asked of it.
TIMEOUT: Final = 30.0


class BrokerThread:
    """A broker that tests in any thread or loop can use and look into."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self.clock = SteppedClock()
        self._thread = LoopThread()
        self._broker: Broker | None = None

    @property
    def broker(self) -> Broker:
        """The broker, once started. Other threads call it through :meth:`call`."""
        assert self._broker is not None, "not started"
        return self._broker

    def __enter__(self) -> Self:
        """Start."""
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the broker and its thread."""
        self.run(self.broker.stop())
        self._thread.stop()

    async def _start(self) -> None:
        self._broker = Broker(management_port=0, clock=self.clock)
        await self._broker.start()

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine in the broker's loop; blocks, in a test's event loop too."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._thread.loop).result(TIMEOUT)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the broker's thread and return what it returns."""

        async def called() -> T:
            return function()

        return self.run(called())

    def look(self, vhost: str) -> list[Seen]:
        """Return every message of a virtual host, left as it is."""
        return self.call(lambda: look(self.broker, vhost))

    def skip(self) -> bool:
        """Move time ahead to the next thing the broker will do by itself; False: there is none."""

        def skip() -> bool:
            seconds = seconds_to_next(self.broker)
            if seconds is None:
                return False
            self.clock.step(seconds)
            self.broker.tick()
            return True

        return self.call(skip)
