"""What a broker should look like, as pure data: model, derivation, delays and routes."""

from amqflow.topology.declaration import Declaration, Delays
from amqflow.topology.derive import QueueNeeds, Retention, derive
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
from amqflow.topology.policy import Policy
from amqflow.topology.positions import TopologyFileError

__all__ = [
    "AppNames",
    "Binding",
    "BrokerFacts",
    "DeadLetter",
    "Declaration",
    "Delays",
    "DestinationKind",
    "Exchange",
    "Ladder",
    "Policy",
    "Queue",
    "QueueNeeds",
    "QueueType",
    "Retention",
    "Route",
    "Topology",
    "TopologyFileError",
    "dead_queue",
    "derive",
    "suspect_queue",
]
