"""Where blobs lie: Redis, a folder, or memory, this process's or a served one, by URL."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit
from weakref import WeakValueDictionary

from amqflow.errors import ConfigurationError, StoreUnavailable
from amqflow.rendezvous import is_embedded, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.guards.blobs import Shelf

#: Redis's key of a blob starts so.
PREFIX: Final = "amqflow-blob-"
#: Seconds one exchange with Redis may take: a blob is large.
DEADLINE: Final = 30.0
#: Seconds between two looks for expired files.
SWEEP: Final = 60.0
_KNOWN: Final = "redis://…, memory://, embedded://, or file:///a/folder"


class RedisShelf:
    """Blobs as plain keys of Redis that expire."""

    def __init__(self, url: str) -> None:
        """Check the URL; nothing connects yet."""
        # redis-py is an extra, and importing it costs as much as all the rest.
        from amqflow.stores.redis import RedisClient  # noqa: PLC0415

        self._client = RedisClient(url, deadline=DEADLINE)

    async def store(self, name: str, data: bytes, keep: float) -> None:
        """Keep a blob; one that is there already is kept longer where that is needed."""
        milliseconds = int(keep * 1000)
        left = await self._client.command("PTTL", PREFIX + name)
        if left < milliseconds:
            await self._client.command("SET", PREFIX + name, data, "PX", milliseconds)

    async def load(self, name: str) -> bytes | None:
        """Return a blob; None where it is not there."""
        data: bytes | None = await self._client.command("GET", PREFIX + name)
        return data

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class FolderShelf:
    """Blobs as files of one folder; a file's time of change is when it expires.

    For one machine, or a folder that all workers and callers share.
    """

    def __init__(self, folder: Path) -> None:
        """Keep files in ``folder``, which is made when the first comes."""
        self._folder = folder
        self._swept = 0.0

    async def store(self, name: str, data: bytes, keep: float) -> None:
        """Keep a blob: written beside its place and moved there, so that none is ever half."""
        with _translated(self._folder):
            await asyncio.to_thread(self._store, name, data, time.time() + keep)

    async def load(self, name: str) -> bytes | None:
        """Return a blob; None where it is not there, or has expired."""
        with _translated(self._folder):
            return await asyncio.to_thread(self._load, name)

    async def close(self) -> None:
        """Do nothing: no file is open."""

    def _store(self, name: str, data: bytes, until: float) -> None:
        place = self._folder / name
        with contextlib.suppress(FileNotFoundError):
            if place.stat().st_size == len(data):
                os.utime(place, (until, max(until, place.stat().st_mtime)))
                return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        handle, beside = tempfile.mkstemp(prefix=".new-", dir=self._folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.utime(beside, (until, until))
            Path(beside).replace(place)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise

    def _load(self, name: str) -> bytes | None:
        place = self._folder / name
        try:
            if place.stat().st_mtime < time.time():
                return None
            return place.read_bytes()
        except FileNotFoundError:
            return None

    def _sweep(self) -> None:
        """Remove what has expired, now and then; what another process removed first is fine."""
        now = time.time()
        if now - self._swept < SWEEP:
            return
        self._swept = now
        for file in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                # A file under way is young: its time is that of its last write.
                if file.stat().st_mtime < now - SWEEP:
                    file.unlink()


@contextlib.contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Turn the system's errors into StoreUnavailable."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"the blob folder {folder} cannot be used now: {error}") from error


class MemoryShelf:
    """Blobs in this process's memory, for tests and scripts."""

    def __init__(self, most: int) -> None:
        """Keep at most ``most`` bytes; the oldest go first."""
        self._most = most
        self._lock = threading.Lock()
        self._blobs: dict[str, tuple[bytes, float]] = {}
        self._size = 0

    async def store(self, name: str, data: bytes, keep: float) -> None:
        """Keep a blob."""
        now = time.monotonic()
        with self._lock:
            _, until = self._drop(name)
            for old in [old for old, (_, end) in self._blobs.items() if end <= now]:
                self._drop(old)
            while self._blobs and self._size + len(data) > self._most:
                self._drop(next(iter(self._blobs)))
            self._blobs[name] = (data, max(until, now + keep))
            self._size += len(data)

    async def load(self, name: str) -> bytes | None:
        """Return a blob; None where it is not there."""
        with self._lock:
            data, until = self._blobs.get(name, (None, 0.0))
            return data if until > time.monotonic() else None

    async def close(self) -> None:
        """Do nothing: others of this process may use it."""

    def _drop(self, name: str) -> tuple[bytes, float]:
        data, until = self._blobs.pop(name, (b"", 0.0))
        self._size -= len(data)
        return data, until


class MemoryShelves:
    """The shelves of ``memory://`` by name: what two applications of one process share."""

    def __init__(self) -> None:
        """Know no name yet."""
        self._lock = threading.Lock()
        self._shelves: WeakValueDictionary[str, MemoryShelf] = WeakValueDictionary()

    def get(self, name: str, *, most: int) -> MemoryShelf:
        """Return the shelf of a name, made on first use."""
        with self._lock:
            shelf = self._shelves.get(name)
            if shelf is None:
                shelf = self._shelves[name] = MemoryShelf(most)
            return shelf


#: The one thing of this module that processes have once: memory itself.
_MEMORY: Final = MemoryShelves()


def open_shelf(url: str, *, app_name: str, most: int) -> Shelf:
    """Return the shelf a ``blob_store`` URL names; nothing connects yet.

    Args:
        url: ``redis://…``, ``rediss://…``, ``unix://…``, ``memory://[name]``,
            ``embedded://[name]``, ``file:///folder``.
        app_name: Names the shelf of a plain ``memory://``.
        most: Bytes of all blobs in memory.

    Raises:
        ConfigurationError: It names none.
    """
    scheme, found, _ = url.partition("://")
    if not found:
        raise ConfigurationError(f"blob_store is no URL; use {_KNOWN}")
    try:
        parts = urlsplit(url)
    except ValueError:  # not "from": it may hold a password
        raise ConfigurationError(f"blob_store cannot be read; use {_KNOWN}") from None
    if scheme in {"redis", "rediss", "unix"}:
        return RedisShelf(url)
    if is_embedded(url):
        from amqflow.guards.embedded import EmbeddedShelf  # noqa: PLC0415 - for its users only

        return EmbeddedShelf(name_of(url))
    if scheme == "memory":
        return _MEMORY.get(parts.netloc or app_name, most=most)
    if scheme == "file":
        folder = Path(unquote(parts.path))
        if parts.netloc or not folder.is_absolute() or folder == Path("/"):
            raise ConfigurationError(
                "blob_store: write the folder with its whole path, as in file:///var/lib/shop/blobs"
            )
        return FolderShelf(folder)
    raise ConfigurationError(f"blob_store {scheme}:// is not known; use {_KNOWN}")


def default_shelf(backend: str | None) -> str | None:
    """Return the URL of the blob store where none is set: that of a result store that can be one.

    ``rpc://`` and no store at all keep nothing for others; SQL is no place for megabytes.
    """
    scheme = (backend or "").partition("://")[0]
    return backend if scheme in {"redis", "rediss", "unix", "memory", "embedded"} else None
