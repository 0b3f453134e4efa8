"""Proves the delay ladder: a probe message goes in at the third tick and must come out again."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from amqflow.cli.doctor.findings import Finding, error, ok, warning
from amqflow.errors import BrokerError
from amqflow.protocol import Envelope, new_id

if TYPE_CHECKING:
    from amqflow.topology import Ladder
    from amqflow.transport import Delivery, Transport

#: Three ticks visit the two lowest levels and every exchange the rest would pass last.
TICKS = 3
#: Seconds after its moment until the probe is given up.
PATIENCE = 10.0
#: Seconds of lateness that are worth a word.
LATE = 1.0


async def ladder(parts: Ladder, door: Transport) -> Finding:
    """Send a probe through the ladder into a queue of its own, and say how late it came."""
    name = f"amqflow.doctor.{new_id()}"
    exit_way = parts.exit_binding(name)
    delay = TICKS * parts.resolution
    arrived: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def take(delivery: Delivery) -> None:
        delivery.ack()
        if not arrived.done():
            arrived.set_result(time.monotonic())

    mend = "start a worker once: it declares the ladder's missing parts (amqflow worker)"
    try:
        await door.declare_queue(name, arguments={"x-expires": 60_000})
        await door.bind_queue(name, exit_way.source, exit_way.routing_key)
        consumer = door.consume(name, take, prefetch=1)
        await consumer.wait_active(PATIENCE)
        exchange, key = parts.entry_at(name, TICKS)
        sent = time.monotonic()
        await door.publish(Envelope(b"{}", message_id=new_id()), exchange, key, timeout=PATIENCE)
        async with asyncio.timeout(delay + PATIENCE):
            late = await arrived - sent - delay
        await consumer.close()
        await door.delete_queue(name)
    except BrokerError as problem:
        return error("delays", f"the delay ladder does not take a message: {problem}", mend)
    except TimeoutError:
        text = f"a message due in {delay:g} s did not come within {delay + PATIENCE:g} s"
        return error("delays", text, f"{mend}; look into amqflow.undelivered")
    if late > LATE:
        text = f"a message came out of the delay ladder {late:.1f} s late"
        return warning("delays", text, "the broker is short of something: rabbitmqctl status")
    return ok("delays", f"a probe of {delay:g} s came {max(0.0, late) * 1000:.0f} ms late")
