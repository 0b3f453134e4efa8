"""What the harness itself asks of the broker: counts, and clean-up. Uses Celery's AMQP client."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import amqp

from amqflow.topology import BrokerFacts, QueueNeeds, derive
from benchmarks.job import now
from benchmarks.process import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Broker:
    """One broker under test."""

    def __init__(self, url: str) -> None:
        """Stand for the broker at an AMQP URL."""
        self.url = url
        self._place = urlsplit(url)
        with self._connected() as connection:
            properties = connection.server_properties
        self.product = str(properties.get("product", "?"))
        self.version = str(properties["version"])
        self.facts = BrokerFacts.parse(self.version)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[amqp.Connection]:
        place = self._place
        connection = amqp.Connection(
            host=f"{place.hostname}:{place.port or 5672}",
            userid=unquote(place.username or "guest"),
            password=unquote(place.password or "guest"),
            virtual_host=unquote(place.path.removeprefix("/")) or "/",
            connect_timeout=10,
            read_timeout=30,
            write_timeout=30,
        )
        connection.connect()
        try:
            yield connection
        finally:
            connection.close()

    def ready(self, queues: Iterable[str]) -> int:
        """Return how many messages are ready in these queues; a missing queue holds none."""
        total = 0
        with self._connected() as connection:
            for queue in queues:
                channel = connection.channel()
                try:
                    total += channel.queue_declare(queue, passive=True).message_count
                    channel.close()
                except amqp.NotFound:
                    continue
        return total

    def expect(
        self, queues: Iterable[str], count: int, deadline: float = 15.0, *, twice: int = 0
    ) -> None:
        """Wait until exactly ``count`` messages are ready in these queues together.

        Counts of quorum queues follow a confirm, and a closed channel, with a little delay. While
        one dead-letters to another, what is on its way is counted in both: up to ``twice`` may be.
        """
        names = tuple(queues)
        end = now() + deadline
        while not count <= (found := self.ready(names)) <= count + twice:
            if now() > end:
                message = f"{', '.join(names)[:100]}: {found} messages ready, expected {count}"
                raise BenchmarkError(message)
            time.sleep(0.1)

    def delete(self, queues: Iterable[str], exchanges: Iterable[str] = ()) -> None:
        """Delete queues with what they hold, and exchanges."""
        with self._connected() as connection:
            channel = connection.channel()
            for queue in queues:
                channel.queue_delete(queue)
            for exchange in exchanges:
                channel.exchange_delete(exchange)

    def delete_application(self, name: str) -> None:
        """Delete what one of our applications declared, but for the ladder all share."""
        own = derive(name, {name: QueueNeeds()}, self.facts)
        self.delete(
            (
                queue.name
                for queue in own.queues
                if queue.name.startswith((name, f"amqflow.{name}."))
            ),
            (part.name for part in own.exchanges if part.name.startswith(f"amqflow.{name}.")),
        )

    def delete_ladder(self) -> None:
        """Delete the delay ladder with all that is pending in it."""
        self.delete(self.ladder_queues(), self._ladder_exchanges())

    def ladder_queues(self) -> list[str]:
        """Return the names of the ladder's queues."""
        parts = derive("bench", {}, self.facts).queues
        return [part.name for part in parts if not part.name.startswith("amqflow.bench.")]

    def _ladder_exchanges(self) -> list[str]:
        parts = derive("bench", {}, self.facts).exchanges
        return [part.name for part in parts if not part.name.startswith("amqflow.bench.")]
