"""What cannot run is parked with its reason, and the worker serves the next one (faults, 19)."""

import asyncio
import json
import pickle
import zlib
from typing import ClassVar

import pytest

from amqflow import AmqFlow
from amqflow.abc import DeadReason
from amqflow.errors import MessageTooLarge
from amqflow.protocol import Envelope, headers, new_id
from amqflow.worker import Worker
from tests.servers.wait import until


def task_headers(task="t.ok", **more):
    task_id = new_id()
    return {
        "task": task,
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "lang": "py",
        **more,
    }


BODY = b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
DEEP = b"[" * 10_000 + b"]" * 10_000


class Bomb:
    """A pickle that would run code."""

    def __reduce__(self):
        return (exec, ("raise SystemExit(9)",))


BAD = {
    "broken json": (Envelope(b"[[1", task_headers()), DeadReason.UNDECODABLE),
    "no task header": (Envelope(BODY, {"id": "x"}), DeadReason.UNDECODABLE),
    "protocol 1": (
        Envelope(json.dumps({"task": "t.ok", "id": "x", "args": []}).encode(), {}),
        DeadReason.UNDECODABLE,
    ),
    "a pickle": (
        Envelope(
            pickle.dumps(Bomb()),
            task_headers(),
            content_type="application/x-python-serialize",
            content_encoding="binary",
        ),
        DeadReason.UNDECODABLE,
    ),
    "a zip bomb": (
        Envelope(
            zlib.compress(b"[[" + b" " * 200_000_000 + b"], {}, {}]"),
            task_headers(compression="application/x-gzip"),
        ),
        DeadReason.UNDECODABLE,
    ),
    "20 MiB": (
        Envelope(b'[["' + b"x" * 20 * 2**20 + b'"], {}, {}]', task_headers()),
        DeadReason.UNDECODABLE,
    ),
    "10,000 deep": (Envelope(b"[[" + DEEP + b"], {}, {}]", task_headers()), DeadReason.UNDECODABLE),
    "not utf-8": (Envelope(b'[["\xff"], {}, {}]', task_headers()), DeadReason.UNDECODABLE),
    "empty": (Envelope(b"", task_headers()), DeadReason.UNDECODABLE),
    "unknown task": (Envelope(BODY, task_headers("no.such")), DeadReason.UNKNOWN_TASK),
    "wrong arguments": (
        Envelope(BODY.replace(b"[[]", b"[[1, 2, 3]"), task_headers()),
        DeadReason.INVALID_ARGUMENTS,
    ),
    "a foreign chord": (
        Envelope(BODY.replace(b'"chord": null', b'"chord": {"task": "x"}'), task_headers()),
        DeadReason.WORKFLOW,
    ),
    "a link that is no signature": (
        Envelope(
            BODY.replace(
                b'"callbacks": null', b'"callbacks": [{"task": "t.ok", "subtask_type": "chord"}]'
            ),
            task_headers(),
        ),
        DeadReason.WORKFLOW,
    ),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_message_is_parked_and_the_next_one_served(bench, what):
    envelope, reason = BAD[what]

    @bench.app.task(name="t.ok")
    def ok() -> int:
        return 1

    async with bench.working():
        transport = bench.app.runtime().transport
        if len(envelope.body) > 2**24 and (await transport.server()).version >= (4, 0):
            # RabbitMQ takes 16 MiB since 4.0: nobody can send a worker more.
            with pytest.raises(MessageTooLarge, match="16777216"):
                await transport.publish(envelope, "", "default", timeout=20)
            assert await (await ok.adelay()).aget(timeout=30) == 1
            return
        await transport.publish(envelope, "", "default", timeout=20)
        assert await (await ok.adelay()).aget(timeout=30) == 1
        ((parked, letter),) = await bench.dead()
    assert letter is not None
    assert letter.reason == reason
    assert letter.queue == "default"
    assert parked.body == envelope.body
    assert await bench.count("default") == 0


async def test_a_failed_task_is_parked_with_all_that_is_known(bench):
    @bench.app.task(name="t.fail")
    def fail(x):
        raise ValueError(f"bad {x}")

    async with bench.working():
        result = await fail.adelay(7)
        with pytest.raises(ValueError, match="bad 7"):
            await result.aget(timeout=30)
        ((envelope, letter),) = await bench.dead()
    assert envelope.headers["id"] == result.id
    assert letter.reason == DeadReason.FAILED
    assert "ValueError" in letter.exception
    assert letter.exception_message == "bad 7"
    assert "raise ValueError" in letter.traceback
    assert letter.worker == "test"
    assert letter.attempts == 1
    assert letter.fingerprint


async def test_an_expected_error_fails_without_being_parked(bench):
    @bench.app.task(throws=(KeyError,))
    def miss():
        raise KeyError("x")

    async with bench.working():
        with pytest.raises(KeyError):
            await (await miss.adelay()).aget(timeout=30)
        assert await bench.count("default.dead") == 0


async def test_a_result_that_cannot_be_written_fails_the_task(bench):
    @bench.app.task
    def odd():
        return object()

    @bench.app.task
    def wrong() -> int:
        return "five"  # type: ignore[return-value]

    async with bench.working():
        for task in (odd, wrong):
            with pytest.raises(Exception, match=r"object|int"):
                await (await task.adelay()).aget(timeout=30)


async def test_a_task_that_exits_or_raises_anything_is_contained(bench):
    @bench.app.task
    def leave():
        raise SystemExit(3)

    @bench.app.task
    async def cancel():
        raise asyncio.CancelledError

    class Ugly(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    @bench.app.task
    def ugly():
        raise Ugly

    @bench.app.task
    def ok():
        return 1

    async with bench.working(slots=1):
        for task in (leave, cancel, ugly):
            with pytest.raises(Exception):  # noqa: B017 - which one is not the point
                await (await task.adelay()).aget(timeout=30)
        assert await (await ok.adelay()).aget(timeout=30) == 1


async def test_a_classic_queue_marks_what_comes_back_and_a_second_return_runs_alone(bench):
    """Classic queues count nothing (design 5.6): the mark in the message does."""

    @bench.app.task(queue="old", priority=1, name="t.old")
    def old():
        return "ran"

    async with bench.working("old"):
        pass
    result = await old.adelay()
    transport = bench.app.runtime().transport
    for _ in range(2):
        # A worker that dies: take the message and close the channel.
        taken = asyncio.Event()
        consumer = transport.consume("old", lambda _, taken=taken: taken.set(), prefetch=1)
        async with asyncio.timeout(10):
            await taken.wait()
        await consumer.close()
        if not await bench.count("old.suspect"):
            break
    async with bench.working("old"):
        assert await result.aget(timeout=15) == "ran"


async def test_poison_is_parked_after_its_limit(bench):
    """A message that came back too often in the suspects' lane is not run again (fault 4)."""

    @bench.app.task(name="t.killer")
    def killer():
        raise AssertionError("must not run")

    async with bench.working():
        pass
    app = bench.app
    message = Envelope(BODY, task_headers("t.killer"))
    message.message_id = message.headers["id"]
    transport = app.runtime().transport
    await transport.publish(message, "", "default.suspect", timeout=10)
    for _ in range(3):
        taken = asyncio.Event()
        consumer = transport.consume(
            "default.suspect", lambda _, taken=taken: taken.set(), prefetch=1
        )
        async with asyncio.timeout(10):
            await taken.wait()
        await consumer.close()
    async with bench.working():
        ((_, letter),) = await bench.dead()
    assert letter.reason == DeadReason.POISON
    outcome = await app.AsyncResult(message.headers["id"]).aoutcome()
    assert outcome is not None
    assert outcome.state == "FAILURE"


async def test_middleware_changes_and_watches_the_way(amqp_url, redis_url):
    from amqflow import Middleware
    from tests.applications import Bench

    class Tenant(Middleware):
        """Carry a tenant with every message; refuse one on the way in."""

        seen: ClassVar = []

        def before_publish(self, message):
            message.extra["tenant"] = "acme"

        def after_receive(self, message):
            if message.extra.get("tenant") != "acme":
                raise PermissionError("no tenant")

        def after_execute(self, request, result, error):
            self.seen.append((request.headers["tenant"], result))

    app = AmqFlow("mw", broker=amqp_url, backend=redis_url, middleware=[Tenant()])

    @app.task(name="t.ok")
    def ok():
        return 1

    bench = Bench(app)
    async with bench.working():
        await app.runtime().transport.publish(
            Envelope(BODY, task_headers()), "", "default", timeout=5
        )
        assert await (await ok.adelay()).aget(timeout=30) == 1
        ((envelope, letter),) = await bench.dead()
        assert "no tenant" in letter.exception_message
        # It has an id, so whoever waits for it is told.
        outcome = await app.fetch_outcome(envelope.headers["id"])
        assert outcome.state == "FAILURE"
        assert "no tenant" in outcome.exception.text
        await until(lambda: Tenant.seen == [("acme", 1)], deadline=30)


async def test_a_worker_that_cannot_log_in_says_so(rabbitmq, redis_url):
    from amqflow.errors import AccessRefused

    url = rabbitmq.url.replace("guest:guest@", "guest:wrong@")
    app = AmqFlow("denied", broker=url, backend=redis_url)
    with pytest.raises(AccessRefused, match="password") as refused:
        await Worker(app).run()
    assert "wrong" not in str(refused.value)
    await app.aclose()


async def test_a_replay_raises_the_epoch_and_runs_again(bench, runs):
    @bench.app.task(name="t.once", max_retries=0)
    def once():
        runs["once"] += 1
        if runs["once"] == 1:
            raise ValueError("first")
        return "second"

    async with bench.working():
        result = await once.adelay()
        with pytest.raises(ValueError, match="first"):
            await result.aget(timeout=30)
        ((envelope, _),) = await bench.dead()
        from amqflow.protocol import replayable

        # The very same message again changes nothing; with a higher epoch it runs.
        again = Envelope(envelope.body, replayable(envelope.headers), message_id=result.id)
        transport = bench.app.runtime().transport
        await transport.publish(again, "", "default", timeout=5)
        again.headers = {**again.headers, headers.EPOCH: 1}
        await transport.publish(again, "", "default", timeout=5)

        async def done():
            return await bench.app.AsyncResult(result.id).astate() == "SUCCESS"

        await until(done, deadline=30)
    assert runs["once"] == 2
