"""Which store a URL names."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from amqflow import rendezvous
from amqflow.errors import ConfigurationError
from amqflow.results.embedded import EmbeddedStore
from amqflow.results.memory import MemoryStore, Records
from amqflow.results.rpc import RpcStore

if TYPE_CHECKING:
    from amqflow.abc import ResultStore
    from amqflow.results.rpc import Replies

_KNOWN: Final = "redis://, rediss://, unix://, rpc://, memory://, embedded:// or None"


class MemoryNames:
    """The records of ``memory://`` by name: what makes two apps of one process share them.

    A name lives as long as some store of it; nothing is kept for a name nobody uses.
    """

    def __init__(self) -> None:
        """Know no name yet."""
        self._lock = threading.Lock()
        self._records: WeakValueDictionary[str, Records] = WeakValueDictionary()

    def get(self, name: str, *, result_expires: float) -> Records:
        """Return the records of ``name``, made on first use."""
        with self._lock:
            records = self._records.get(name)
            if records is None:
                records = self._records[name] = Records(result_expires=result_expires)
            return records


#: The one thing of this package that processes have once: memory itself.
_MEMORY: Final = MemoryNames()


def open_store(
    url: str | None,
    *,
    app_name: str,
    result_expires: float = 86400.0,
    replies: Replies | None = None,
    result_persistent: bool = False,
) -> ResultStore | None:
    """Return the store a ``backend=`` names, for one event loop; ``await store.open()`` connects.

    Args:
        url: ``redis://…``, ``rediss://…``, ``unix://…`` (Redis), ``rpc://``, ``memory://[name]``,
            ``embedded://[name]``, or None.
        app_name: Names the records of a plain ``memory://``: two stores of one app share them.
        result_expires: Seconds a result is kept; 0 keeps it for ever.
        replies: The application's reply queue, which ``rpc://`` needs.
        result_persistent: Celery's setting of this name, for ``rpc://``.

    Returns:
        The store; None where results are kept nowhere.

    Raises:
        ConfigurationError: The URL names no store that is here; the message says what to use.
    """
    if url is None or url in {"", "disabled://"}:
        return None
    scheme = _scheme(url)
    if scheme in {"redis", "rediss", "unix"}:
        return _redis(url, result_expires)
    if scheme == "memory":
        name = urlsplit(url).netloc or app_name
        return MemoryStore(_MEMORY.get(name, result_expires=result_expires))
    if scheme == rendezvous.SCHEME:
        return EmbeddedStore(rendezvous.name_of(url))
    if scheme in {"rpc", "amqp"}:
        if replies is None:
            raise ConfigurationError("backend rpc:// works only inside an AmqFlow application")
        return RpcStore(replies, persistent=result_persistent)
    if scheme.partition("+")[0] in {"sqlite", "postgresql", "postgres", "db", "mysql"}:
        raise ConfigurationError(
            f"backend {scheme}://: SQL result stores come in a later release; until then use "
            "redis://host:6379/0, or rpc:// for results that only their caller reads"
        )
    raise ConfigurationError(f"backend {scheme}:// is not known; use {_KNOWN}")


def _scheme(url: str) -> str:
    """Return the scheme; the rest of a wrong URL may hold a password and is not shown."""
    scheme, found, _ = url.partition("://")
    if not found or not scheme.replace("+", "").replace("-", "").isalnum():
        raise ConfigurationError(f"the backend is no URL; use {_KNOWN}")
    return scheme.lower()


def _redis(url: str, result_expires: float) -> ResultStore:
    # Here, and not above: redis-py is an extra, and importing it costs as much as all the rest.
    try:
        from amqflow.results.redis import RedisStore  # noqa: PLC0415
    except ImportError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "redis":
            raise
        raise ConfigurationError(
            "backend redis:// needs the redis extra: pip install 'amqflow[redis]'"
        ) from exc
    return RedisStore(url, result_expires=result_expires)
