"""Looking into dead-letter queues: all kinds read the same, nothing is lost, the order stays."""

import asyncio
import time

import pytest

from amqflow.abc import DeadReason
from amqflow.deadletters import Filters, UnsafeLook
from amqflow.deadletters.scan import FIRST_PAGE
from amqflow.errors import NotFound
from amqflow.protocol import Envelope, new_id
from tests.deadletters.conftest import parked

QUORUM = {"x-queue-type": "quorum"}


async def rows(desk, filters=None, **options):
    return [row async for row in desk.rows(filters or Filters(), **options)]


async def test_a_failed_task_is_listed_with_all_that_is_known(corner):
    @corner.app.task(name="t.fail", queue="mail")
    def fail(x):
        raise KeyError(f"no {x}")

    async with corner.bench.working():
        result = await fail.adelay(7)
        with pytest.raises(KeyError):
            await result.aget(timeout=30)
        await corner.holds("mail.dead", 1)
    desk = await corner.desk()
    (row,) = await rows(desk)
    assert row.id == result.id
    assert (row.home, row.queue, row.task) == ("mail.dead", "mail", "t.fail")
    assert (row.reason, row.attempts, row.worker) == ("failed", 1, "test")
    assert row.exception == "builtins.KeyError"
    assert "no 7" in row.exception_message
    assert abs(row.time - time.time()) < 60
    assert not row.by_broker
    assert await corner.bench.count("mail.dead") == 1


async def test_an_application_that_never_ran_has_no_dead_letters(corner):
    assert await rows(await corner.desk()) == []


async def test_a_queue_asked_for_by_name_must_exist(corner):
    desk = await corner.desk()
    with pytest.raises(NotFound, match=r"nowhere\.dead"):
        await rows(desk, Filters(queues=("nowhere",)))


async def test_a_worker_s_queue_that_no_task_names_is_found_by_its_name(corner):
    await corner.declare("extra")
    (expected,) = await corner.park(1, queue="extra")
    (row,) = await rows(await corner.desk(), Filters(queues=("extra",)))
    assert row.id == expected


@pytest.mark.parametrize("kind", ["quorum", "classic"])
@pytest.mark.parametrize("count", [3, FIRST_PAGE + 5, 3000])
async def test_looking_loses_nothing_and_keeps_the_order(corner, kind, count):
    await corner.transport.declare_queue("theirs", arguments={"x-queue-type": kind})
    sent = [parked(number) for number in range(count)]
    await corner.publish("theirs", *sent)
    ids = [envelope.headers["id"] for envelope in sent]
    await corner.holds("theirs", count)
    desk = await corner.desk()
    for _ in range(3):
        found = await rows(desk, Filters(homes=("theirs",)))
        assert [row.id for row in found] == ids
        # At once: what a look gave back is counted when it ends.
        assert await corner.bench.count("theirs") == count


async def test_a_look_that_ends_early_gives_all_back_in_order(corner):
    await corner.declare()
    ids = await corner.park(500)
    desk = await corner.desk()
    assert [row.id for row in await rows(desk, limit=7)] == ids[:7]
    assert [row.id for row in await rows(desk)] == ids
    letters = [one async for one in desk.letters(limit=300)]
    assert [one.id for one in letters] == ids[:300]
    assert [row.id for row in await rows(desk)] == ids


async def test_a_reader_that_stops_for_a_while_holds_little(corner):
    """With large bodies a page is small: what waits for the reader stays within its budget."""
    await corner.declare()
    ids = []
    for _ in range(150):
        ids += await corner.park(1, size=2**20)
    desk = await corner.desk()
    found = []
    async for parked_letter in desk.letters():
        found.append(parked_letter.id)
        if len(found) == 10:
            await asyncio.sleep(0.3)
            # The first page and no more has been fetched.
            assert await corner.bench.count("default.dead") >= 150 - FIRST_PAGE
    assert found == ids


