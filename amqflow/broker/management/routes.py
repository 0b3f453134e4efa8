"""The paths of the management API and what answers each; RabbitMQ's documentation names them.

https://rawcdn.githack.com/rabbitmq/rabbitmq-server/v3.10.8/deps/rabbitmq_management/priv/www/api/index.html
"""

from __future__ import annotations

import base64
import binascii
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from pamqp import commands

from amqflow.broker import declaring
from amqflow.broker.bindings import Binding
from amqflow.broker.identity import PRODUCT, VERSION
from amqflow.broker.management import shapes
from amqflow.broker.management.asked import HttpError
from amqflow.broker.message import Message, check_expiration, routing_keys
from amqflow.broker.methods import make
from amqflow.broker.policies import Policy
from amqflow.broker.properties import written
from amqflow.broker.queues.arguments import policy_problem
from amqflow.broker.users import WRITE, Permissions, User

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.broker.exchange import Exchange
    from amqflow.broker.management.asked import Asked
    from amqflow.broker.queues import Queue
    from amqflow.broker.vhost import VirtualHost

_JSON = dict[str, Any]
_DEFAULT: Final = "amq.default"


# -- the broker ----------------------------------------------------------------------------


def _overview(asked: Asked) -> _JSON:
    return shapes.overview(asked.node)


def _whoami(asked: Asked) -> _JSON:
    return {"name": asked.user.name, "tags": list(asked.user.tags)}


def _nodes(asked: Asked) -> list[_JSON]:
    blocked = asked.node.faults.blocked is not None
    return [
        {
            "name": asked.node.name,
            "type": "ram",
            "running": True,
            "mem_alarm": blocked,
            "disk_free_alarm": False,
        }
    ]


def _alarms(asked: Asked) -> _JSON:
    if asked.node.faults.blocked is not None:
        raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "failed", "There are alarms in effect")
    return {"status": "ok"}


# -- virtual hosts -------------------------------------------------------------------------


def _vhosts(asked: Asked) -> list[_JSON]:
    return [shapes.vhost(vhost) for vhost in asked.vhosts()]


def _vhost(asked: Asked, name: str) -> _JSON:
    return shapes.vhost(asked.vhost(name))


def _put_vhost(asked: Asked, name: str) -> HTTPStatus:
    asked.must_administrate()
    known = name in asked.node.vhosts
    asked.node.add_vhost(name)
    asked.user.permissions.setdefault(name, Permissions())
    return HTTPStatus.NO_CONTENT if known else HTTPStatus.CREATED


def _delete_vhost(asked: Asked, name: str) -> None:
    asked.must_administrate()
    if not asked.node.remove_vhost(name):
        raise HttpError.not_found()


def _vhost_permissions(asked: Asked, name: str) -> list[_JSON]:
    asked.vhost(name)
    return [
        shapes.permissions(user, name)
        for user in asked.node.users.values()
        if user.in_vhost(name) is not None
    ]


def _put_vhost_limit(asked: Asked, name: str, limit: str) -> None:
    asked.must_administrate()
    value = asked.body.get("value")
    if limit != "max-connections" or not isinstance(value, int):
        raise HttpError.bad_request(f"limit {limit} is not part of this broker")
    asked.vhost(name).max_connections = value


def _delete_vhost_limit(asked: Asked, name: str, limit: str) -> None:
    asked.must_administrate()
    if limit == "max-connections":
        asked.vhost(name).max_connections = -1


def _vhost_limits(asked: Asked) -> list[_JSON]:
    return [
        {"vhost": vhost.name, "value": {"max-connections": vhost.max_connections}}
        for vhost in asked.vhosts()
        if vhost.max_connections >= 0
    ]


# -- exchanges -----------------------------------------------------------------------------


def _all_exchanges(asked: Asked) -> list[_JSON]:
    return [one for vhost in asked.vhosts() for one in _exchanges(asked, vhost.name)]


def _exchanges(asked: Asked, name: str) -> list[_JSON]:
    vhost = asked.vhost(name)
    return [shapes.exchange(one, vhost) for one in _sorted(vhost.exchanges)]


def _found_exchange(asked: Asked, vhost: str, name: str) -> Exchange:
    found = asked.vhost(vhost).exchanges.get("" if name == _DEFAULT else name)
    if found is None:
        raise HttpError.not_found()
    return found


