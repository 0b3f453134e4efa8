"""The brokers the suite runs on: where they are, and which column of differences is theirs."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.broker.client import Connection


@dataclass(frozen=True, slots=True)
class Served:
    """A running broker with a virtual host of the suite's own."""

    name: str
    """Its column in `differences.TABLE`."""
    url: str
    vhost: str

    @property
    def address(self) -> tuple[str, int]:
        place = urlsplit(self.url)
        return place.hostname or "127.0.0.1", place.port or 5672

    def connect(self, **options) -> Connection:
        """Open a connection to the suite's virtual host."""
        connection = Connection(self.address)
        connection.open(**{"vhost": self.vhost} | options)
        return connection

    def connect_bare(self) -> Connection:
        """Open a socket on which nothing was said yet."""
        return Connection(self.address)