async def test_filters_mean_what_they_say(corner):
    await corner.declare("default", "mail")
    now = time.time()
    letters = {
        "old": parked(task="shop.email.send", time=now - 7200),
        "new": parked(task="shop.email.read", exception="KeyError"),
        "bill": parked(task="shop.bill", reason=DeadReason.EXPIRED),
    }
    await corner.publish("default.dead", *letters.values())
    (mailed,) = await corner.park(1, queue="mail", task="shop.email.send")
    names = {envelope.headers["id"]: name for name, envelope in letters.items()}
    names[mailed] = "mailed"
    desk = await corner.desk()
    places = {"queues": ("default", "mail")}

    async def named(**chosen):
        found = await rows(desk, Filters(**(places | chosen)))
        return {names[row.id] for row in found}

    assert await named() == {"old", "new", "bill", "mailed"}
    assert await named(queues=("mail",)) == {"mailed"}
    assert await named(tasks=("shop.email.*",)) == {"old", "new", "mailed"}
    assert await named(tasks=("*.bill", "*.read")) == {"bill", "new"}
    assert await named(reasons=("expired",)) == {"bill"}
    assert await named(exceptions=("KeyError",)) == {"new"}
    assert await named(exceptions=("builtins.Key*",)) == {"new"}
    assert await named(before=now - 3600) == {"old"}
    assert await named(after=now - 3600) == {"new", "bill", "mailed"}
    fingerprint = (await rows(desk, Filters(**places, exceptions=("KeyError",))))[0].fingerprint
    assert await named(fingerprints=(fingerprint[:6],)) == {"new"}
    assert await named(ids=(mailed,)) == {"mailed"}
    assert await named(tasks=("shop.email.*",), after=now - 60) == {"new", "mailed"}


# -- what the broker parked, and what nobody understands ---------------------------------------


async def test_what_the_broker_parked_reads_the_same(corner):
    await corner.declare()
    dead = {"x-dead-letter-exchange": "amqflow.spine.dead", "x-dead-letter-routing-key": "default"}
    transport = corner.transport
    await transport.declare_queue("ttl", arguments=QUORUM | dead | {"x-message-ttl": 1})
    await transport.declare_queue("full", arguments={"x-max-length": 1} | dead)
    await transport.declare_queue("limited", arguments=QUORUM | dead | {"x-delivery-limit": 1})
    messages = {
        name: Envelope(b"[[], {}, {}]", _headers(name), message_id=new_id())
        for name in ("ttl", "full", "limited")
    }
    await corner.publish("ttl", messages["ttl"])
    await corner.publish("full", messages["full"])
    await corner.publish("full", Envelope(b"", _headers("second"), message_id=new_id()))
    await corner.publish("limited", messages["limited"])
    consumer = transport.consume("limited", lambda delivery: delivery.requeue(), prefetch=1)
    await corner.holds("default.dead", 3)
    await consumer.close()
    found = {row.id: row for row in await rows(await corner.desk())}
    assert {name: found[name].reason for name in messages} == {
        "ttl": "expired",
        "full": "maxlen",
        "limited": "poison",
    }
    for name, row in found.items():
        assert row.by_broker
        assert row.queue == name
        assert row.routing_key == name
        assert abs(row.time - time.time()) < 60


def _headers(name):
    return {"task": "t.any", "id": name, "lang": "py"}


async def test_what_died_beside_its_queue_came_from_its_queue(corner):
    await corner.declare()
    death = {
        "queue": "default.suspect",
        "reason": "delivery_limit",
        "count": 1,
        "exchange": "",
        "routing-keys": ["default"],
    }
    envelope = Envelope(b"[[], {}, {}]", _headers("a") | {"x-death": [death]}, message_id="a")
    await corner.publish("default.dead", envelope)
    (row,) = await rows(await corner.desk())
    assert (row.queue, row.reason) == ("default", "poison")


