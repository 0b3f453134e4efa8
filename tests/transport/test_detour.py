"""Publishers by a queue's name follow a mark while the queue is replaced."""

import asyncio

import pytest

from amqflow.errors import NotFound, PublishTimeout
from amqflow.protocol import Envelope
from amqflow.topology.names import MovingNames
from amqflow.transport import open_transport
from amqflow.transport.detour import LEASE, Detours
from tests.servers.wait import until


class Marks:
    """Answers whether a mark is there, and counts the questions."""

    def __init__(self):
        self.there = set()
        self.asked = 0
        self.speaks = asyncio.Event()
        self.speaks.set()

    async def __call__(self, name):
        self.asked += 1
        await self.speaks.wait()
        return name in self.there


# -- leases ------------------------------------------------------------------------------------


async def test_an_answer_that_came_too_late_is_asked_for_again_and_stops_no_loop(monkeypatch):
    """Its question has ended and is not forgotten yet when the next publisher comes."""
    monkeypatch.setattr("amqflow.transport.detour.LEASE", -1.0)  # each is too late
    asked, others = 0, []

    async def exists(_):
        nonlocal asked
        asked += 1
        if asked == 1:  # runs before what is called when the question has ended
            others.append(asyncio.create_task(detours.exchange("q")))
        else:
            monkeypatch.setattr("amqflow.transport.detour.LEASE", LEASE)
        return False

    detours = Detours(exists)
    async with asyncio.timeout(30):
        assert await detours.exchange("q") == ""
        assert await others[0] == ""
    assert asked <= 4


async def test_an_answer_counts_for_its_lease_and_is_renewed_ahead_of_time():
    marks = Marks()
    detours = Detours(marks)
    now = asyncio.get_running_loop().time()
    assert detours.fresh("q", now) is None
    assert await detours.exchange("q") == ""
    assert detours.fresh("q", now + LEASE / 4) == ""
    assert marks.asked == 1
    marks.there.add(MovingNames("q").mark)
    assert detours.fresh("q", now + LEASE * 0.9) == ""  # counts still, and is asked for again
    await until(lambda: detours.fresh("q", now + LEASE / 4) == MovingNames("q").entry)
    assert marks.asked == 2
    assert detours.fresh("q", now + 3 * LEASE) is None


async def test_the_lease_begins_before_the_question():
    """An answer that was long on its way says what was so when it was given, at best."""
    marks = Marks()
    marks.speaks.clear()
    detours = Detours(marks)
    asked = asyncio.get_running_loop().time()
    waiting = asyncio.create_task(detours.exchange("q"))
    await until(lambda: marks.asked)
    await asyncio.sleep(0.1)
    marks.speaks.set()
    await waiting
    assert detours.fresh("q", asked + LEASE + 0.05) is None


async def test_callers_at_once_ask_once():
    marks = Marks()
    detours = Detours(marks)
    await asyncio.gather(*(detours.exchange("q") for _ in range(50)))
    assert marks.asked == 1


@pytest.mark.parametrize("name", ["amqflow.reply.1", "amq.gen-x", "q" * 240, "ü" * 125])
async def test_queues_that_are_never_replaced_cost_no_question(name):
    marks = Marks()
    assert await Detours(marks).exchange(name) == ""
    assert marks.asked == 0


# -- on a broker -------------------------------------------------------------------------------


@pytest.fixture
async def door(amqp_url, monkeypatch):
    monkeypatch.setattr("amqflow.transport.detour.LEASE", 0.3)
    transport = open_transport(amqp_url)
    yield transport
    await transport.close()


async def count(door, queue):
    return (await door.declare_queue(queue, passive=True)).messages


async def test_messages_take_the_way_the_mark_says_and_come_back(door):
    names = MovingNames("a/b ü")
    await door.declare_queue(names.queue)
    await door.declare_queue("aside")
    sent = 0

    async def goes_to(queue):
        nonlocal sent
        before = await count(door, queue)
        sent += 1
        await door.publish(Envelope(b"", message_id=str(sent)), "", names.queue, timeout=10)
        await asyncio.sleep(0.05)
        return await count(door, queue) > before

    assert await goes_to(names.queue)
    await door.declare_exchange(names.entry, "fanout")
    await door.bind_queue("aside", names.entry)
    await door.declare_exchange(names.mark, "fanout")
    await until(lambda: goes_to("aside"))
    await door.delete_exchange(names.mark)
    await until(lambda: goes_to(names.queue))
    assert await count(door, "aside") + await count(door, names.queue) == sent


async def test_a_publisher_that_starts_meanwhile_never_touches_the_queue(door):
    names = MovingNames("q")
    await door.declare_queue("aside")  # the queue itself is not even there
    await door.declare_exchange(names.entry, "fanout")
    await door.bind_queue("aside", names.entry)
    await door.declare_exchange(names.mark, "fanout")
    await asyncio.gather(
        *(door.publish(Envelope(b"", message_id=str(n)), "", "q", timeout=10) for n in range(100))
    )
    await until(lambda: _holds(door, "aside", 100))


async def _holds(door, queue, wanted):
    return await count(door, queue) == wanted


async def test_a_mark_that_leads_nowhere_is_told_at_the_deadline(door):
    names = MovingNames("q")
    await door.declare_queue("q")
    await door.declare_exchange(names.mark, "fanout")
    with pytest.raises((NotFound, PublishTimeout)):
        await door.publish(Envelope(b"", message_id="1"), "", "q", timeout=0.5)
    await door.delete_exchange(names.mark)
    await door.publish(Envelope(b"", message_id="1"), "", "q", timeout=10)
