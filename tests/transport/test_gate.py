"""What is to go out at one instant is ready before it, and written when its gate opens."""

import asyncio

import pytest

from amqflow.errors import PublishTimeout
from tests.servers.toxic import Direction
from tests.servers.wait import until
from tests.transport.suite import ACK, message

MORE_THAN_A_WINDOW = 4500


class Gate:
    """A gate that a test opens."""

    def __init__(self, left=30.0):
        self._left, self.waiting = left, []

    def left(self):
        return self._left

    def add(self, go):
        if self._left:
            self.waiting.append(go)
        else:
            go()

    def open(self):
        self._left = 0.0
        for go in self.waiting:
            go()


def publishes(seam, queue, gate, bodies, timeout=30):
    return [
        asyncio.create_task(
            seam.transport.publish(
                message(body, message_id=body.decode()), "", queue, timeout=timeout, gate=gate
            )
        )
        for body in bodies
    ]


async def shut(gate, number):
    await until(lambda: len(gate.waiting) == number, message=f"{number} messages are ready")


async def test_messages_wait_ready_and_go_out_when_the_gate_opens(seam, queue):
    gate, bodies = Gate(), [b"%d" % n for n in range(100)]
    publishing = publishes(seam, queue, gate, bodies)
    await shut(gate, 100)
    assert await seam.ready(queue) == 0
    gate.open()
    await asyncio.gather(*publishing)
    inbox = await seam.consume(queue, prefetch=0)
    await inbox.holds(100)
    assert inbox.bodies == bodies


async def test_more_messages_than_a_window_holds_go_through_one_gate(seam, queue):
    gate, bodies = Gate(), [b"%d" % n for n in range(MORE_THAN_A_WINDOW)]
    publishing = publishes(seam, queue, gate, bodies)
    await shut(gate, MORE_THAN_A_WINDOW)
    gate.open()
    await asyncio.gather(*publishing)
    assert await seam.ready(queue) == MORE_THAN_A_WINDOW


async def test_two_of_one_id_at_one_gate_go_out_one_after_the_other(seam, queue):
    gate = Gate()
    publishing = publishes(seam, queue, gate, [b"same", b"same"])
    await shut(gate, 2)
    gate.open()
    await asyncio.gather(*publishing)
    assert await seam.ready(queue) == 2


async def test_a_message_that_is_given_up_before_its_gate_opens_is_not_sent(seam, queue):
    gate = Gate()
    given_up, kept = publishes(seam, queue, gate, [b"given up", b"kept"])
    await shut(gate, 2)
    given_up.cancel()
    await asyncio.wait([given_up])
    gate.open()
    await kept
    assert await seam.ready(queue) == 1


async def test_a_connection_that_is_lost_before_the_gate_opens_is_made_again(wire, queue):
    async with wire() as w:
        gate = Gate()
        publishing = publishes(w.seam, queue, gate, [b"1", b"2", b"3"])
        await shut(gate, 3)
        w.proxy.drop_connections()
        session = w.seam.transport._publisher._session
        await until(lambda: not session.live, message="the transport has noticed")
        gate.open()
        await asyncio.gather(*publishing)
        assert await w.seam.ready(queue) == 3


async def test_the_deadline_counts_from_when_the_gate_opens(wire, queue):
    async with wire() as w:
        gate = Gate(left=0.6)
        (first,) = publishes(w.seam, queue, gate, [b"in time"], timeout=20)
        await shut(gate, 1)
        gate.open()
        await first
        late = Gate(left=0.4)
        (second,) = publishes(w.seam, queue, late, [b"late"], timeout=0.2)
        await shut(late, 1)
        w.proxy.filter = lambda way, frame: (
            None if way is Direction.DOWN and frame[7:11] == ACK else frame
        )
        began = asyncio.get_running_loop().time()
        late.open()
        with pytest.raises(PublishTimeout):
            await second
        assert asyncio.get_running_loop().time() - began < 10
