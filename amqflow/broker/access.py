"""access.request: a method of AMQP 0-8 that old clients still send, and that means nothing now.

pamqp knows AMQP 0-9-1 only, so the two methods are described here as it describes its own.
"""

from __future__ import annotations

from typing import ClassVar

from pamqp.base import Frame


class Request(Frame):
    """Asks for a ticket."""

    __slots__: ClassVar[list[str]] = [  # noqa: RUF023 - in the order of the wire
        "realm",
        "exclusive",
        "passive",
        "active",
        "write",
        "read",
    ]
    frame_id = 10
    index = 0x001E000A
    name = "Access.Request"
    _realm = "shortstr"
    _exclusive = _passive = _active = _write = _read = "bit"


class RequestOk(Frame):
    """Gives one."""

    __slots__: ClassVar[list[str]] = ["ticket"]
    frame_id = 11
    index = 0x001E000B
    name = "Access.RequestOk"
    _ticket = "short"
