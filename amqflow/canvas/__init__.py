"""Compositions as data: signatures, chains, groups, chords, and the calls they become.

Pure: knows no application.
"""

from __future__ import annotations

from amqflow.canvas.call import CallOptions, build_call
from amqflow.canvas.chain import Chain
from amqflow.canvas.chord import Chord
from amqflow.canvas.composition import Composition
from amqflow.canvas.group import Group
from amqflow.canvas.maps import CHUNKS, MAP, STARMAP, Chunks, XMap, XStarmap
from amqflow.canvas.node import Node, signature_from
from amqflow.canvas.signature import (
    Signature,
    as_signatures,
    check_signatures,
    maybe_signature,
    signature,
    signature_to_call,
)

#: Celery's names of the constructors.
chain = Chain
group = Group
chord = Chord
chunks = Chunks
xmap = XMap
xstarmap = XStarmap

__all__ = [
    "CHUNKS",
    "MAP",
    "STARMAP",
    "CallOptions",
    "Chain",
    "Chord",
    "Chunks",
    "Composition",
    "Group",
    "Node",
    "Signature",
    "XMap",
    "XStarmap",
    "as_signatures",
    "build_call",
    "chain",
    "check_signatures",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "signature",
    "signature_from",
    "signature_to_call",
    "xmap",
    "xstarmap",
]
