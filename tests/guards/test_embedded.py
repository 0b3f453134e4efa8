"""Large values in the memory of who serves an `embedded://` name: what only that store does."""

import secrets

import pytest

from amqflow.errors import StoreUnavailable
from amqflow.guards import embedded
from amqflow.guards.embedded import EmbeddedShelf, shelf_methods
from amqflow.guards.shelves import MemoryShelf
from tests.stores.serving import served


async def test_a_blob_comes_in_pieces_and_is_read_by_others(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "PIECE", 1000)
    async with served(shelf_methods(MemoryShelf(1_000_000)), tmp_path, monkeypatch) as entry:
        one, other = EmbeddedShelf(entry.name), EmbeddedShelf(entry.name)
        for size in (0, 1, 999, 1000, 1001, 3000, 3500):
            data = secrets.token_bytes(size)
            await one.store(f"of {size}", data, 60.0)
            assert await other.load(f"of {size}") == data
        assert await other.load("nothing") is None
        await one.close()
        await other.close()


async def test_a_blob_of_which_a_piece_is_gone_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "PIECE", 1000)
    async with served(shelf_methods(MemoryShelf(4000)), tmp_path, monkeypatch) as entry:
        shelf = EmbeddedShelf(entry.name)
        await shelf.store("old", bytes(2500), 60.0)
        await shelf.store("new", bytes(2500), 60.0)
        assert await shelf.load("old") is None
        assert await shelf.load("new") == bytes(2500)
        await shelf.close()


async def test_a_store_that_is_gone_is_unavailable(tmp_path, monkeypatch):
    async with served(shelf_methods(MemoryShelf(1000)), tmp_path, monkeypatch) as entry:
        shelf = EmbeddedShelf(entry.name)
        await shelf.store("blob", b"x", 60.0)
    with pytest.raises(StoreUnavailable):
        await shelf.load("blob")
    await shelf.close()
