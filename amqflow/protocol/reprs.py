"""Short texts of arguments for logs and events, at a bounded cost whatever the arguments hold."""

from __future__ import annotations

from reprlib import Repr
from typing import Any

from amqflow.protocol.frame import shortened


def short_repr(value: Any, most: int = 256) -> str:
    """Return a readable text of ``value`` in at most ``most`` bytes.

    Only the first few items of the first few levels are visited, and an object whose own
    ``__repr__`` fails is named by its type: this runs on arguments of every size and kind.
    """
    written = Repr()
    written.maxlevel = 3
    written.maxlist = written.maxtuple = written.maxdict = written.maxset = 8
    written.maxstring = written.maxother = most
    written.maxlong = 64
    try:
        text = written.repr(value)
    except Exception:  # noqa: BLE001 - a user's __repr__; an integer of more than 4,300 digits
        return f"<{type(value).__name__}>"
    return shortened(text, most)
