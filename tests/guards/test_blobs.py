"""Blobs: what is too large for a message lies elsewhere, by reference; one suite for every shelf."""

from __future__ import annotations

import os
import time
import uuid

import pytest

from amqflow.clock import SYSTEM_CLOCK
from amqflow.errors import BlobMissing, ConfigurationError, MessageTooLarge, StoreUnavailable
from amqflow.guards.blobs import Blobs, ClaimCheck
from amqflow.guards.embedded import shelf_methods
from amqflow.guards.shelves import FolderShelf, MemoryShelf, default_shelf, open_shelf
from amqflow.protocol import Envelope
from tests.stores.serving import served

LARGE = b"x" * 5000


@pytest.fixture(params=["memory", "redis", "file", "embedded"])
async def shelf(request, tmp_path, monkeypatch):
    if request.param == "embedded":
        async with served(shelf_methods(MemoryShelf(100_000)), tmp_path, monkeypatch) as entry:
            made = open_shelf(entry.url, app_name="shop", most=100_000)
            yield made
            await made.close()
        return
    url = {
        "memory": lambda: f"memory://{uuid.uuid4()}",
        "redis": lambda: request.getfixturevalue("redis_url"),
        "file": lambda: f"file://{tmp_path}/blobs",
    }[request.param]()
    made = open_shelf(url, app_name="shop", most=100_000)
    yield made
    await made.close()


@pytest.fixture
def blobs(shelf):
    return Blobs(shelf, expires=60, most=10_000)


async def test_what_is_put_is_got_by_its_reference(blobs):
    ref = await blobs.put(LARGE)
    assert await blobs.get(ref) == LARGE
    assert await blobs.put(b"") != ref


async def test_the_same_content_has_the_same_reference(blobs):
    assert await blobs.put(LARGE) == await blobs.put(bytes(LARGE))


async def test_a_blob_over_the_bound_is_refused_both_ways(blobs, shelf):
    with pytest.raises(MessageTooLarge, match="blob_max_size"):
        await blobs.put(b"x" * 10_001)
    ref = await Blobs(shelf, expires=60, most=100_000).put(b"x" * 10_001)
    with pytest.raises(BlobMissing, match="over the bound"):
        await blobs.get(ref)


async def test_one_that_has_expired_is_missing(shelf):
    short = Blobs(shelf, expires=0.05, most=10_000)
    ref = await short.put(LARGE)
    lasting = await short.put(LARGE + b"y", keep=60)
    from tests.servers.wait import until

    async def gone():
        try:
            await short.get(ref)
        except BlobMissing as error:
            return "expired" in str(error)

    await until(gone, deadline=30)
    assert await short.get(lasting) == LARGE + b"y"


@pytest.mark.parametrize(
    "ref", ["", "../../etc/passwd", "a" * 64, "A" * 64 + ".5", "0" * 64 + ".5"]
)
async def test_what_is_no_reference_of_ours_is_missing(blobs, ref):
    with pytest.raises(BlobMissing):
        await blobs.get(ref)


async def test_changed_content_is_found_out(blobs, shelf):
    ref = await blobs.put(LARGE)
    await shelf.store(ref, b"y" * len(LARGE), 120)
    if await shelf.load(ref) != LARGE:
        with pytest.raises(BlobMissing, match="has been changed"):
            await blobs.get(ref)


async def test_a_folder_that_cannot_be_written_holds(tmp_path):
    (tmp_path / "file").write_text("in the way")
    blobs = Blobs(FolderShelf(tmp_path / "file"), expires=60, most=10_000)
    with pytest.raises(StoreUnavailable, match="cannot be used now"):
        await blobs.put(LARGE)


async def test_a_folder_is_swept_of_what_has_expired(tmp_path):
    folder = tmp_path / "blobs"
    blobs = Blobs(FolderShelf(folder), expires=60, most=10_000)
    old = folder / await blobs.put(LARGE)
    os.utime(old, (time.time() - 600,) * 2)
    await Blobs(FolderShelf(folder), expires=60, most=10_000).put(b"another")
    assert not old.exists()
    assert len(list(folder.iterdir())) == 1


async def test_memory_is_bounded():
    blobs = Blobs(MemoryShelf(12_000), expires=60, most=10_000)
    first, second, third = [await blobs.put(LARGE + bytes([number])) for number in range(3)]
    assert await blobs.get(third)
    assert await blobs.get(second)
    with pytest.raises(BlobMissing):
        await blobs.get(first)


@pytest.mark.parametrize(
    "url",
    [
        "here",
        "s3://bucket",
        "redis://[",
        "memory://[",
        "file://host/folder",
        "file:relative",
        "file:///",
    ],
)
def test_a_url_that_names_no_place_is_refused(url):
    with pytest.raises(ConfigurationError, match="blob_store"):
        open_shelf(url, app_name="shop", most=1)


def test_the_result_store_is_the_blob_store_where_it_can_be_one():
    assert default_shelf("redis://h/0") == "redis://h/0"
    assert default_shelf("memory://") == "memory://"
    assert default_shelf("embedded://") == "embedded://"
    for other in (None, "rpc://", "sqlite+aiosqlite:///x.db"):
        assert default_shelf(other) is None


async def test_only_a_large_body_is_exchanged_and_comes_back_as_it_was(blobs):
    claims = ClaimCheck(blobs, threshold=1000, clock=SYSTEM_CLOCK)
    small = Envelope(b"[]", {"id": "1"})
    assert await claims.out(small) is small
    assert await claims.back(small) is small
    large = Envelope(LARGE, {"id": "1", "eta": "2026-01-01T00:00:00+00:00"}, message_id="1")
    sent = await claims.out(large)
    assert len(sent.body) < 200
    assert sent.headers["id"] == "1"
    assert await claims.out(sent) is sent
    assert await claims.back(sent) == large