async def test_what_cannot_be_decoded_can_be_seen_and_named(corner):
    await corner.declare()
    odd = [
        Envelope(b"\xff\x00", {}, content_type=None, content_encoding=None),
        Envelope(b"", {"amqflow-dead-reason": 7, "id": ["no"], "task": {}}, message_id="m1"),
        Envelope(b"{", {"amqflow-dead-reason": "undecodable", "amqflow-time": "soon"}),
        Envelope(b"x", {"x-death": "no list", "amqflow-epoch": "high"}),
    ]
    await corner.publish("default.dead", *odd)
    desk = await corner.desk()
    found = await rows(desk)
    assert len(found) == 4
    assert len({row.id for row in found}) == 4
    for row in found:
        assert (await desk.find(row.id)).envelope.body in {one.body for one in odd}
    assert await desk.find("nobody") is None


# -- looking must do no harm -------------------------------------------------------------------


async def test_a_queue_that_counts_returns_is_not_looked_into(corner):
    transport = corner.transport
    arguments = QUORUM | {"x-delivery-limit": 2, "x-message-ttl": 600_000, "x-max-length": 9}
    await transport.declare_queue("theirs", arguments=arguments)
    await corner.publish("theirs", parked())
    desk = await corner.desk()
    for _ in range(4):
        with pytest.raises(UnsafeLook, match=r"delivery limit of 2.*--force"):
            await rows(desk, Filters(homes=("theirs",)))
    assert await corner.bench.count("theirs") == 1
    forced = await corner.desk(force=True)
    assert len(await rows(forced, Filters(homes=("theirs",)))) == 1


async def test_classic_queues_and_quorum_queues_without_a_limit_are_safe(corner):
    transport = corner.transport
    server = await transport.server()
    none = {"x-delivery-limit": -1} if server.version >= (4, 0) else {}
    await transport.declare_queue("a", arguments=QUORUM | none | {"x-max-length": 10})
    await transport.declare_queue("b", arguments={"x-max-priority": 5, "x-message-ttl": 600_000})
    await transport.declare_queue("c")
    desk = await corner.desk()
    for name in "abc":
        await corner.publish(name, parked())
        for _ in range(5):
            assert len(await rows(desk, Filters(homes=(name,)))) == 1


async def test_a_stream_is_refused(corner):
    await corner.transport.declare_queue("log", arguments={"x-queue-type": "stream"})
    with pytest.raises(UnsafeLook, match="stream"):
        await rows(await corner.desk(force=True), Filters(homes=("log",)))


async def test_another_consumer_is_told_of(corner):
    await corner.declare()
    await corner.park(3)
    consumer = corner.transport.consume("default.dead", lambda _: None, prefetch=1)
    await consumer.wait_active(10)
    told = []
    desk = await corner.desk(on_others=lambda queue, count: told.append((queue, count)))
    assert len(await rows(desk)) == 2
    assert told == [("default.dead", 1)]
    await consumer.close()


# -- groups ------------------------------------------------------------------------------------


async def test_failures_of_one_cause_are_one_group(corner):
    await corner.declare()
    now = time.time()
    for age in (30, 10, 20):
        await corner.publish("default.dead", parked(age, time=now - age))
    await corner.publish("default.dead", parked(exception="KeyError", text="gone"))
    groups = await (await corner.desk()).groups()
    first, second = groups.ordered()
    assert (first.count, second.count) == (3, 1)
    assert (first.exception, second.exception) == ("builtins.ValueError", "builtins.KeyError")
    assert first.first == pytest.approx(now - 30, abs=0.01)
    assert first.last == pytest.approx(now - 10, abs=0.01)
    assert second.exception_message == "gone"
    assert groups.total == 4


async def test_groups_are_bounded(corner):
    await corner.declare()
    await corner.publish("default.dead", *(parked(task=f"t{number}") for number in range(30)))
    groups = await (await corner.desk()).groups(most=10)
    assert len(groups.ordered()) == 10
    assert groups.others == 20
    assert groups.total == 30


async def test_a_tally_counts_what_is_meant(corner):
    await corner.declare()
    await corner.park(5, task="a")
    await corner.park(3, task="b")
    desk = await corner.desk()
    assert [(one.total, one.meant) for one in await desk.tally()] == [(8, 8)]
    assert [(one.total, one.meant) for one in await desk.tally(Filters(tasks=("b",)))] == [(8, 3)]
