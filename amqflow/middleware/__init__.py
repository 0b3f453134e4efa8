"""Middleware: may change what happens to a message or a run; signals only watch."""

from __future__ import annotations

from amqflow.middleware.base import Middleware
from amqflow.middleware.stack import Stack

__all__ = ["Middleware", "Stack"]
