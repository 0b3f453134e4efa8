"""The one way out of a process: route, middleware, encode, confirm."""

from amqflow.producer.address import to_exchange, to_queue
from amqflow.producer.outgoing import Outgoing
from amqflow.producer.send import Producer

__all__ = ["Outgoing", "Producer", "to_exchange", "to_queue"]