def _exchange(asked: Asked, vhost: str, name: str) -> Any:
    if not name:
        return _exchanges(asked, vhost)
    found = _found_exchange(asked, vhost, name)
    return {**shapes.exchange(found, asked.vhost(vhost)), "incoming": [], "outgoing": []}


def _put_exchange(asked: Asked, vhost: str, name: str) -> HTTPStatus:
    place = asked.vhost(vhost)
    known = name in place.exchanges
    declaring.exchange_declare(
        asked.channel(place),
        make(
            commands.Exchange.Declare,
            exchange=name,
            exchange_type=asked.string("type"),
            durable=asked.flag("durable"),
            auto_delete=asked.flag("auto_delete"),
            internal=asked.flag("internal"),
            arguments=asked.arguments(),
        ),
    )
    return HTTPStatus.NO_CONTENT if known else HTTPStatus.CREATED


def _delete_exchange(asked: Asked, vhost: str, name: str) -> None:
    _found_exchange(asked, vhost, name)
    declaring.exchange_delete(
        asked.channel(asked.vhost(vhost)),
        make(
            commands.Exchange.Delete,
            exchange=name,
            if_unused=asked.query.get("if-unused") == "true",
        ),
    )


def _publish(asked: Asked, vhost: str, name: str) -> _JSON:
    exchange = _found_exchange(asked, vhost, name)
    place = asked.vhost(vhost)
    asked.user.check(WRITE, "exchange", exchange.name, vhost)
    body = asked.string("payload").encode()
    if asked.string("payload_encoding", "string") == "base64":
        try:
            body = base64.b64decode(body, validate=True)
        except binascii.Error:
            raise HttpError.bad_request("payload is no base64") from None
    try:
        properties = written(asked.body.get("properties") or {})
    except (ValueError, TypeError, AttributeError) as error:
        raise HttpError.bad_request(f"properties: {error}") from None
    check_expiration(properties.expiration)
    keys, properties = routing_keys(asked.string("routing_key"), properties)
    message = Message(exchange.name, keys, properties, body)
    queues = place.route(exchange, message)
    taken = [queue.publish(message) for queue in queues]
    return {"routed": bool(taken)}


def _sorted(named: dict[str, Any]) -> list[Any]:
    return [named[name] for name in sorted(named)]


# -- queues --------------------------------------------------------------------------------


def _all_queues(asked: Asked) -> list[_JSON]:
    return [one for vhost in asked.vhosts() for one in _queues(asked, vhost.name)]


def _queues(asked: Asked, name: str) -> list[_JSON]:
    vhost = asked.vhost(name)
    for queue in list(vhost.queues.values()):
        queue.expire()
    return [shapes.queue(one) for one in _sorted(vhost.queues)]


def _found_queue(asked: Asked, vhost: str, name: str) -> Queue:
    found = asked.vhost(vhost).queues.get(name)
    if found is None:
        raise HttpError.not_found()
    found.expire()
    return found


def _queue(asked: Asked, vhost: str, name: str) -> Any:
    if not name:
        return _queues(asked, vhost)
    found = _found_queue(asked, vhost, name)
    details = [shapes.consumer(one) for one in found.consumers]
    return {**shapes.queue(found), "consumer_details": details, "incoming": [], "deliveries": []}


def _put_queue(asked: Asked, vhost: str, name: str) -> HTTPStatus:
    place = asked.vhost(vhost)
    known = name in place.queues
    declaring.queue_declare(
        asked.channel(place),
        make(
            commands.Queue.Declare,
            queue=name,
            durable=asked.flag("durable"),
            auto_delete=asked.flag("auto_delete"),
            arguments=asked.arguments(),
        ),
    )
    return HTTPStatus.NO_CONTENT if known else HTTPStatus.CREATED


def _delete_queue(asked: Asked, vhost: str, name: str) -> None:
    _found_queue(asked, vhost, name)
    declaring.queue_delete(
        asked.channel(asked.vhost(vhost)),
        make(
            commands.Queue.Delete,
            queue=name,
            if_unused=asked.query.get("if-unused") == "true",
            if_empty=asked.query.get("if-empty") == "true",
        ),
    )


def _purge_queue(asked: Asked, vhost: str, name: str) -> None:
    _found_queue(asked, vhost, name).purge()


