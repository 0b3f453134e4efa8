"""Queues: what waits, who takes it, and what becomes of what nobody takes."""

from __future__ import annotations

from amqflow.broker.queues.entry import Entry
from amqflow.broker.queues.queue import Queue
from amqflow.broker.queues.stream import Stream

__all__ = ["Entry", "Queue", "Stream"]
