"""Counts of a queue that did not answer the broker in time: no messages, no consumers, it says."""

import asyncio

import pytest

from amqflow.transport.aiopika import admin, consumer
from tests.servers.wait import until


@pytest.fixture
def silent(monkeypatch):
    """Let the next answers about counts be those of a leader that is too busy to give any."""
    times = []
    real = admin.call

    async def slow(channel, method):
        answer = await real(channel, method)
        if times and getattr(method, "passive", False):
            times.pop()
            await asyncio.sleep(0.25)  # what RabbitMQ waits
            answer.message_count = answer.consumer_count = 0
        return answer

    monkeypatch.setattr(admin, "call", slow)
    return times


async def test_counts_are_asked_for_again_where_the_queue_did_not_answer(seam, queue, silent):
    await seam.publish(queue, b"one", b"two")
    await seam.becomes_ready(queue, 2)
    silent += [1, 2]
    counts = await seam.transport.declare_queue(queue, passive=True)
    assert counts.messages == 2
    assert silent == []


async def test_a_consumer_the_broker_does_not_count_for_a_moment_keeps_its_channel(
    seam, queue, monkeypatch
):
    monkeypatch.setattr(consumer, "PROOF_INTERVAL", 0.05)
    monkeypatch.setattr(consumer, "PROOF_PAUSE", 0.01)
    real, noes = consumer._Session.counted, [1, 2]

    async def counted(session):
        there = await real(session)
        return there if not noes else bool(noes.pop()) and False

    monkeypatch.setattr(consumer._Session, "counted", counted)
    got = []
    consuming = seam.transport.consume(queue, got.append, prefetch=10)
    await consuming.wait_active(30)
    await until(lambda: not noes, deadline=30)
    await seam.publish(queue, b"one")
    await until(lambda: got, deadline=30)
    assert consuming.generation == 1
    await consuming.close()


async def test_a_consumer_the_broker_counts_no_more_begins_anew(seam, queue, monkeypatch):
    monkeypatch.setattr(consumer, "PROOF_INTERVAL", 0.05)
    monkeypatch.setattr(consumer, "PROOF_PAUSE", 0.01)

    async def counted(session):
        return False

    monkeypatch.setattr(consumer._Session, "counted", counted)
    consuming = seam.transport.consume(queue, lambda _: None, prefetch=10)
    await until(lambda: consuming.generation >= 2, deadline=30)
    await consuming.close()