def _get_messages(asked: Asked, vhost: str, name: str) -> list[_JSON]:
    queue = _found_queue(asked, vhost, name)
    count = asked.body.get("count", 1)
    if isinstance(count, str) and count.isdecimal():
        count = int(count)
    if not isinstance(count, int) or count < 0:
        raise HttpError.bad_request("count is no number")
    mode = asked.string("ackmode", "ack_requeue_true")
    taken = []
    found = []
    for _ in range(count):
        entry = queue.get(no_ack=False)
        if entry is None:
            break
        taken.append(entry)
        message = queue.as_given(entry)
        found.append(
            {
                **shapes.message(message, encoding=asked.string("encoding", "auto")),
                "redelivered": entry.returned > 0,
                "message_count": queue.length,
            }
        )
    if mode.endswith("requeue_true"):
        queue.requeue(taken)
    elif mode.startswith("reject"):
        queue.reject(taken)
    else:
        for entry in taken:
            queue.ack(entry)
    return found


# -- bindings ------------------------------------------------------------------------------


def _implicit(vhost: VirtualHost) -> list[Binding]:
    """Return the bindings of the default exchange, which nobody made."""
    return [
        Binding("", queue.name, to_queue=True, routing_key=queue.name)
        for queue in _sorted(vhost.queues)
    ]


def _vhost_bindings(vhost: VirtualHost) -> list[Binding]:
    explicit = [one for source in _sorted(vhost.exchanges) for one in source.bindings]
    return [*_implicit(vhost), *explicit]


def _all_bindings(asked: Asked) -> list[_JSON]:
    return [one for vhost in asked.vhosts() for one in _bindings(asked, vhost.name)]


def _bindings(asked: Asked, name: str) -> list[_JSON]:
    vhost = asked.vhost(name)
    return [shapes.binding(one, vhost) for one in _vhost_bindings(vhost)]


def _source_bindings(asked: Asked, vhost: str, name: str) -> list[_JSON]:
    found = _found_exchange(asked, vhost, name)
    place = asked.vhost(vhost)
    every = found.bindings if found.name else _implicit(place)
    return [shapes.binding(one, place) for one in every]


def _destination_bindings(asked: Asked, vhost: str, name: str) -> list[_JSON]:
    found = _found_exchange(asked, vhost, name)
    place = asked.vhost(vhost)
    return [shapes.binding(one, place) for one in place.bindings_to(found.name, to_queue=False)]


def _queue_bindings(asked: Asked, vhost: str, name: str) -> list[_JSON]:
    found = _found_queue(asked, vhost, name)
    place = asked.vhost(vhost)
    own = Binding("", found.name, to_queue=True, routing_key=found.name)
    every = [own, *place.bindings_to(found.name, to_queue=True)]
    return [shapes.binding(one, place) for one in every]


def _between(asked: Asked, vhost: str, source: str, kind: str, name: str) -> list[Binding]:
    place = asked.vhost(vhost)
    if kind not in {"q", "e"}:
        raise HttpError.not_found()
    return [
        one
        for one in _vhost_bindings(place)
        if one.source == ("" if source == _DEFAULT else source)
        and one.destination == name
        and one.to_queue == (kind == "q")
    ]


def _bindings_between(asked: Asked, vhost: str, source: str, kind: str, name: str) -> list[_JSON]:
    place = asked.vhost(vhost)
    return [shapes.binding(one, place) for one in _between(asked, vhost, source, kind, name)]


def _post_binding(asked: Asked, vhost: str, source: str, kind: str, name: str) -> HTTPStatus:
    channel = asked.channel(asked.vhost(vhost))
    key, arguments = asked.string("routing_key"), asked.arguments()
    if kind == "q":
        method = make(
            commands.Queue.Bind, queue=name, exchange=source, routing_key=key, arguments=arguments
        )
        # An empty key and an empty name would mean the queue declared last.
        channel.last_queue = name
        declaring.queue_bind(channel, method)
    elif kind == "e":
        declaring.exchange_bind(
            channel,
            make(
                commands.Exchange.Bind,
                destination=name,
                source=source,
                routing_key=key,
                arguments=arguments,
            ),
        )
    else:
        raise HttpError.not_found()
    return HTTPStatus.CREATED


