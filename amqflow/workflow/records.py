"""What the engine knows of a chord: its record, who its members are, how they ended. Pure data.

A *chord* here is everything that waits for several tasks: a chord with its body, and the join of
a group whose list somebody waits for (a group at the end of a chain, one with a link).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import FAILURE, REVOKED, SUCCESS, ExceptionInfo, Outcome
from amqflow.errors import Undecodable
from amqflow.protocol import derived_id, dumps, loads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: Indices of members that were added by running ones start here; those of the header are below.
ADDED: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Membership:
    """A task's place in a chord, as the header ``amqflow-chord`` carries it along its chain.

    ``app`` names the application whose coordinators count it, ``store`` the kind of store its
    record is kept in.
    """

    chord: str
    index: int
    app: str
    store: str

    def to_header(self) -> dict[str, Any]:
        """Return the header's table."""
        return {"id": self.chord, "index": self.index, "app": self.app, "store": self.store}

    @classmethod
    def of(cls, header: Any) -> Membership | None:
        """Read the header; None where there is none.

        Raises:
            Undecodable: It is not as :meth:`to_header` writes it.
        """
        if header is None:
            return None
        try:
            chord, index = header["id"], header["index"]
            app, store = header["app"], header["store"]
        except (TypeError, KeyError, IndexError) as error:
            raise Undecodable(f"header 'amqflow-chord': {error!r} is missing") from error
        if not (
            isinstance(chord, str)
            and chord
            and type(index) is int
            and index >= 0
            and isinstance(app, str)
            and app
            and isinstance(store, str)
        ):
            raise Undecodable(f"header 'amqflow-chord' has a wrong shape: {header!r:.200}")
        return cls(chord, index, app, store)

    @property
    def task_id(self) -> str:
        """The id of this member's result, unless its caller chose another."""
        return member_id(self.chord, self.index)


def member_id(chord: str, index: int) -> str:
    """Return the id of a member's result: the same for whoever asks, so that nobody keeps it."""
    return derived_id(chord, "member", index)


@dataclass(frozen=True, slots=True)
class End:
    """An id that ends with a chord if the chord fails; ``attempt`` as results are fenced."""

    id: str
    attempt: int = 0
    #: The task's name; empty for a group's id.
    task: str = ""


@dataclass(frozen=True, slots=True)
class Fate:
    """What follows from a chord's failure: all the watch needs where the record is gone.

    ``ends`` are the ids that can no longer succeed, the chord's own result first; ``errbacks``
    run once; ``member`` is the place of the whole in an enclosing chord.
    """

    ends: tuple[End, ...]
    errbacks: tuple[Mapping[str, Any], ...] = ()
    member: Membership | None = None
    root_id: str | None = None
    parent_id: str | None = None
    priority: int | None = None
    #: What follows takes over (:class:`amqflow.tasks.inherit.Heritage`).
    headers: Mapping[str, Any] = field(default_factory=dict)
    expires: float | None = None

    @property
    def result(self) -> End:
        """The chord's own result: its body's id, or the group's."""
        return self.ends[0]


