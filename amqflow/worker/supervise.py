"""Runs several whole workers under one supervisor: ``amqflow worker --processes N``.

Each is a worker as if started alone, with its own connections and slots. One that ends is started
again, at once if it had lived, with growing pauses if it keeps dying. The supervisor runs no
tasks; when it dies, however, its workers stop gracefully.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Final

from amqflow.backoff import Backoff
from amqflow.logs import get_logger
from amqflow.worker.pools.process import how_it_died

log = get_logger("amqflow.worker")

#: Names the file descriptor that closes when the supervisor dies.
LIFELINE: Final = "AMQFLOW_LIFELINE"
#: Names which of the workers a process is.
NUMBER: Final = "AMQFLOW_WORKER_NUMBER"
#: Seconds a worker must have lived for its end to be no sign of trouble.
LIVED: Final = 30.0
#: The exit code of a wrong command line: no restart mends that.
USAGE: Final = 2


@dataclass(slots=True)
class _Place:
    """One of the workers, and when to start it again."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    #: How often its process was told to stop.
    told: int = 0
    started: float = 0.0
    due: float = 0.0
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.5, most=30.0))


class Supervisor:
    """Keeps ``count`` processes running until told to stop.

    Each is this program once more, as it was started; the environment says that it is a worker.
    """

    def __init__(self, count: int) -> None:
        """Start nothing yet."""
        self._command = [sys.executable, *sys.orig_argv[1:]]
        self._places = [_Place(number) for number in range(count)]
        self._told = 0
        self._code = 0
        # Only we hold the writing end: the reading ends see our death.
        self._lifeline, self._mine = os.pipe()
        os.set_inheritable(self._mine, False)  # noqa: FBT003 - os takes it by position
        # A signal, or the death of a child, ends a wait at once.
        self._wake_read, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def run(self) -> int:
        """Start all, restart what ends, stop when told; returns the exit code."""
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        log.info("supervising", workers=len(self._places), pid=os.getpid())
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            while True:
                for place in self._places:
                    self._look_at(place)
                for place in self._places:
                    self._pass_on(place)
                if self._told and not any(place.process for place in self._places):
                    return self._code
                if selector.select(self._until_due()):
                    os.read(self._wake_read, 4096)

    def _until_due(self) -> float | None:
        waits = [place.due for place in self._places if place.process is None]
        return max(0.0, min(waits) - time.monotonic()) if waits and not self._told else None

    def _look_at(self, place: _Place) -> None:
        if place.process is not None:
            code = place.process.poll()
            if code is None:
                return
            place.process = None
            self._ended(place, code)
        if not self._told and place.due <= time.monotonic():
            self._start(place)

    def _start(self, place: _Place) -> None:
        place.started = time.monotonic()
        place.told = 0
        try:
            place.process = subprocess.Popen(  # noqa: S603 - our own command line
                self._command,
                env={**os.environ, LIFELINE: str(self._lifeline), NUMBER: str(place.number)},
                pass_fds=[self._lifeline],
                process_group=0,  # Ctrl-C is for the supervisor, which passes it on once
            )
        except OSError as error:  # no memory or no process to be had: the others go on
            place.due = time.monotonic() + place.backoff.next()
            log.error(  # noqa: TRY400 - the words say it all
                "a worker could not be started, trying again",
                worker=place.number,
                error=str(error),
            )

    def _ended(self, place: _Place, code: int) -> None:
        if self._told:
            self._code = self._code or int(code not in {0, -signal.SIGTERM})
            return
        if code == USAGE:
            log.error("a worker refuses its command line; all are stopped", worker=place.number)
            self._stop()
            self._code = USAGE
            return
        lived = time.monotonic() - place.started
        if lived >= LIVED or (code == 0 and lived >= 1.0):
            place.backoff.reset()
            place.due = 0.0
        else:
            place.due = time.monotonic() + place.backoff.next()
        log.warning(
            "a worker ended and is started again",
            worker=place.number,
            how=how_it_died(code),
            after=f"{lived:.1f} s",
            pause=f"{max(0.0, place.due - time.monotonic()):.1f} s",
        )

    def _stop(self, *_: Any) -> None:
        """Note a stop; a signal may come while a worker is being started, so it only counts."""
        self._told += 1

    def _pass_on(self, place: _Place) -> None:
        """Pass stops on: the first one lets a worker finish, the second makes it leave."""
        while place.process is not None and place.told < self._told:
            place.told += 1
            with contextlib.suppress(ProcessLookupError):
                place.process.send_signal(signal.SIGTERM)


def supervised() -> tuple[int, int] | None:
    """Return this worker's number and the descriptor that closes with its supervisor, if any."""
    fd, number = os.environ.pop(LIFELINE, ""), os.environ.pop(NUMBER, "")
    return (int(number), int(fd)) if fd.isdigit() and number.isdigit() else None
