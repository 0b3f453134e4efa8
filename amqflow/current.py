"""The applications of this process: what Celery code means that names none."""

from __future__ import annotations

import threading
import weakref
from typing import Any, Final


class Applications:
    """The living applications, held weakly; the one made last is the current one."""

    def __init__(self) -> None:
        """Know none yet."""
        self._lock = threading.Lock()
        self._known: list[weakref.ref[Any]] = []

    def add(self, app: Any) -> None:
        """Make an application the current one."""
        with self._lock:
            others = [known for known in self._living() if known is not app]
            self._known = [weakref.ref(known) for known in (*others, app)]

    def all(self) -> list[Any]:
        """Return the living applications, the one made last at the end."""
        with self._lock:
            return self._living()

    def current(self) -> Any:
        """Return the application made last; None where there is none."""
        living = self.all()
        return living[-1] if living else None

    def _living(self) -> list[Any]:
        return [app for known in self._known if (app := known()) is not None]


#: A process has applications once; their modules come before, and without, who asks for them.
applications: Final = Applications()
