"""The running task: its request, held in one context variable for threads and coroutines alike."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amqflow.abc import Child, StateSetter


class Request:
    """What a running task knows of its message: Celery's ``self.request`` (``Task.Context``).

    Only what was given is stored; the rest are the defaults below, so that making one is cheap.
    ``eta`` and ``expires`` are ISO 8601 texts, as Celery shows them; ``timelimit`` is (hard, soft)
    seconds. Additions to Celery's: ``attempt``'s ``fence`` and ``epoch``, and ``deadline``.
    """

    id: str | None = None
    #: The task's name.
    task: str | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    #: Retries so far: 0 on the first run.
    retries: int = 0
    #: How often ``self.replace`` has put another task in this one's place.
    replaced_task_nesting: int = 0
    headers: Mapping[str, Any] | None = None
    #: Marks by which it is known, and revoked (``sig.stamp``): name and value, or values.
    stamps: Mapping[str, Any] = {}
    #: The names of the stamps; None without one.
    stamped_headers: Sequence[str] | None = None
    #: exchange, routing_key, priority, redelivered, queue.
    delivery_info: Mapping[str, Any] | None = None
    properties: Mapping[str, Any] | None = None
    eta: str | None = None
    expires: str | None = None
    timelimit: tuple[float | None, float | None] = (None, None)
    #: The worker.
    hostname: str | None = None
    #: Who sent it.
    origin: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    ignore_result: bool | None = None
    shadow: str | None = None
    callbacks: Sequence[Mapping[str, Any]] | None = None
    errbacks: Sequence[Mapping[str, Any]] | None = None
    #: The rest of the chain, last step first.
    chain: Sequence[Mapping[str, Any]] | None = None
    #: Run by ``apply`` or ``task_always_eager``.
    is_eager: bool = False
    #: Called as a function, not by a worker or ``apply``.
    called_directly: bool = True
    #: The fencing number of this run: grows with every run of the same id.
    fence: int = 0
    #: Grows with every replay from the dead letters.
    epoch: int = 0
    #: Unix seconds at which the hard limit ends this run, None without one.
    deadline: float | None = None
    #: Shows own states (``self.update_state``); None where there is no result store.
    set_state: StateSetter | None = None
    #: W3C Trace Context of the message.
    traceparent: str | None = None
    tracestate: str | None = None
    utc: bool = True

    if TYPE_CHECKING:
        _children: list[Child]
        _outer: Request | None

    def __init__(self, **fields: Any) -> None:
        """Take what is known, by the names above."""
        self.__dict__.update(fields)

    @property
    def children(self) -> tuple[Child, ...]:
        """What this task has sent so far: ids, and groups as (id, members)."""
        return tuple(self.__dict__.get("_children", ()))

    def add_child(self, child: Child) -> None:
        """Note what this task has sent: a task's id, or a group as (id, members)."""
        self.__dict__.setdefault("_children", []).append(child)

    @property
    def sent_from(self) -> Request | None:
        """The request that tasks sent now descend from: not that of a plain call."""
        request: Request | None = self
        while request is not None and request.called_directly:
            request = request.__dict__.get("_outer")
        return request

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field by name, as Celery's Context does."""
        return getattr(self, name, default)

    def update(self, **fields: Any) -> None:
        """Set fields, as Celery's Context does."""
        self.__dict__.update(fields)

    def __repr__(self) -> str:
        return f"<Request: {self.task}[{self.id}] retries={self.retries}>"


#: The running task and its request, innermost first. The one place where "now running" is kept.
_current: ContextVar[tuple[Any, Request] | None] = ContextVar("amqflow_current", default=None)

#: What ``self.request`` answers outside a run.
_OUTSIDE = Request()


class running:  # noqa: N801 - used as a verb: ``with running(task, request)``
    """Makes ``task`` with ``request`` the running one inside the ``with``."""

    __slots__ = ("_entry", "_token")

    def __init__(self, task: Any, request: Request) -> None:
        self._entry = (task, request)

    def __enter__(self) -> Request:
        self._token = _current.set(self._entry)
        return self._entry[1]

    def __exit__(self, *_error: object) -> None:
        _current.reset(self._token)


def current_request() -> Request | None:
    """Return the request of the running task; None outside one."""
    entry = _current.get()
    return None if entry is None else entry[1]


def request_of(task: Any) -> Request:
    """Return ``task``'s own request: an empty one where another task, or none, is running."""
    entry = _current.get()
    return entry[1] if entry is not None and entry[0] is task else _OUTSIDE


def parent_request() -> Request | None:
    """Return the request that tasks sent now descend from; None outside a worker's run."""
    entry = _current.get()
    return None if entry is None else entry[1].sent_from


class _CurrentTask:
    """Celery's ``current_task``: stands for the running task; false where none is."""

    __slots__ = ()

    def _get_current_object(self) -> Any:
        entry = _current.get()
        return None if entry is None else entry[0]

    def __bool__(self) -> bool:
        return _current.get() is not None

    def __getattr__(self, name: str) -> Any:
        # None has no attribute "request" either: outside a task that is the error, as in Celery.
        return getattr(self._get_current_object(), name)

    def __eq__(self, other: object) -> bool:
        return bool(self._get_current_object() == other)

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __repr__(self) -> str:
        return repr(self._get_current_object())


current_task = _CurrentTask()
