"""Dead letters as JSON lines: all of a message, byte for byte, to be kept or read again."""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict
from typing import Any, Final

from amqflow.deadletters.parked import Parked, read_parked
from amqflow.errors import EncodeError, Undecodable
from amqflow.protocol import Envelope, dumps, loads, short_repr

_PROPERTIES: Final = (
    "content_type",
    "content_encoding",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
)
#: Headers of foreign messages may nest; AMQP's own frame bounds them.
_DEPTH: Final = 512


def write_line(parked: Parked) -> str:
    """Return one dead letter as a line of JSON, without the line break.

    The body is ``body`` where it is UTF-8 text, else ``body_base64``. Values JSON lacks are
    tagged as on the wire (``{"__type__": …, "__value__": …}``). ``row`` sums the letter up for
    readers; it is derived again when the line is read.
    """
    envelope = parked.envelope
    row = asdict(parked.row)
    line: dict[str, Any] = {"id": parked.id, "home": parked.home, "row": row}
    line["properties"] = {
        name: value for name in _PROPERTIES if (value := getattr(envelope, name)) is not None
    }
    line["headers"], unwritable = _writable(envelope.headers)
    if unwritable:
        line["headers_unwritable"] = unwritable
    try:
        line["body"] = envelope.body.decode()
    except UnicodeDecodeError:
        line["body_base64"] = base64.b64encode(envelope.body).decode()
    return dumps(line, root="dead letter", max_depth=_DEPTH).decode()


def read_line(line: str) -> Parked:
    """Read a line that :func:`write_line` wrote.

    Raises:
        Undecodable: It is no such line; the message says why.
    """
    found = loads(line.encode(), max_depth=_DEPTH)
    if not isinstance(found, dict):
        raise Undecodable("a dead letter's line must be a JSON object")
    properties, headers = found.get("properties"), found.get("headers")
    if not isinstance(properties, dict) or not isinstance(headers, dict):
        raise Undecodable("a dead letter's line needs 'properties' and 'headers', both objects")
    if unknown := properties.keys() - set(_PROPERTIES):
        raise Undecodable(f"no such AMQP property: {min(unknown)!r}")
    # A content type that is not there differs from ours that is the envelope's default.
    known: dict[str, Any] = {"content_type": None, "content_encoding": None} | properties
    return read_parked(Envelope(_body(found), headers, **known), str(found.get("home", "")))


def _writable(headers: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the headers JSON can carry exactly, and a text of those it cannot.

    A stranger's header may look like one of the codec's tags; one such message must not keep the
    others from being written.
    """
    try:
        dumps(headers, max_depth=_DEPTH)
    except EncodeError:
        pass
    else:
        return headers, {}
    kept: dict[str, Any] = {}
    unwritable: dict[str, str] = {}
    for name, value in headers.items():
        try:
            dumps({name: value}, max_depth=_DEPTH)
        except EncodeError:
            unwritable[name] = short_repr(value)
        else:
            kept[name] = value
    return kept, unwritable


def _body(found: dict[str, Any]) -> bytes:
    text, encoded = found.get("body"), found.get("body_base64")
    if isinstance(text, str):
        return text.encode()
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise Undecodable(f"body_base64 is no base64: {error}") from error
    raise Undecodable("a dead letter's line needs 'body' or 'body_base64', a text")