def _found_binding(
    asked: Asked, vhost: str, source: str, kind: str, name: str, key: str
) -> Binding:
    for one in _between(asked, vhost, source, kind, name):
        if key in {shapes.properties_key(one), one.routing_key or "~"} or (
            not one.arguments and key == one.routing_key
        ):
            return one
    raise HttpError.not_found()


def _binding(asked: Asked, vhost: str, source: str, kind: str, name: str, key: str) -> _JSON:
    found = _found_binding(asked, vhost, source, kind, name, key)
    return shapes.binding(found, asked.vhost(vhost))


def _delete_binding(asked: Asked, vhost: str, source: str, kind: str, name: str, key: str) -> None:
    found = _found_binding(asked, vhost, source, kind, name, key)
    asked.vhost(vhost).unbind(found)


# -- policies ------------------------------------------------------------------------------


def _all_policies(asked: Asked) -> list[_JSON]:
    return [one for vhost in asked.vhosts() for one in _policies(asked, vhost.name)]


def _policies(asked: Asked, name: str) -> list[_JSON]:
    vhost = asked.vhost(name)
    return [shapes.policy(one, vhost) for one in _sorted(vhost.policies)]


def _policy(asked: Asked, vhost: str, name: str) -> _JSON:
    place = asked.vhost(vhost)
    if name not in place.policies:
        raise HttpError.not_found()
    return shapes.policy(place.policies[name], place)


def _put_policy(asked: Asked, vhost: str, name: str) -> HTTPStatus:
    asked.must_make_policies()
    place = asked.vhost(vhost)
    known = name in place.policies
    place.set_policy(_read_policy(asked, name))
    return HTTPStatus.NO_CONTENT if known else HTTPStatus.CREATED


def _read_policy(asked: Asked, name: str) -> Policy:
    definition = asked.body.get("definition")
    priority = asked.body.get("priority", 0)
    if not isinstance(definition, dict) or not definition:
        raise HttpError.bad_request("Validation failed\n\nno policy provided\n")
    if not isinstance(priority, int):
        raise HttpError.bad_request("priority is no number")
    pattern = asked.string("pattern")
    try:
        re.compile(pattern)
    except re.error as error:
        raise HttpError.bad_request(f"Validation failed\n\npattern: {error}\n") from None
    if problem := policy_problem(definition):
        raise HttpError.bad_request(f"Validation failed\n\n{problem}\n")
    return Policy(name, pattern, definition, asked.string("apply-to", "all"), priority)


def _delete_policy(asked: Asked, vhost: str, name: str) -> None:
    asked.must_make_policies()
    if not asked.vhost(vhost).delete_policy(name):
        raise HttpError.not_found()


# -- users ---------------------------------------------------------------------------------


def _users(asked: Asked) -> list[_JSON]:
    asked.must_administrate()
    return [shapes.user(one) for one in _sorted(asked.node.users)]


def _found_user(asked: Asked, name: str) -> User:
    found = asked.node.users.get(name)
    if found is None:
        raise HttpError.not_found()
    return found


def _user(asked: Asked, name: str) -> _JSON:
    asked.must_administrate()
    return shapes.user(_found_user(asked, name))


def _put_user(asked: Asked, name: str) -> HTTPStatus:
    asked.must_administrate()
    tags = asked.body.get("tags", "")
    if isinstance(tags, str):
        tags = [tag for tag in tags.replace(" ", "").split(",") if tag]
    known = asked.node.users.get(name)
    user = User(name, asked.string("password"), tuple(map(str, tags)))
    if known is not None:
        user.permissions, user.everywhere = known.permissions, known.everywhere
    asked.node.users[name] = user
    return HTTPStatus.CREATED if known is None else HTTPStatus.NO_CONTENT


def _delete_user(asked: Asked, name: str) -> None:
    asked.must_administrate()
    _found_user(asked, name)
    del asked.node.users[name]
    for connection in [one for one in asked.node.connections if one.user is not None]:
        if connection.user is not None and connection.user.name == name:
            connection.shut(f"user '{name}' is deleted")


def _all_permissions(asked: Asked) -> list[_JSON]:
    asked.must_administrate()
    return [one for name in sorted(asked.node.vhosts) for one in _vhost_permissions(asked, name)]


