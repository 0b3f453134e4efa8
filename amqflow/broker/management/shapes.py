"""What there is, in the JSON shapes of RabbitMQ's management API."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from amqflow.broker import properties as props
from amqflow.broker.exchanges import KINDS
from amqflow.broker.identity import PRODUCT, VERSION
from amqflow.broker.queues.arguments import QUORUM
from amqflow.broker.tables import frozen, plain, text

if TYPE_CHECKING:
    from amqflow.broker.bindings import Binding
    from amqflow.broker.channel import Channel
    from amqflow.broker.connection import Connection
    from amqflow.broker.exchange import Exchange
    from amqflow.broker.message import Message
    from amqflow.broker.node import Node
    from amqflow.broker.policies import Policy
    from amqflow.broker.queues import Queue
    from amqflow.broker.queues.consumers import Consumer
    from amqflow.broker.tables import Table
    from amqflow.broker.users import User
    from amqflow.broker.vhost import VirtualHost

#: The short strings among a message's properties, by what the API calls them.
_STRINGS: Final = {
    "content_type": 1 << 15,
    "content_encoding": 1 << 14,
    "correlation_id": 1 << 10,
    "reply_to": props.REPLY_TO,
    "expiration": props.EXPIRATION,
    "message_id": 1 << 7,
    "type": 1 << 5,
    "user_id": props.USER_ID,
    "app_id": 1 << 3,
}
_NUMBERS: Final = {"delivery_mode": props.DELIVERY_MODE, "priority": props.PRIORITY}


def arguments(table: Table) -> dict[str, Any]:
    """Return a field table as JSON."""
    return {name: plain(field) for name, field in table.items()}


def overview(node: Node) -> dict[str, Any]:
    """Return what the broker is and holds."""
    vhosts = node.vhosts.values()
    connections = [one for one in node.connections if one.vhost is not None]
    queues = [one for vhost in vhosts for one in vhost.queues.values()]
    return {
        "management_version": VERSION,
        "rates_mode": "none",
        "exchange_types": [
            {"name": kind, "description": f"AMQP {kind} exchange", "enabled": True}
            for kind in KINDS
        ],
        "product_name": PRODUCT,
        "product_version": VERSION,
        "rabbitmq_version": VERSION,
        "cluster_name": node.name,
        "node": node.name,
        "erlang_version": "none",
        "queue_totals": _totals(queues),
        "object_totals": {
            "channels": sum(len(one.channels) for one in connections),
            "connections": len(connections),
            "consumers": sum(len(one.consumers) for one in queues),
            "exchanges": sum(len(vhost.exchanges) for vhost in vhosts),
            "queues": len(queues),
        },
        "listeners": [],
        "contexts": [],
    }


def _totals(queues: list[Queue]) -> dict[str, int]:
    ready = sum(queue.length for queue in queues)
    out = sum(len(queue.unacked) for queue in queues)
    return {"messages": ready + out, "messages_ready": ready, "messages_unacknowledged": out}


def vhost(found: VirtualHost) -> dict[str, Any]:
    """Return a virtual host."""
    return {
        "name": found.name,
        "description": "",
        "tags": [],
        "metadata": {"description": "", "tags": []},
        "default_queue_type": "undefined",
        "cluster_state": {found.node.name: "running"},
        "tracing": False,
        **_totals(list(found.queues.values())),
    }


def queue(found: Queue) -> dict[str, Any]:
    """Return a queue with its counts."""
    policy = found.vhost.policies.get(found.policy or "")
    exclusive = found.consumers.exclusive
    active = found.consumers.active
    bytes_ready, bytes_out = found.ready_bytes, found.unacked_bytes
    shape = {
        **queue_definition(found),
        "vhost": found.vhost.name,
        "type": found.kind,
        "node": found.vhost.node.name,
        "state": "running",
        "exclusive": found.exclusive,
        "policy": found.policy,
        "operator_policy": None,
        "effective_policy_definition": policy.definition if policy else {},
        "consumers": found.consumer_count,
        "consumer_utilisation": 0,
        "exclusive_consumer_tag": exclusive.tag if exclusive else None,
        "single_active_consumer_tag": active.tag if active else None,
        "message_bytes": bytes_ready + bytes_out,
        "message_bytes_ready": bytes_ready,
        "message_bytes_unacknowledged": bytes_out,
        "memory": bytes_ready + bytes_out,
        **_totals([found]),
    }
    if found.kind == QUORUM:
        shape |= {
            "leader": found.vhost.node.name,
            "members": [found.vhost.node.name],
            "online": [found.vhost.node.name],
            "messages_dlx": len(found.assured),
        }
    if found.owner is not None:
        shape["owner_pid_details"] = _address(found.owner)
    return shape


def queue_definition(found: Queue) -> dict[str, Any]:
    """Return a queue as definitions have it."""
    return {
        "name": found.name,
        "durable": found.durable,
        "auto_delete": found.auto_delete,
        "arguments": arguments(found.arguments),
    }


def exchange(found: Exchange, place: VirtualHost) -> dict[str, Any]:
    """Return an exchange."""
    shape = {
        **exchange_definition(found),
        "vhost": place.name,
        "user_who_performed_action": "guest",
    }
    if found.policy is not None:
        shape["policy"] = found.policy
    return shape


def exchange_definition(found: Exchange) -> dict[str, Any]:
    """Return an exchange as definitions have it."""
    return {
        "name": found.name,
        "type": found.type,
        "durable": found.durable,
        "auto_delete": found.auto_delete,
        "internal": found.internal,
        "arguments": arguments(found.arguments),
    }


def binding(found: Binding, place: VirtualHost) -> dict[str, Any]:
    """Return a binding."""
    return {
        **binding_definition(found),
        "vhost": place.name,
        "properties_key": properties_key(found),
    }


def binding_definition(found: Binding) -> dict[str, Any]:
    """Return a binding as definitions have it."""
    return {
        "source": found.source,
        "destination": found.destination,
        "destination_type": found.kind,
        "routing_key": found.routing_key,
        "arguments": arguments(found.arguments),
    }


def properties_key(found: Binding) -> str:
    """Return what tells apart the bindings between the same two ends."""
    key = quote(found.routing_key, safe="") or "~"
    if not found.arguments:
        return key
    digest = hashlib.blake2b(repr(frozen(found.arguments)).encode(), digest_size=4).digest()
    return f"{key}~{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def policy(found: Policy, place: VirtualHost) -> dict[str, Any]:
    """Return a policy."""
    return {
        "vhost": place.name,
        "name": found.name,
        "pattern": found.pattern,
        "apply-to": found.apply_to,
        "definition": found.definition,
        "priority": found.priority,
    }


def user(found: User) -> dict[str, Any]:
    """Return a user, without the password or anything made of it."""
    return {"name": found.name, "tags": list(found.tags), "limits": {}}


def permissions(found: User, place: str) -> dict[str, Any]:
    """Return what a user may do in a virtual host."""
    allowed = found.in_vhost(place)
    assert allowed is not None
    return {
        "user": found.name,
        "vhost": place,
        "configure": allowed.configure,
        "write": allowed.write,
        "read": allowed.read,
    }


def connection(found: Connection) -> dict[str, Any]:
    """Return a connection."""
    names = found.client_properties.get("connection_name")
    return {
        "name": found.name,
        "user_provided_name": plain(names) if names is not None else None,
        "vhost": found.vhost.name if found.vhost else None,
        "user": found.user.name if found.user else None,
        "state": "blocked" if found.blocked else found.phase.value,
        "protocol": "AMQP 0-9-1",
        "auth_mechanism": found.mechanism,
        "channels": len(found.channels),
        "channel_max": found.channel_max,
        "frame_max": found.frame_max,
        "timeout": found.heartbeat,
        "client_properties": arguments(found.client_properties),
        "connected_at": int(found.connected_at * 1000),
        "node": found.node.name,
        "type": "network",
        "ssl": False,
        "peer_host": found.peer[0],
        "peer_port": found.peer[1],
    }


def _address(found: Connection) -> dict[str, Any]:
    return {"name": found.name, "peer_host": found.peer[0], "peer_port": found.peer[1]}


def channel(found: Channel) -> dict[str, Any]:
    """Return a channel."""
    owner = found.connection
    return {
        "name": f"{owner.name} ({found.number})",
        "number": found.number,
        "vhost": owner.vhost.name if owner.vhost else None,
        "user": owner.user.name if owner.user else None,
        "state": found.phase.value,
        "confirm": found.confirms,
        "transactional": found.transaction is not None,
        "consumer_count": len(found.consumers),
        "messages_unacknowledged": found.unacked,
        "prefetch_count": found.consumer_prefetch,
        "global_prefetch_count": found.prefetch,
        "node": owner.node.name,
        "connection_details": _address(owner),
    }


def consumer(found: Consumer) -> dict[str, Any]:
    """Return a consumer."""
    place = found.queue
    active = place.consumers.is_active(found)
    single = place.settings.single_active
    return {
        "consumer_tag": found.tag,
        "queue": {"name": place.name, "vhost": place.vhost.name},
        "ack_required": not found.no_ack,
        "exclusive": found.exclusive,
        "prefetch_count": found.prefetch,
        "active": active,
        "activity_status": ("single_active" if active else "waiting") if single else "up",
        "arguments": arguments(found.arguments),
        "channel_details": {
            "name": f"{found.channel.connection.name} ({found.channel.number})",
            "number": found.channel.number,
            "connection_name": found.channel.connection.name,
        },
    }


def message(found: Message, *, encoding: str) -> dict[str, Any]:
    """Return a message's content; ``encoding`` is ``auto`` (text where it is) or ``base64``."""
    body, how = base64.b64encode(found.body).decode(), "base64"
    if encoding == "auto":
        with contextlib.suppress(UnicodeDecodeError):
            body, how = found.body.decode(), "string"
    return {
        "payload_bytes": len(found.body),
        "exchange": found.exchange,
        "routing_key": found.routing_key,
        "properties": message_properties(found),
        "payload": body,
        "payload_encoding": how,
    }


def message_properties(found: Message) -> dict[str, Any]:
    """Return a message's properties as JSON."""
    own = found.properties
    shape: dict[str, Any] = {}
    for name, flag in _STRINGS.items():
        if (value := own.string(flag)) is not None:
            shape[name] = text(value.encode(errors="replace"))
    for name, flag in _NUMBERS.items():
        if (number := own.number(flag)) is not None:
            shape[name] = number
    if own.has_headers:
        shape["headers"] = arguments(own.headers)
    return shape
