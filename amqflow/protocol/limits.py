"""How large a message may be: one value, handed to every function that reads or writes one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds in force on both ends of the wire. Sizes are bytes.

    Args:
        max_body: The body as it travels, compressed where it is. RabbitMQ takes 16 MiB from 4.0
            on, 128 MiB before (``max_message_size``).
        max_inflated: The body after decompression; decompression stops there.
        max_depth: Levels of nested arrays and objects in a body, its own three parts included.
        max_headers: The content header frame, properties and all; ``frame_max`` - 1 KiB if that
            is less. The spare KiB is for what republishing adds.
    """

    max_body: int = 16 * 1024 * 1024
    max_inflated: int = 64 * 1024 * 1024
    max_depth: int = 100
    max_headers: int = 128 * 1024


DEFAULT_LIMITS = Limits()
