"""The end of a call that is waited for before the call is sent."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from amqflow.abc import Outcome

#: What a lock can wait for, in seconds: a thread asks again in the usual way after it.
_LONGEST: Final = threading.TIMEOUT_MAX


class Expected:
    """An outcome that a loop gives away once, and any thread may wait for without that loop.

    A call and its ``get()`` one after the other go to the loop and back once in place of twice,
    and what tells of the end is asked for while the broker writes the message, not while the
    worker runs it.
    """

    __slots__ = ("_given", "_pid", "outcome", "waited")

    def __init__(self) -> None:
        """Expect an outcome of this process's loop."""
        self._given = threading.Lock()
        self._given.acquire()
        self._pid = os.getpid()
        #: What came; None also where it is to be asked for in the usual way.
        self.outcome: Outcome | None = None
        #: Whether anybody has waited for it, or looked.
        self.waited = False

    def give(self, outcome: Outcome | None) -> None:
        """Wake who waits; None: nothing comes this way any more (called by the loop, once)."""
        self.outcome = outcome
        self._given.release()

    def wait(self, timeout: float | None) -> Outcome | None:
        """Block until it comes; None: not within ``timeout`` seconds, or not this way."""
        self.waited = True
        if self.outcome is None and self._pid == os.getpid():  # a fork has no loop to give it
            seconds = _LONGEST if timeout is None else min(max(timeout, 0.0), _LONGEST)
            if self._given.acquire(timeout=seconds):
                self._given.release()  # for the next one who waits
        return self.outcome

    def look(self) -> Outcome | None:
        """Return what has come already."""
        self.waited = True
        return self.outcome
