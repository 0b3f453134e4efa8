"""What ``memory://`` keeps by name in this process; a name lives as long as somebody uses it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Names(Generic[T]):
    """Things by name, made when first asked for; safe from any thread."""

    def __init__(self, make: Callable[[], T]) -> None:
        """Know no name yet."""
        self._make = make
        self._lock = threading.Lock()
        self._known: WeakValueDictionary[str, T] = WeakValueDictionary()

    def get(self, name: str) -> T:
        """Return what goes by a name."""
        with self._lock:
            found = self._known.get(name)
            if found is None:
                found = self._known[name] = self._make()
            return found
