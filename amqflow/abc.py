"""The words all floors share: call, outcome, attempt, and the Protocols of the seams.

Imports nothing of amqflow but the ground floor, so every room can speak of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

T = TypeVar("T")


# -- states --------------------------------------------------------------------------------

PENDING: Final = "PENDING"
RECEIVED: Final = "RECEIVED"
STARTED: Final = "STARTED"
RETRY: Final = "RETRY"
SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
REVOKED: Final = "REVOKED"

#: States that end a task within one epoch (Celery's READY_STATES).
TERMINAL_STATES: Final = frozenset({SUCCESS, FAILURE, REVOKED})
#: What ``finish`` takes: how an attempt ends. Everything else is shown by ``set_state``.
OUTCOME_STATES: Final = TERMINAL_STATES | {RETRY}
#: Terminal states whose result is an exception (Celery's PROPAGATE_STATES).
PROPAGATE_STATES: Final = frozenset({FAILURE, REVOKED})


class DeadReason(StrEnum):
    """Why a worker parked a message; the value of the ``amqflow-dead-reason`` header."""

    FAILED = "failed"
    EXPIRED = "expired"
    REVOKED = "revoked"
    UNDECODABLE = "undecodable"
    UNKNOWN_TASK = "unknown-task"
    INVALID_ARGUMENTS = "invalid-arguments"
    POISON = "poison"
    WORKFLOW = "workflow"
    BLOB_MISSING = "blob-missing"


# -- an instant ----------------------------------------------------------------------------


class Gate(Protocol):
    """Lets messages that are ready out at one instant. It opens once and stays open."""

    def left(self) -> float:
        """Return how many seconds are left until it opens; 0 where it is open."""
        ...

    def add(self, go: Callable[[], None]) -> None:
        """Call ``go``, which must not raise, when it opens; at once where it is open."""
        ...


# -- a call --------------------------------------------------------------------------------


@dataclass(slots=True)
class Call:
    """One request to run a task: what ``delay`` and ``apply_async`` hand to the dispatcher.

    ``eta`` and ``expires`` are Unix seconds. ``None`` means "not given": the task's own option,
    then the route, then the setting decides.
    """

    task: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    task_id: str | None = None
    eta: float | None = None
    expires: float | None = None
    priority: int | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    headers: Mapping[str, Any] | None = None
    #: Marks by which it is known, and revoked: name and value, or values.
    stamps: Mapping[str, Any] | None = None
    retries: int = 0
    #: How often a task was replaced (``self.replace``) by one with the same id.
    replaced_task_nesting: int = 0
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    #: Celery's dict form of signatures.
    callbacks: Sequence[Mapping[str, Any]] = ()
    errbacks: Sequence[Mapping[str, Any]] = ()
    #: The rest of a chain, *last step first*, as protocol 2 carries it.
    chain: Sequence[Mapping[str, Any]] = ()
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool | None = None
    reply_to: str | None = None
    shadow: str | None = None
    compression: str | None = None
    #: The task by whose name and options it is routed, in place of its own (``map`` and its kin).
    route_name: str | None = None
    #: Seconds the confirm may take; None: the setting ``publish_timeout``.
    timeout: float | None = None
    #: Try again (same id) while the broker is away, until ``timeout``.
    retry: bool = True
    #: What goes out at a given instant is ready by then; None: it goes at once.
    gate: Gate | None = None


# -- an attempt and how it ended -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExceptionInfo:
    """An exception as data: Celery's ``exc_type``, ``exc_message``, ``exc_module``.

    ``args`` are the exception's own arguments where JSON can carry them, else its text.
    """

    type: str
    module: str
    args: tuple[Any, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of one task by one worker, before it starts.

    ``number`` is the count of retries (0 for the first run). ``owner`` names the worker.
    ``once``: refuse to run while another owner holds the lease (design 5.4).
    """

    id: str
    epoch: int = 0
    number: int = 0
    owner: str = ""
    once: bool = False
    lease: float = 60.0
    #: Celery's ``task_track_started``: let readers see STARTED.
    track_started: bool = False


#: What a task has sent: a task by its id, or a group by its id and its members.
Child: TypeAlias = "str | tuple[str, tuple[Child, ...]]"


