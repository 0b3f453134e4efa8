"""Large arguments and results travel by reference, whatever happens to their messages."""

from __future__ import annotations

import pytest

from amqflow import AmqFlow, BlobMissing, InvalidResult
from amqflow.errors import MessageTooLarge
from amqflow.protocol import headers as h
from tests.applications import Bench

GET = 30


@pytest.fixture
async def bench(amqp_url, redis_url):
    app = AmqFlow("spine", broker=amqp_url, backend=redis_url, blob_threshold=2000,
                  blob_max_size=2_000_000, task_track_started=True)  # fmt: skip
    yield Bench(app)
    await app.aclose()


async def blob_keys(bench):
    shelf = bench.app.runtime().blobs._shelf
    return await shelf._client.command("KEYS", "amqflow-blob-*")


async def test_large_arguments_and_results_come_through_whole(bench):
    @bench.app.task
    def double(text: str) -> str:
        return text * 2

    text = "ä" * 100_000
    async with bench.working():
        result = await double.adelay(text)
        assert await result.aget(timeout=GET) == text * 2
        assert (await bench.app.AsyncResult(result.id).aoutcome()).result == text * 2
    assert len(await blob_keys(bench)) == 2


async def test_the_message_itself_stays_small(bench):
    @bench.app.task
    def take(text: str) -> int:
        return len(text)

    async with bench.working():
        pass  # a worker declares the queue
    await take.adelay("x" * 100_000)
    (envelope,) = await bench.look("default", 1)
    assert len(envelope.body) < 200
    assert envelope.headers[h.BLOB]


async def test_a_retry_and_a_compressed_body_keep_theirs(bench):
    import secrets

    noise = secrets.token_hex(50_000)

    @bench.app.task(bind=True, max_retries=2, default_retry_delay=0.2)
    def again(self, text: str) -> int:
        if self.request.retries < 1:
            raise self.retry(countdown=0.2)
        return len(text)

    async with bench.working():
        result = await again.aapply_async((noise,), compression="gzip")
        assert await result.aget(timeout=GET) == len(noise)


async def test_a_body_that_is_gone_is_parked_with_its_reason_and_its_caller_told(bench):
    @bench.app.task
    def take(text: str) -> int:
        return len(text)

    async with bench.working():
        pass
    result = await take.adelay("x" * 100_000)
    for key in await blob_keys(bench):
        await bench.app.runtime().blobs._shelf._client.command("DEL", key)
    async with bench.working():
        with pytest.raises(BlobMissing, match="kept apart"):
            await result.aget(timeout=GET)
    ((envelope, dead),) = await bench.dead()
    assert dead.reason == "blob-missing"
    assert envelope.headers[h.BLOB]


async def test_a_dead_letter_carries_its_body_itself_for_it_may_outlive_the_blob(bench):
    @bench.app.task
    def refuse(text: str) -> int:
        raise ValueError(len(text))

    text = "x" * 100_000
    async with bench.working():
        result = await refuse.adelay(text)
        with pytest.raises(ValueError, match="100000"):
            await result.aget(timeout=GET)
    ((envelope, dead),) = await bench.dead()
    assert dead.reason == "failed"
    assert h.BLOB not in envelope.headers
    assert text.encode() in envelope.body


async def test_a_result_that_is_gone_is_a_failure_that_says_so(bench):
    @bench.app.task
    def make(size: int) -> str:
        return "x" * size

    async with bench.working():
        result = await make.adelay(100_000)
        assert len(await result.aget(timeout=GET)) == 100_000
    for key in await blob_keys(bench):
        await bench.app.runtime().blobs._shelf._client.command("DEL", key)
    with pytest.raises(BlobMissing, match="too large for the result store"):
        await bench.app.AsyncResult(result.id).aget(timeout=GET)


async def test_a_result_over_its_bound_fails_the_task_with_that_reason(bench):
    @bench.app.task
    def make(size: int) -> str:
        return "x" * size

    async with bench.working():
        with pytest.raises(InvalidResult, match="blob_max_size"):
            await (await make.adelay(3_000_000)).aget(timeout=GET)


async def test_an_argument_over_every_bound_is_refused_at_the_caller(bench):
    @bench.app.task
    def take(text: str) -> int:
        return len(text)

    with pytest.raises(MessageTooLarge):
        await take.adelay("x" * 3_000_000)


async def test_a_result_that_looks_like_a_reference_is_none(bench):
    @bench.app.task
    def make(value: dict) -> dict:
        return value

    odd = {"amqflow-blob": "nothing"}
    async with bench.working():
        assert await (await make.adelay(odd)).aget(timeout=GET) == odd


async def test_large_members_of_a_chord_reach_its_body(bench):
    @bench.app.task
    def make(letter: str) -> str:
        return letter * 10_000

    @bench.app.task
    def lengths(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    from amqflow import chord

    async with bench.working():
        result = await chord([make.s(letter) for letter in "abc"], lengths.s()).aapply_async()
        assert await result.aget(timeout=GET) == [10_000] * 3
