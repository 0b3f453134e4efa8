"""What a worker and one child tell each other in shared memory, without a system call.

Short tasks are handed to a child a few at a time, and their ends come back together; a system call
each way for every task cost more than the task. This page keeps it exact: ``started`` tells which
job a dead child was running, so that it costs that one alone; the outbox holds the ends it had not
sent yet; ``withdrawn`` takes back what it has not started; ``limited`` tells which job a signal
means.

Both sides write their own word first and read the other's then, with a barrier in between, so one
of them always sees the other (Dekker's way): a job is never both run and taken back.
"""

from __future__ import annotations

import mmap
import os
import signal
import tempfile
import threading
from typing import Final

#: The worker sends it at a soft limit, as Celery does.
SOFT_SIGNAL: Final = signal.SIGUSR1
SIZE: Final = 65536
_STARTED, _WITHDRAWN, _LENGTH, _LIMITED, _EMPTIED = 0, 1, 2, 3, 4
_OUTBOX: Final = 64


class Board:
    """A page of memory shared by descriptor."""

    def __init__(self, fd: int) -> None:
        """Map the file of a descriptor."""
        self._map = mmap.mmap(fd, SIZE)
        self._view = memoryview(self._map)
        #: Whole words: each is read and written at once.
        self._words = self._view[:_OUTBOX].cast("Q")
        self._barrier = threading.Lock()

    def close(self) -> None:
        """Let go of it."""
        self._words.release()
        self._view.release()
        self._map.close()

    # -- the child -------------------------------------------------------------------------

    def start(self, number: int) -> bool:
        """Say that a job begins; False where it was taken back meanwhile."""
        self._words[_STARTED] = number
        with self._barrier:
            return self._words[_WITHDRAWN] < number

    def put(self, frame: bytes) -> bool:
        """Leave a frame in the outbox; False where it does not fit."""
        at = self._words[_LENGTH]
        end = at + len(frame)
        if end > SIZE - _OUTBOX:
            return False
        self._view[_OUTBOX + at : _OUTBOX + end] = frame
        with self._barrier:
            self._words[_LENGTH] = end
        return True

    def sent(self) -> None:
        """Empty the outbox: what was in it is on its way."""
        self._words[_LENGTH] = 0
        with self._barrier:  # before: who has seen the new count sees no old length
            self._words[_EMPTIED] += 1

    # -- the worker ------------------------------------------------------------------------

    @property
    def started(self) -> int:
        """The number of the last job that began."""
        return self._words[_STARTED]

    def withdraw(self, number: int) -> int:
        """Take back every job up to ``number`` that has not begun; returns the last that has.

        What was taken back before stays so: the child may not have come to it yet, and it has
        been given to somebody else.
        """
        self._words[_WITHDRAWN] = max(number, self._words[_WITHDRAWN])
        with self._barrier:
            return self._words[_STARTED]

    def limit(self, number: int) -> None:
        """Say that a job has reached its soft limit; a signal then makes the child look."""
        self._words[_LIMITED] = number

    # -- both ------------------------------------------------------------------------------

    @property
    def limited(self) -> int:
        """The number of the last job that reached its soft limit."""
        return self._words[_LIMITED]

    @property
    def waiting(self) -> int:
        """How many bytes wait in the outbox."""
        return self._words[_LENGTH]

    def outbox(self) -> bytes:
        """Return what waits in the outbox; nothing where it was emptied meanwhile (a seqlock).

        What was in it is on its way then, and new frames may lie over the old ones.
        """
        emptied = self._words[_EMPTIED]
        with self._barrier:
            found = bytes(self._view[_OUTBOX : _OUTBOX + self._words[_LENGTH]])
        with self._barrier:
            return found if self._words[_EMPTIED] == emptied else b""


def shared_page() -> int:
    """Return the descriptor of a fresh page that a child may inherit; whoever asks closes it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("amqflow-board")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, SIZE)
    return fd