def as_child(data: Any) -> Child:
    """Return a child from the lists JSON makes of it."""
    return data if isinstance(data, str) else (data[0], tuple(map(as_child, data[1])))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, or the state it is in; what a result store keeps for an id.

    ``result`` is the value (SUCCESS) or the meta data of ``update_state`` (own states).
    ``retry_at`` (Unix seconds) is set with RETRY, ``park`` where the message is to be parked,
    ``reason`` is a sentence for people (``"expired"``, ``"revoked by …"``).
    """

    id: str
    state: str
    result: Any = None
    exception: ExceptionInfo | None = None
    traceback: str | None = None
    epoch: int = 0
    attempt: int = 0
    retry_at: float | None = None
    park: DeadReason | None = None
    reason: str | None = None
    #: What this task has sent, Celery's ``children``: ids, and groups as (id, members).
    children: tuple[Child, ...] = ()
    parent_id: str | None = None
    group_id: str | None = None
    #: Unix seconds at which it ended.
    date_done: float | None = None
    #: Celery's dict form of the signature that takes this task's place (``self.replace``).
    replaced_by: Mapping[str, Any] | None = None
    #: What Celery keeps beside a result with ``result_extended``: name, args, kwargs, worker,
    #: retries, queue; None where it was not kept.
    extended: Mapping[str, Any] | None = None

    @property
    def terminal(self) -> bool:
        """Whether this ends the task within its epoch."""
        return self.state in TERMINAL_STATES


class Verdict(StrEnum):
    """What a store answers when an attempt wants to begin."""

    #: Run it; ``Claim.fence`` is its fencing number.
    RUN = "run"
    #: This attempt, or the whole task, has an outcome: do what ``Claim.outcome`` requires, ack.
    SETTLED = "settled"
    #: A later attempt or a higher epoch has begun: ack, nothing is left to do.
    STALE = "stale"
    #: ``once`` and another owner's lease is alive: come back later through the ladder.
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer of :meth:`ResultStore.begin` for one attempt."""

    verdict: Verdict
    fence: int = 0
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """A request to store an outcome under the fence the attempt got."""

    outcome: Outcome
    fence: int
    #: Address for stores that answer by message (``rpc``): the caller's reply queue.
    reply_to: str | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer to one :class:`Finish`.

    ``stored`` is the outcome that stands for this attempt: ours, or an earlier writer's.
    ``refused``: a later owner holds the fence, or a later attempt or epoch stands; publish
    nothing. ``contested`` beside it: the fence of this very attempt is another owner's, who may
    be dead; the message must not end with this answer.
    """

    stored: Outcome
    refused: bool = False
    contested: bool = False


@dataclass(frozen=True, slots=True)
class StoreCapabilities:
    """What a result store can do, declared; the conformance suite holds it to this."""

    #: ``begin``/``finish`` compare and set; False: every attempt runs, the last write stands.
    fences: bool
    #: Any process may read any result; False (``rpc``): only the caller its own.
    shared: bool
    #: Results outlive this process.
    durable: bool


@runtime_checkable
class ResultStore(Protocol):
    """Where outcomes are kept and waited for. One instance lives in one event loop.

    Every method raises :class:`~amqflow.errors.StoreUnavailable` when the store cannot be used
    now (hold and try again) and has a deadline of its own.
    """

    @property
    def capabilities(self) -> StoreCapabilities:
        """What this store can do."""
        ...

    async def open(self) -> None:
        """Connect, or raise StoreUnavailable. May be called again after a close."""
        ...

    async def close(self) -> None:
        """Release connections and wake every waiter with StoreUnavailable."""
        ...

    async def begin(self, attempts: Sequence[Attempt]) -> list[Claim]:
        """Claim a batch of attempts in one round trip, in order."""
        ...

    async def renew(self, attempts: Sequence[tuple[Attempt, int]]) -> list[bool]:
        """Extend leases under their fences; False where the fence is no longer ours."""
        ...

    async def finish(self, finishes: Sequence[Finish]) -> list[Finished]:
        """Compare-and-set a batch of outcomes (terminal, or RETRY) in one round trip."""
        ...

    async def set_state(self, outcome: Outcome) -> None:
        """Show a state that ends nothing (STARTED, PROGRESS…); never over a terminal one."""
        ...

    async def get(self, task_id: str) -> Outcome | None:
        """Return what is known of an id; None is Celery's PENDING."""
        ...

    async def get_many(self, task_ids: Sequence[str]) -> list[Outcome | None]:
        """Return what is known of many ids, in order; one round trip for hundreds of them."""
        ...

    async def wait(self, task_id: str, timeout: float | None) -> Outcome:
        """Wait for a terminal outcome by push. Raises TimeoutError after ``timeout`` seconds."""
        ...

    def expect(self, task_id: str) -> Expected | None:
        """Wait for the end of a call that is about to be sent, under an id nobody has used.

        Returns:
            None: the store sees nothing to gain by that; :meth:`wait` works as ever.
        """
        ...

    async def save_group(self, group_id: str, members: Any) -> None:
        """Keep a group's tuple form (``as_tuple`` of its handle); None drops it.

        Raises:
            StoreError: This store keeps no groups.
        """
        ...

    async def load_group(self, group_id: str) -> Any:
        """Return a group's tuple form as it was saved; None where nothing is."""
        ...

    async def forget(self, task_id: str) -> None:
        """Drop what is kept of an id."""
        ...

    @property
    def reply_to(self) -> str | None:
        """The queue this process's replies come to (``rpc``), else None."""
        ...


