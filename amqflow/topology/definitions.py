"""Writes a topology as RabbitMQ's definitions, which its own tools import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.topology.model import Topology
    from amqflow.topology.policy import Policy


def definitions(
    topology: Topology, policies: Iterable[Policy] = (), vhost: str = "/"
) -> dict[str, Any]:
    """Return the JSON that ``rabbitmqctl import_definitions`` and the management UI take.

    Args:
        topology: Everything to import.
        policies: Policies to import with it.
        vhost: Where; it must exist (RabbitMQ docs, "Schema Definition Export and Import").
    """
    return {
        "exchanges": [
            {
                "name": exchange.name,
                "vhost": vhost,
                "type": exchange.type,
                "durable": exchange.durable,
                "auto_delete": exchange.auto_delete,
                "internal": exchange.internal,
                "arguments": exchange.declare_arguments(),
            }
            for exchange in topology.exchanges
        ],
        "queues": [
            {
                "name": queue.name,
                "vhost": vhost,
                "type": queue.type.value,
                "durable": queue.durable,
                "auto_delete": queue.auto_delete,
                "arguments": queue.declare_arguments(),
            }
            for queue in topology.queues
            if not queue.exclusive  # it lives with a connection; nothing can import it
        ],
        "bindings": [
            {
                "source": binding.source,
                "vhost": vhost,
                "destination": binding.destination,
                "destination_type": binding.destination_kind.value,
                "routing_key": binding.routing_key,
                "arguments": dict(binding.arguments),
            }
            for binding in topology.bindings
        ],
        "policies": [
            {
                "name": policy.name,
                "vhost": vhost,
                "pattern": policy.pattern,
                "apply-to": policy.apply_to,
                "priority": policy.priority,
                "definition": dict(policy.definition),
            }
            for policy in policies
        ],
    }
