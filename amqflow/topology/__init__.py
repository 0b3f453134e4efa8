"""What a broker should look like, as pure data: model, derivation, delays and routes."""

from amqflow.topology.derive import QueueNeeds, derive
from amqflow.topology.facts import BrokerFacts
from amqflow.topology.ladder import Ladder
from amqflow.topology.model import (
    Binding,
    DeadLetter,
    DestinationKind,
    Exchange,
    Queue,
    QueueType,
    Route,
    Topology,
)
from amqflow.topology.names import AppNames, dead_queue, suspect_queue

__all__ = [
    "AppNames",
    "Binding",
    "BrokerFacts",
    "DeadLetter",
    "DestinationKind",
    "Exchange",
    "Ladder",
    "Queue",
    "QueueNeeds",
    "QueueType",
    "Route",
    "Topology",
    "dead_queue",
    "derive",
    "suspect_queue",
]