class BlobStore(Protocol):
    """Keeps what is too large for a message, by reference (design 8). One per event loop."""

    async def put(self, data: bytes, *, keep: float = 0.0) -> str:
        """Keep ``data`` and return its reference; ``keep``: seconds it is needed for.

        The same content has the same reference, so a second try costs nothing.
        Raises MessageTooLarge over the bound, StoreUnavailable where the store is away.
        """
        ...

    async def get(self, ref: str) -> bytes:
        """Return what a reference names. Raises BlobMissing, StoreUnavailable."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


# -- what a handle and a task need of the application --------------------------------------


class LoopRunner(Protocol):
    """Runs coroutines for blocking callers on the process's background loop."""

    def run(self, coroutine: Coroutine[Any, Any, T], *, twin: str) -> T:
        """Block until done. ``twin`` names the async twin in the SyncInLoop error."""
        ...


class ResultReader(LoopRunner, Protocol):
    """What an AsyncResult needs: reading, waiting, and saying why nothing came."""

    async def fetch_outcome(self, task_id: str) -> Outcome | None:
        """Return what the store knows of an id."""
        ...

    async def fetch_outcomes(self, task_ids: Sequence[str]) -> list[Outcome | None]:
        """Return what the store knows of many ids, in order."""
        ...

    async def wait_outcome(self, task_id: str, timeout: float | None) -> Outcome:
        """Wait for the terminal outcome, or raise TimeoutError."""
        ...

    async def forget_outcome(self, task_id: str) -> None:
        """Drop a result from the store."""
        ...

    async def save_group(self, group_id: str, members: Any) -> None:
        """Keep a group's tuple form in the store; None drops it."""
        ...

    async def load_group(self, group_id: str) -> Any:
        """Return a saved group's tuple form; None where there is none."""
        ...

    async def arevoke(self, ids: str | Sequence[str], *, terminate: bool = False) -> None:
        """Revoke tasks by id, published or not yet; returns when that is durable.

        What has not begun ends as REVOKED at once; what runs goes on unless ``terminate``.
        """
        ...

    def running_task(self) -> str | None:
        """Return the name of the task a worker runs in this context; None outside one."""
        ...

    async def explain(self, task_id: str, queue: str | None) -> str:
        """Say in a few words where a task without a result is likely to be."""
        ...

    def decode_result(self, task: str | None, value: Any) -> Any:
        """Validate a result back by the task's return annotation, where one is known."""
        ...


class Expected(Protocol):
    """The end of a call, waited for since before it was sent (``amqflow.results.expected``)."""

    def wait(self, timeout: float | None) -> Outcome | None:
        """Block until it comes; None: it is to be asked for in the usual way."""
        ...

    def look(self) -> Outcome | None:
        """Return what has come already."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """A confirmed publish: the id, and the queue it was routed to (None: not known offline).

    ``expected``: its end, where the application waits for that already.
    """

    id: str
    task: str
    queue: str | None
    expected: Expected | None = None


class SentNode(Protocol):
    """A signature or composition, as far as the ground floor knows it (``amqflow.canvas``)."""

    @property
    def subtask_type(self) -> str | None:
        """Celery's: None for a plain signature, else the kind of composition."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return Celery's dict form."""
        ...


class Dispatcher(ResultReader, Protocol):
    """Sends calls; the application is one. Raises PublishError kinds, never returns unconfirmed."""

    async def send_call(self, call: Call) -> Sent:
        """Route, encode and publish one call, and return after the broker's confirm."""
        ...

    async def send_calls(self, calls: Sequence[Call]) -> list[Sent]:
        """Publish many calls pipelined; raises PublishGroupError when some were refused."""
        ...

    async def send_composition(
        self,
        node: SentNode,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Any:
        """Send a chain, group or chord, completed by arguments and options, and return its handle.

        The handle is one of :mod:`amqflow.handles`, which stands on this module: a chain's is that
        of its last step, with ``parent``; a group's a GroupResult; a chord's that of its body.
        """
        ...

    async def arevoke(self, ids: str | Sequence[str], *, terminate: bool = False) -> None:
        """Revoke tasks by id, published or not yet; returns when that is durable.

        What has not begun ends as REVOKED at once; what runs goes on unless ``terminate``.
        """
        ...


class StateSetter(Protocol):
    """Shows an own state of a running task (``self.update_state``), from any thread."""

    def __call__(self, task_id: str, state: str, meta: Any) -> None:
        """Store ``state`` with ``meta``; blocking outside a loop, scheduled inside one."""
        ...
