"""The part of RabbitMQ's HTTP management API that tools read and tests write."""

from __future__ import annotations

from amqflow.broker.management.api import Management
from amqflow.broker.management.http import HttpServer

__all__ = ["HttpServer", "Management"]
