"""Putting a method with content together: method, header, body frames, in this order and no other.

AMQP 0-9-1, 4.2.6. The refusals and their words are RabbitMQ's.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from pamqp import constants

from amqflow.broker.identity import MAX_MESSAGE_SIZE
from amqflow.broker.properties import Properties
from amqflow.broker.replies import Refusal, Reply

if TYPE_CHECKING:
    from amqflow.broker.methods import Method

_HEADER: Final = struct.Struct(">HHQ")
_BASIC: Final = 60


#: The least octets of a content header: class, weight and size.
HEADER_SIZE: Final = _HEADER.size


class Malformed(ValueError):
    """A message's properties are not what their flags say."""


class Content(NamedTuple):
    """A method with all its content."""

    method: Method
    properties: Properties
    body: bytes


class Assembler:
    """One channel's content on its way."""

    __slots__ = ("_left", "_method", "_most", "_parts", "_properties")

    def __init__(self) -> None:
        """Expect a method."""
        self._method: Method | None = None
        self._properties: Properties | None = None
        self._parts: list[bytes] = []
        self._left = 0
        self._most = MAX_MESSAGE_SIZE

    @property
    def expects_method(self) -> bool:
        """Whether no content is on its way."""
        return self._method is None

    def begin(self, method: Method, most: int) -> None:
        """Expect a header that announces at most so many octets."""
        self._method = method
        self._most = most

    def refuse_method(self) -> Refusal:
        """Return what is wrong with a method that comes now."""
        if self._properties is None:
            return _unexpected(
                f"expected content header for class {_BASIC}, got non content header frame instead"
            )
        return _unexpected("expected content body, got non content body frame instead")

    def add(self, kind: int, payload: bytes) -> Content | None:
        """Take a header or body frame; return the content it completes.

        Raises:
            Refusal: it is not what comes next.
        """
        if self._method is None:
            raise _unexpected("expected method frame, got non method frame instead")
        if self._properties is None:
            if kind != constants.FRAME_HEADER:
                raise self.refuse_method()
            return self._header(payload)
        if kind != constants.FRAME_BODY:
            raise self.refuse_method()
        if len(payload) > self._left:
            raise Refusal(Reply.FRAME_ERROR, "content body frame exceeds remaining content size")
        if payload:  # empty ones would be kept for ever: nothing says how many may come
            self._parts.append(payload)
        self._left -= len(payload)
        return None if self._left else self._complete()

    def _header(self, payload: bytes) -> Content | None:
        class_id, weight, size = _HEADER.unpack_from(payload)
        if weight:
            raise self.refuse_method()
        if class_id != _BASIC:
            raise _unexpected(
                f"expected content header for class {_BASIC}, got one for class {class_id} instead"
            )
        try:
            properties = Properties(payload[_HEADER.size :])
            properties.check_headers()
        except ValueError as error:
            raise Malformed(str(error)) from error
        if size > self._most:
            raise Refusal(
                Reply.PRECONDITION_FAILED,
                f"message size {size} is larger than configured max size {self._most}",
            )
        self._properties = properties
        self._left = size
        return None if size else self._complete()

    def _complete(self) -> Content:
        assert self._method is not None
        assert self._properties is not None
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        content = Content(self._method, self._properties, body)
        self._method = self._properties = None
        self._parts = []
        return content


def _unexpected(explanation: str) -> Refusal:
    return Refusal(Reply.UNEXPECTED_FRAME, explanation)