def _user_permissions(asked: Asked, name: str) -> list[_JSON]:
    asked.must_administrate()
    user = _found_user(asked, name)
    return [
        shapes.permissions(user, vhost)
        for vhost in sorted(asked.node.vhosts)
        if user.in_vhost(vhost) is not None
    ]


def _permission(asked: Asked, vhost: str, name: str) -> _JSON:
    asked.must_administrate()
    asked.vhost(vhost)
    user = _found_user(asked, name)
    if user.in_vhost(vhost) is None:
        raise HttpError.not_found()
    return shapes.permissions(user, vhost)


def _put_permission(asked: Asked, vhost: str, name: str) -> HTTPStatus:
    asked.must_administrate()
    asked.vhost(vhost)
    user = _found_user(asked, name)
    parts = [asked.string(part, ".*") for part in ("configure", "write", "read")]
    for pattern in parts:
        try:
            re.compile(pattern)
        except re.error as error:
            raise HttpError.bad_request(f"invalid regex: {error}") from None
    known = vhost in user.permissions
    user.permissions[vhost] = Permissions(*parts)
    return HTTPStatus.NO_CONTENT if known else HTTPStatus.CREATED


def _delete_permission(asked: Asked, vhost: str, name: str) -> None:
    asked.must_administrate()
    _found_user(asked, name).permissions.pop(vhost, None)


# -- who is here ---------------------------------------------------------------------------


def _connections(asked: Asked) -> list[_JSON]:
    return [shapes.connection(one) for one in asked.node.connections if one.vhost is not None]


def _vhost_connections(asked: Asked, name: str) -> list[_JSON]:
    vhost = asked.vhost(name)
    return [shapes.connection(one) for one in asked.node.connections if one.vhost is vhost]


def _connection(asked: Asked, name: str) -> _JSON:
    for one in asked.node.connections:
        if one.name == name:
            return shapes.connection(one)
    raise HttpError.not_found()


def _delete_connection(asked: Asked, name: str) -> None:
    for one in list(asked.node.connections):
        if one.name == name:
            one.shut("Closed via management plugin")
            return
    raise HttpError.not_found()


def _channels(asked: Asked) -> list[_JSON]:
    return [
        shapes.channel(one)
        for connection in asked.node.connections
        for one in connection.channels.values()
    ]


def _all_consumers(asked: Asked) -> list[_JSON]:
    return [one for vhost in asked.vhosts() for one in _consumers(asked, vhost.name)]


def _consumers(asked: Asked, name: str) -> list[_JSON]:
    queues = _sorted(asked.vhost(name).queues)
    return [shapes.consumer(one) for queue in queues for one in queue.consumers]


# -- definitions ---------------------------------------------------------------------------


def _vhost_definitions(asked: Asked, name: str) -> _JSON:
    vhost = asked.vhost(name)
    return {"rabbit_version": VERSION, "parameters": [], **_defined(vhost)}


def _defined(vhost: VirtualHost) -> _JSON:
    exchanges = [
        one for one in _sorted(vhost.exchanges) if one.name and not one.name.startswith("amq.")
    ]
    return {
        "policies": [shapes.policy(one, vhost) for one in _sorted(vhost.policies)],
        "queues": [
            shapes.queue_definition(one) for one in _sorted(vhost.queues) if not one.exclusive
        ],
        "exchanges": [shapes.exchange_definition(one) for one in exchanges],
        "bindings": [
            shapes.binding_definition(one)
            for source in _sorted(vhost.exchanges)
            for one in source.bindings
        ],
    }


def _definitions(asked: Asked) -> _JSON:
    asked.must_administrate()
    everything: _JSON = {
        "rabbit_version": VERSION,
        "product_name": PRODUCT,
        "product_version": VERSION,
        "users": _users(asked),
        "vhosts": [{"name": name} for name in sorted(asked.node.vhosts)],
        "permissions": _all_permissions(asked),
        "parameters": [],
        "global_parameters": [],
    }
    for kind in ("policies", "queues", "exchanges", "bindings"):
        everything[kind] = [
            {**one, "vhost": vhost.name}
            for vhost in _sorted(asked.node.vhosts)
            for one in _defined(vhost)[kind]
        ]
    return everything


