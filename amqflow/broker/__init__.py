"""The embedded broker: a real AMQP 0-9-1 server in the package, for development and tests.

It shares no code with the client, so that testing one on the other compares two readings of AMQP.
"""

from __future__ import annotations

from amqflow.broker.faults import Faults
from amqflow.broker.identity import PRODUCT, VERSION
from amqflow.broker.limits import Limits
from amqflow.broker.server import Broker

__all__ = ["PRODUCT", "VERSION", "Broker", "Faults", "Limits"]
