"""Compositions as data: signatures, and the calls they become. Pure: knows no application."""

from __future__ import annotations

from amqflow.canvas.call import CallOptions, build_call
from amqflow.canvas.signature import (
    Signature,
    as_signatures,
    check_signatures,
    maybe_signature,
    signature_to_call,
)

__all__ = [
    "CallOptions",
    "Signature",
    "as_signatures",
    "build_call",
    "check_signatures",
    "maybe_signature",
    "signature_to_call",
]