def _post_vhost_definitions(asked: Asked, name: str) -> HTTPStatus:
    """Declare what a vhost's definitions hold; what is there stays."""
    asked.must_make_policies()
    vhost = asked.vhost(name)
    handlers: dict[str, Callable[[Asked, _JSON], object]] = {
        "exchanges": lambda one, item: _put_exchange(one, name, str(item["name"])),
        "queues": lambda one, item: _put_queue(one, name, str(item["name"])),
        "bindings": lambda one, item: _post_binding(
            one,
            name,
            str(item["source"]),
            "q" if item["destination_type"] == "queue" else "e",
            str(item["destination"]),
        ),
        "policies": lambda one, item: vhost.set_policy(_read_policy(one, str(item["name"]))),
    }
    for kind, handle in handlers.items():
        for item in asked.body.get(kind, []):
            try:
                handle(type(asked)(asked.node, asked.user, {}, item), item)
            except (KeyError, TypeError) as error:
                raise HttpError.bad_request(f"{kind}: {error!r}") from None
    return HTTPStatus.NO_CONTENT


#: Method, path, who answers. ``*`` stands for a name.
TABLE: Final[tuple[tuple[str, str, Callable[..., Any]], ...]] = (
    ("GET", "overview", _overview),
    ("GET", "whoami", _whoami),
    ("GET", "nodes", _nodes),
    ("GET", "health/checks/alarms", _alarms),
    ("GET", "health/checks/local-alarms", _alarms),
    ("GET", "vhosts", _vhosts),
    ("GET", "vhosts/*", _vhost),
    ("PUT", "vhosts/*", _put_vhost),
    ("DELETE", "vhosts/*", _delete_vhost),
    ("GET", "vhosts/*/permissions", _vhost_permissions),
    ("GET", "vhosts/*/connections", _vhost_connections),
    ("GET", "vhost-limits", _vhost_limits),
    ("PUT", "vhost-limits/*/*", _put_vhost_limit),
    ("DELETE", "vhost-limits/*/*", _delete_vhost_limit),
    ("GET", "exchanges", _all_exchanges),
    ("GET", "exchanges/*", _exchanges),
    ("GET", "exchanges/*/*", _exchange),
    ("PUT", "exchanges/*/*", _put_exchange),
    ("DELETE", "exchanges/*/*", _delete_exchange),
    ("POST", "exchanges/*/*/publish", _publish),
    ("GET", "exchanges/*/*/bindings/source", _source_bindings),
    ("GET", "exchanges/*/*/bindings/destination", _destination_bindings),
    ("GET", "queues", _all_queues),
    ("GET", "queues/*", _queues),
    ("GET", "queues/*/*", _queue),
    ("PUT", "queues/*/*", _put_queue),
    ("DELETE", "queues/*/*", _delete_queue),
    ("DELETE", "queues/*/*/contents", _purge_queue),
    ("POST", "queues/*/*/get", _get_messages),
    ("GET", "queues/*/*/bindings", _queue_bindings),
    ("GET", "bindings", _all_bindings),
    ("GET", "bindings/*", _bindings),
    ("GET", "bindings/*/e/*/*/*", _bindings_between),
    ("POST", "bindings/*/e/*/*/*", _post_binding),
    ("GET", "bindings/*/e/*/*/*/*", _binding),
    ("DELETE", "bindings/*/e/*/*/*/*", _delete_binding),
    ("GET", "policies", _all_policies),
    ("GET", "policies/*", _policies),
    ("GET", "policies/*/*", _policy),
    ("PUT", "policies/*/*", _put_policy),
    ("DELETE", "policies/*/*", _delete_policy),
    ("GET", "users", _users),
    ("GET", "users/*", _user),
    ("PUT", "users/*", _put_user),
    ("DELETE", "users/*", _delete_user),
    ("GET", "users/*/permissions", _user_permissions),
    ("GET", "permissions", _all_permissions),
    ("GET", "permissions/*/*", _permission),
    ("PUT", "permissions/*/*", _put_permission),
    ("DELETE", "permissions/*/*", _delete_permission),
    ("GET", "connections", _connections),
    ("GET", "connections/*", _connection),
    ("DELETE", "connections/*", _delete_connection),
    ("GET", "channels", _channels),
    ("GET", "consumers", _all_consumers),
    ("GET", "consumers/*", _consumers),
    ("GET", "definitions", _definitions),
    ("GET", "definitions/*", _vhost_definitions),
    ("POST", "definitions/*", _post_vhost_definitions),
)
