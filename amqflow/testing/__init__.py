"""Tests of what an application sends, runs and parks, on a real broker in the test's process.

The fixtures come with the package (a pytest plugin): ``amqflow_broker`` gives a test a virtual
host of its own, ``amqflow_app`` binds the application of the ini option ``amqflow_app`` to it.
The assertions read as sentences::

    def test_a_new_customer_is_written_to(amqflow_app):
        sign_up("a@b.c")
        assert_enqueued(send, to="a@b.c")
        assert drain(amqflow_app).success == 1

Names are imported when they are asked for: pytest imports this package, for its plugin, in every
run where amqflow is installed, and the broker and the worker should cost only who uses them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from amqflow.testing.assertions import (
        assert_dead,
        assert_enqueued,
        dead,
        enqueued,
        refute_dead,
        refute_enqueued,
    )
    from amqflow.testing.binding import VhostBroker
    from amqflow.testing.draining import Drained, adrain, drain
    from amqflow.testing.reading import Dead, Enqueued

__all__ = [
    "Dead",
    "Drained",
    "Enqueued",
    "VhostBroker",
    "adrain",
    "assert_dead",
    "assert_enqueued",
    "dead",
    "drain",
    "enqueued",
    "refute_dead",
    "refute_enqueued",
]

_PLACES: Final = {
    "assertions": {
        "assert_dead",
        "assert_enqueued",
        "dead",
        "enqueued",
        "refute_dead",
        "refute_enqueued",
    },
    "binding": {"VhostBroker"},
    "draining": {"Drained", "adrain", "drain"},
    "reading": {"Dead", "Enqueued"},
}


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
