"""What files declare is what a broker takes, and dead letters arrive where the file says."""

from pathlib import Path

import pytest

from amqflow.protocol import Envelope
from amqflow.provision import apply
from amqflow.provision.apply import Action
from amqflow.topology import BrokerFacts
from amqflow.topology.load import load, load_text
from tests.servers.wait import until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def facts(rabbitmq):
    return BrokerFacts(rabbitmq.version)


@pytest.mark.parametrize("name", ["minimal", "shop", "cluster"])
async def test_the_shipped_files_apply_and_apply_again(transport, facts, name):
    topology = load(ROOT / "topology" / f"{name}.yaml").topology("shop", facts)
    await apply(topology, transport)
    again = await apply(topology, transport)
    assert {change.action for change in again} == {Action.PRESENT}


async def test_names_with_slashes_spaces_and_any_script_apply(transport, facts):
    text = """
version: 1
exchanges: {"a/b c": {type: topic}, "Ünï 中文 😀": {type: fanout}}
queues:
  "my queue/1": {bindings: [{exchange: a/b c, routing_key: "x y.#"}]}
  "a.b*#%c": {dead_letter: {exchange: "d e/f"}}
  заказы: {bindings: [{exchange: "Ünï 中文 😀"}]}
"""
    await apply(load_text(text).topology("shop", facts), transport)
    await transport.publish(Envelope(body=b"1", message_id="1"), "a/b c", "x y.z", timeout=10)
    await transport.publish(Envelope(body=b"2", message_id="2"), "Ünï 中文 😀", "", timeout=10)
    assert await counted(transport, "my queue/1", 1)
    assert await counted(transport, "заказы", 1)


LETTERS = {
    "own": "{max_length: 100}",
    "made": "{exchange: made}",
    "made.key": "{exchange: made, routing_key: some.key}",
    "direct": "{exchange: direct, routing_key: k}",
    "topic": "{exchange: topic, routing_key: k.x}",
    "fanout": "{exchange: fanout}",
    "headers": "{exchange: headers}",
    "amq": "{exchange: amq.topic, routing_key: k}",
    "default": '{exchange: ""}',
    "app": "{exchange: amqflow.shop.dead}",
    "direct.kept": "{exchange: direct, routing_key: null}",
    "topic.kept": "{exchange: topic.of.its.own, routing_key: null}",
}


async def test_what_expires_in_a_queue_arrives_in_its_home(transport, facts):
    """Each way of naming a dead-letter exchange, on quorum and on classic queues."""
    text = "version: 1\nexchanges:\n"
    for name in ("direct", "topic", "fanout", "headers"):
        text += f"  {name}: {{type: {name}}}\n"
    text += "  topic.of.its.own: {type: topic}\nqueues:\n"
    queues = []
    for kind in ("quorum", "classic"):
        for name, written in LETTERS.items():
            if kind == "classic" and name in {"fanout", "headers", "topic.kept"}:
                continue  # they reach every home that is bound: once is enough to know
            queues.append(f"{kind}.{name}")
            # A key of its own for each type, as the exchanges are shared.
            letter = written.replace("routing_key: k", f"routing_key: {kind[0]}")
            letter = letter.replace("some.key", f"{kind}.key")
            text += f"  {kind}.{name}:\n    type: {kind}\n    message_ttl: 50ms\n"
            text += f"    dead_letter: {letter}\n"
    await apply(load_text(text).topology("shop", facts), transport)
    for number, queue in enumerate(queues):
        envelope = Envelope(body=b"x", message_id=str(number), delivery_mode=2)
        await transport.publish(envelope, "", queue, timeout=10)
    for queue in queues:
        assert await counted(transport, f"{queue}.dead", 1), queue
        assert await counted(transport, queue, 0), queue


async def counted(transport, queue, number):
    """Wait until a queue holds that many messages."""

    async def there():
        return (await transport.declare_queue(queue, passive=True)).messages == number

    await until(there, deadline=40, message=f"{queue} holds {number}")
    return True
