"""The management API: who asks, for what, and whether they may; a table of paths.

What a client may declare by HTTP goes the way of AMQP: the same checks, the same words.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from amqflow.broker.management import routes
from amqflow.broker.management.asked import Asked, HttpError
from amqflow.broker.management.http import Answer
from amqflow.broker.replies import Refusal, Reply
from amqflow.broker.tables import octets

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.broker.management.http import Request
    from amqflow.broker.node import Node
    from amqflow.broker.users import User

_MANAGERS: Final = frozenset({"administrator", "monitoring", "policymaker", "management"})
_PREFIX: Final = "api"

#: Octets of a short string: no name in AMQP is longer.
_LONGEST_NAME: Final = 255

log = logging.getLogger(__name__)


class Management:
    """Answers requests about one broker."""

    def __init__(self, node: Node) -> None:
        """Answer for ``node``."""
        self._node = node

    def __call__(self, request: Request) -> Answer:
        """Return the answer to a request; what goes wrong is told, never raised."""
        try:
            return self._answer(request)
        except HttpError as error:
            return Answer(error.status, {"error": error.kind, "reason": error.reason})
        except Refusal as refusal:
            missing = refusal.reply is Reply.NOT_FOUND
            status = HTTPStatus.NOT_FOUND if missing else HTTPStatus.BAD_REQUEST
            kind = "not_found" if missing else "bad_request"
            reason = refusal.text.partition(" - ")[2]
            return Answer(status, {"error": kind, "reason": reason})
        except Exception:
            log.exception("a request to the management API failed")
            content = {"error": "Internal Server Error", "reason": "see the broker's log"}
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, content)

    def _answer(self, request: Request) -> Answer:
        user = self._user(request.headers.get("authorization", ""))
        try:
            place = urlsplit(request.target)
        except ValueError as error:
            raise HttpError.bad_request(str(error)) from None
        first, *parts = [unquote(part) for part in place.path.strip("/").split("/")]
        if place.path.endswith("/") and len(parts) > 1:
            parts.append("")  # /api/exchanges/%2F/ is the default exchange's list in RabbitMQ, too
        if first != _PREFIX:
            raise HttpError.not_found()
        handle, names = _find(request.method, parts)
        if any(len(octets(name)) > _LONGEST_NAME for name in names):
            raise HttpError.bad_request("a name is longer than 255 octets")
        query = {name: values[-1] for name, values in parse_qs(place.query).items()}
        asked = Asked(self._node, user, query, _decoded(request.body))
        content = handle(asked, *names)
        if request.method in {"PUT", "DELETE"}:
            return Answer(content if isinstance(content, HTTPStatus) else HTTPStatus.NO_CONTENT)
        if isinstance(content, HTTPStatus):
            return Answer(content)
        return Answer(HTTPStatus.OK, _columns(content, query.get("columns")))

    def _user(self, header: str) -> User:
        scheme, _, token = header.partition(" ")
        try:
            name, _, password = base64.b64decode(token, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            name = password = ""
        user = self._node.users.get(name)
        same = user is not None and hmac.compare_digest(
            user.password.encode(errors="surrogateescape"), password.encode()
        )
        if scheme.lower() != "basic" or user is None or not same:
            raise HttpError.unauthorised("Login failed")
        if not _MANAGERS.intersection(user.tags):
            raise HttpError.unauthorised("Not management user")
        return user


class Route(NamedTuple):
    """A method and the pattern of its path: ``*`` is a name."""

    method: str
    pattern: tuple[str, ...]
    handle: Callable[..., Any]


_TABLE: Final = tuple(
    Route(method, tuple(path.split("/")), handle) for method, path, handle in routes.TABLE
)


def _find(method: str, parts: list[str]) -> tuple[Callable[..., Any], list[str]]:
    wanted = "GET" if method == "HEAD" else method
    known = False
    for route in _TABLE:
        if len(route.pattern) != len(parts):
            continue
        pairs = list(zip(route.pattern, parts, strict=True))
        if all(pattern in {"*", part} for pattern, part in pairs):
            known = True
            if route.method == wanted:
                return route.handle, [part for pattern, part in pairs if pattern == "*"]
    if known:
        raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", method)
    raise HttpError.not_found()


def _decoded(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise HttpError.bad_request("not_json") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise HttpError.bad_request("not_an_object")
    return found


def _columns(content: Any, wanted: str | None) -> Any:
    if not wanted:
        return content
    names = wanted.split(",")
    if isinstance(content, list):
        return [_columns(one, wanted) for one in content]
    if not isinstance(content, dict):
        return content
    return {name: content[name] for name in names if name in content}
