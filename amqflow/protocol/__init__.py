"""The wire: Celery's task protocol 2, its headers and its JSON. Pure, no I/O (design 4, 16)."""

from __future__ import annotations

from amqflow.protocol import headers
from amqflow.protocol.codec import dumps, loads
from amqflow.protocol.compression import compress, decompress
from amqflow.protocol.deadletter import DeadLetter, dead_headers, fingerprint, last_death
from amqflow.protocol.envelope import Envelope
from amqflow.protocol.frame import FRAME_MAX, fit_headers, frame_room, table_size
from amqflow.protocol.headers import replayable, republishable, republished
from amqflow.protocol.ids import derived_id, new_id
from amqflow.protocol.limits import DEFAULT_LIMITS, Limits
from amqflow.protocol.message import NESTING, TaskMessage
from amqflow.protocol.reader import decode
from amqflow.protocol.reprs import short_repr
from amqflow.protocol.writer import encode

__all__ = [
    "DEFAULT_LIMITS",
    "FRAME_MAX",
    "NESTING",
    "DeadLetter",
    "Envelope",
    "Limits",
    "TaskMessage",
    "compress",
    "dead_headers",
    "decode",
    "decompress",
    "derived_id",
    "dumps",
    "encode",
    "fingerprint",
    "fit_headers",
    "frame_room",
    "headers",
    "last_death",
    "loads",
    "new_id",
    "replayable",
    "republishable",
    "republished",
    "short_repr",
    "table_size",
]
