"""Which chord store a result backend's URL names, and how long things live in it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from amqflow.errors import ConfigurationError
from amqflow.rendezvous import is_embedded, name_of
from amqflow.workflow.stores.memory import Chords, MemoryChords

if TYPE_CHECKING:
    from amqflow.workflow.stores.seam import ChordStore

#: Seconds who fires or fails a chord has for it before another coordinator may.
LEASE: Final = 5.0
#: Seconds a watch message may come late: a broker or every worker away for a night.
LATENESS: Final = 12 * 3600.0
#: Seconds a record is kept where results are kept for ever.
_FOREVER: Final = 365 * 86400.0


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds that a record lives while its members run, and after it has ended; and a lease."""

    record: float
    tombstone: float
    lease: float = LEASE

    @classmethod
    def of(cls, deadline: float, result_expires: float | None) -> Lifetimes:
        """Return the lifetimes that outlive the watch's deadline, its lateness and the results."""
        kept = deadline + LATENESS + (result_expires or _FOREVER)
        return cls(kept, kept)


class _Names:
    """The chords of ``memory://`` by name, as long as a store of that name lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chords: WeakValueDictionary[str, Chords] = WeakValueDictionary()

    def get(self, name: str) -> Chords:
        with self._lock:
            found = self._chords.get(name)
            if found is None:
                found = self._chords[name] = Chords()
            return found


_MEMORY: Final = _Names()


def open_chords(url: str | None, *, app_name: str, lifetimes: Lifetimes) -> ChordStore | None:
    """Return the chord store that belongs to a result backend; None where it keeps no chords.

    Args:
        url: The backend's.
        app_name: Names the chords of a plain ``memory://``.
        lifetimes: How long records and leases live.
    """
    scheme = (url or "").partition("://")[0].lower()
    if url is not None and scheme in {"redis", "rediss", "unix"}:
        # Here, and not above: redis-py is an extra, and importing it costs as much as all else.
        from amqflow.workflow.stores.redis import RedisChords  # noqa: PLC0415

        return RedisChords(url, lifetimes)
    if url is not None and is_embedded(url):
        # Here, because it needs the lifetimes of this module.
        from amqflow.workflow.stores.embedded import EmbeddedChords  # noqa: PLC0415

        return EmbeddedChords(name_of(url), lifetimes)
    if url is not None and scheme == "memory":
        return MemoryChords(lifetimes, _MEMORY.get(urlsplit(url).netloc or app_name))
    return None


def no_chords(url: str | None, what: str) -> ConfigurationError:
    """Return the error of a composition that this backend cannot hold.

    Args:
        url: The backend's.
        what: What was to be sent, ``"a chord"``.
    """
    if not url:
        have = "this application keeps no results (backend=None)"
    else:
        scheme = url.partition("://")[0]
        have = f"the backend {scheme}:// keeps each result for its own caller only"
    return ConfigurationError(
        f"{what} needs a store that counts its members, and {have}: give AmqFlow(backend=…) one "
        "such as redis://localhost:6379/0"
    )