@dataclass(frozen=True, slots=True)
class Spec:
    """What a chord is for; written once, before the first member is published.

    Args:
        fate: What follows from its failure.
        body: The frozen node that gets the list (Celery's dict form); None: the list itself is
            the result, the chord is the join of a group.
        links: Of a join: frozen nodes that get the list as well.
        members: Ids of members whose caller chose them, by index.
        names: The members' tasks as runs of (name, how many), for people.
        epoch: The life of the task it was sent by.
    """

    fate: Fate
    body: Mapping[str, Any] | None = None
    links: tuple[Mapping[str, Any], ...] = ()
    members: Mapping[int, str] = field(default_factory=dict)
    names: tuple[tuple[str, int], ...] = ()
    epoch: int = 0

    def to_json(self) -> bytes:
        """Write it for a store or a message."""
        return dumps(
            {
                **fate_to_dict(self.fate),
                "body": self.body,
                "links": list(self.links),
                "members": {str(index): task_id for index, task_id in self.members.items()},
                "names": [list(run) for run in self.names],
                "epoch": self.epoch,
            },
            root="chord",
        )

    @classmethod
    def from_json(cls, data: bytes) -> Spec:
        """Read it back.

        Raises:
            Undecodable: It is nothing of the kind.
        """
        try:
            found: dict[str, Any] = loads(data)
            return cls(
                fate_from_dict(found),
                found["body"],
                tuple(found["links"]),
                {int(index): task_id for index, task_id in found["members"].items()},
                tuple((name, count) for name, count in found["names"]),
                int(found["epoch"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Undecodable(f"not a chord's record: {error!r}") from error

    def remembered(self) -> Spec:
        """Return what is kept of it when all is done: who was who, not what was to run."""
        return replace(self, body=None, links=(), fate=replace(self.fate, errbacks=()))

    def member_id(self, chord: str, index: int) -> str:
        """Return the id of a member's result."""
        return self.members.get(index) or member_id(chord, index)


def fate_to_dict(fate: Fate) -> dict[str, Any]:
    """Return a fate as JSON's types."""
    return {
        "ends": [[end.id, end.attempt, end.task] for end in fate.ends],
        "errbacks": list(fate.errbacks),
        "member": None if fate.member is None else fate.member.to_header(),
        "root_id": fate.root_id,
        "parent_id": fate.parent_id,
        "priority": fate.priority,
        "headers": dict(fate.headers),
        "expires": fate.expires,
    }


def fate_from_dict(found: Mapping[str, Any]) -> Fate:
    """Read :func:`fate_to_dict`; raises KeyError, TypeError or ValueError where it is none."""
    return Fate(
        tuple(End(task_id, attempt, task) for task_id, attempt, task in found["ends"]),
        tuple(found["errbacks"]),
        Membership.of(found["member"]),
        found["root_id"],
        found["parent_id"],
        found["priority"],
        found["headers"],
        found["expires"],
    )


@dataclass(frozen=True, slots=True)
class Record:
    """A chord as it is created.

    ``size`` None: its members are not all there yet. Who sends them says so afterwards; a chord
    nobody sealed until its deadline is lost, as whoever sent it must have died.
    """

    id: str
    size: int | None
    spec: Spec


@dataclass(frozen=True, slots=True)
class Seal:
    """The size of a chord once its members are all confirmed; ``spec`` where it has changed."""

    chord: str
    size: int
    spec: Spec | None = None


# -- how members ended -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ending:
    """How one member ended: its terminal outcome in the form that travels and is kept.

    ``value`` is JSON: the result, or a :class:`Failure`. Within an epoch the first
    ending of an index stands; a higher epoch's replaces it.
    """

    index: int
    succeeded: bool
    value: bytes
    epoch: int = 0

    @classmethod
    def of(cls, index: int, outcome: Outcome, task: str = "") -> Ending:
        """Return the ending of a terminal outcome."""
        if outcome.state == SUCCESS:
            result = outcome.result
            value = b"null" if result is None else dumps(result, root="result")
            return cls(index, succeeded=True, value=value, epoch=outcome.epoch)
        cause = Failure.of(outcome, task)
        return cls(index, succeeded=False, value=cause.to_json(), epoch=outcome.epoch)

    def to_bytes(self) -> bytes:
        """Return the form a store keeps: ``[epoch]S…`` or ``[epoch]F…``; epoch 0 is left out."""
        letter = b"S" if self.succeeded else b"F"
        return (b"%d%b%b" % (self.epoch, letter, self.value)) if self.epoch else letter + self.value

    @classmethod
    def from_bytes(cls, index: int, data: bytes) -> Ending:
        """Read :meth:`to_bytes`."""
        place = next(place for place, byte in enumerate(data) if not 48 <= byte <= 57)  # noqa: PLR2004
        epoch = int(data[:place] or b"0")
        return cls(index, data[place : place + 1] == b"S", data[place + 1 :], epoch)

    def result(self) -> Any:
        """Return the value of one that succeeded."""
        return loads(self.value)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a chord failed: the ending of one member, or what happened to the chord itself."""

    id: str
    task: str
    state: str
    exception: ExceptionInfo | None
    traceback: str | None
    reason: str | None

    @classmethod
    def of(cls, outcome: Outcome, task: str = "") -> Failure:
        """Return an outcome as a cause."""
        return cls(
            outcome.id, task, outcome.state, outcome.exception, outcome.traceback, outcome.reason
        )

    def to_json(self) -> bytes:
        """Write it for an ending."""
        return dumps(asdict(self), root="failure")

    @classmethod
    def read(cls, value: bytes) -> Failure:
        """Read :meth:`to_json`.

        Raises:
            Undecodable: It is nothing of the kind.
        """
        try:
            found: dict[str, Any] = loads(value)
            error = found["exception"]
            return cls(
                found["id"],
                found["task"],
                found["state"],
                None
                if error is None
                else ExceptionInfo(
                    error["type"], error["module"], tuple(error["args"]), error["text"]
                ),
                found["traceback"],
                found["reason"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Undecodable(f"not a member's failure: {error!r}") from error

    def described(self) -> ExceptionInfo:
        """Return the error for those who depend on it: a revoke is one, too."""
        if self.exception is not None:
            return self.exception
        text = self.reason or self.state.lower()
        kind = "TaskRevoked" if self.state == REVOKED else "TaskFailed"
        args = (text,) if self.state == REVOKED else (self.task or self.id, text)
        return ExceptionInfo(kind, "amqflow.errors", args, text)

    def outcome_of(self, end: End, *, epoch: int, now: float) -> Outcome:
        """Return the outcome of an id that depended on what failed."""
        who = f"{self.task}[{self.id}]" if self.task else self.id
        return Outcome(
            end.id,
            FAILURE,
            exception=self.described(),
            traceback=self.traceback,
            epoch=epoch,
            attempt=end.attempt,
            reason=f"not run: {who} {_ended(self.state)} before it",
            date_done=now,
        )


def _ended(state: str) -> str:
    return "was revoked" if state == REVOKED else "failed"


# -- what a store answers --------------------------------------------------------------------


class Verdict(StrEnum):
    """What remains to be done for a chord after a batch was counted."""

    #: Members are still to end.
    WAITING = "waiting"
    #: All succeeded, and the asker holds the lease: publish the body, then say so.
    READY = "ready"
    #: A member failed, and the asker holds the lease: fail the chord, then say so.
    FAILED = "failed"
    #: Somebody else holds the lease: ask again later.
    BUSY = "busy"
    #: Fired or failed before: nothing.
    DONE = "done"
    #: There is no record.
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Counted:
    """The answer for one chord; ``fence`` comes with READY and FAILED."""

    verdict: Verdict
    fence: int = 0


@dataclass(frozen=True, slots=True)
class Counting:
    """Endings of one chord's members, to be counted together. None of them: only ask."""

    chord: str
    endings: Sequence[Ending] = ()


class State(StrEnum):
    """The state of a chord's record."""

    OPEN = "open"
    FAILED = "failed"
    FIRED = "fired"


@dataclass(frozen=True, slots=True)
class Known:
    """All that a store knows of a chord.

    ``size`` counts the header's members, ``added`` has the ids of those added since by index.
    ``endings`` are there where they were asked for; ``ended`` is their number. ``why`` is the
    index of a member that failed.
    """

    id: str
    state: State
    spec: Spec | None
    size: int | None
    ended: int
    failed: int
    epoch: int
    created: float
    why: int | None = None
    added: Mapping[int, str] = field(default_factory=dict)
    endings: Mapping[int, Ending] = field(default_factory=dict)

    def missing(self) -> Iterator[tuple[int, str]]:
        """Yield index and id of each member that has not ended (endings must be loaded)."""
        if self.spec is None:
            return
        for index in range(self.size or 0):
            if index not in self.endings:
                yield index, self.spec.member_id(self.id, index)
        for index, task_id in self.added.items():
            if index not in self.endings:
                yield index, task_id

    @property
    def over(self) -> bool:
        """Whether a member has failed, or all have ended (endings must be loaded)."""
        if self.failure() is not None:
            return True
        return self.size is not None and len(self.endings) >= self.size + len(self.added)

    def failure(self) -> Ending | None:
        """Return the ending of a member that failed (endings must be loaded)."""
        why = None if self.why is None else self.endings.get(self.why)
        if why is not None and not why.succeeded:
            return why
        return next((one for one in self.endings.values() if not one.succeeded), None)

    def results(self) -> list[Any]:
        """Return the results in the header's order."""
        return [self.endings[index].result() for index in sorted(self.endings)]
