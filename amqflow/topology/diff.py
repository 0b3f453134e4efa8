"""Compares what a broker holds with what is declared; pure, the outcome is a plan."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from amqflow.topology.live import Live, LiveBinding, LiveExchange, LiveQueue, comparable
from amqflow.topology.model import Binding, Exchange, Queue, Topology
from amqflow.topology.names import MOVING, MovingNames
from amqflow.topology.plan import Create, Delete, Difference, Plan, Replace, Update

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from amqflow.topology.declaration import Declaration
    from amqflow.topology.plan import Change
    from amqflow.topology.policy import Policy

#: The order in which a plan's changes are applied: nothing is bound before both its ends are
#: there, nothing goes before what leads to it is gone.
ORDER: Final = (
    ("create", "exchange"),
    ("create", "queue"),
    ("replace", "exchange"),
    ("replace", "queue"),
    ("create", "binding"),
    ("create", "policy"),
    ("update", "policy"),
    ("delete", "binding"),
    ("delete", "queue"),
    ("delete", "exchange"),
    ("delete", "policy"),
)
_RANK: Final = {step: rank for rank, step in enumerate(ORDER)}
_KINDS: Final = {
    Exchange: "exchange",
    Queue: "queue",
    Binding: "binding",
    LiveExchange: "exchange",
    LiveQueue: "queue",
    LiveBinding: "binding",
}


def diff(
    topology: Topology,
    live: Live,
    *,
    declaration: Declaration | None = None,
    prune: bool = False,
) -> Plan:
    """Return what has to change on the broker.

    Args:
        topology: Everything it is to hold, derived parts too.
        live: What it holds.
        declaration: The file, for the places of its parts, for what it owns and its policies.
        prune: Delete what the file owns and does not declare.
    """
    comparison = _Comparison(topology, live, declaration)
    changes = [*comparison.parts(), *comparison.policies()]
    deletes = list(comparison.deletes())
    changes += deletes if prune else []
    return Plan(
        tuple(sorted(changes, key=_rank)),
        () if prune else tuple(deletes),
        tuple(comparison.unverified),
        (*live.unseen, *comparison.forgotten()),
        comparison.unchanged,
        comparison.fingerprint(),
    )


def _rank(change: Change) -> int:
    return _RANK[change.action.value, _KINDS.get(type(change.part), "policy")]


@dataclass
class _Comparison:
    """One comparison; ``unchanged`` counts what is as declared, ``unverified`` cannot be seen."""

    topology: Topology
    live: Live
    declaration: Declaration | None
    unchanged: int = 0
    unverified: list[Create] = field(default_factory=list)

    # -- what is declared ------------------------------------------------------------------

    def parts(self) -> Iterator[Change]:
        """Yield what is missing or differs."""
        for exchange in self.topology.exchanges:
            yield from self._exchange(exchange)
        for queue in self.topology.queues:
            yield from self._queue(queue)
        for binding in self.topology.bindings:
            yield from self._binding(binding)

    def _exchange(self, part: Exchange) -> Iterator[Change]:
        found = self.live.exchanges_by_name.get(part.name)
        if found is None:
            yield Create(part, _why(part, "is not on the broker"), self._source(part))
            return
        differences = _differences(part, found, dict(found.arguments), part.declare_arguments())
        if not differences:
            self.unchanged += 1
            return
        yield Replace(
            part, _cannot(differences, partial=found.partial), self._source(part), differences
        )

    def _queue(self, part: Queue) -> Iterator[Change]:
        found = self.live.queues_by_name.get(part.name)
        begun = part.name in self.live.moving
        if found is None and not begun:
            yield Create(part, _why(part, "is not on the broker"), self._source(part))
            return
        differences: tuple[Difference, ...] = ()
        if found is not None:
            differences = _differences(
                part, found, comparable(found.arguments), comparable(part.declare_arguments())
            )
        if begun:
            reason = "its replacement was begun and is not finished"
            yield Replace(part, reason, self._source(part), differences, begun=True)
        elif found is not None and differences:
            reason = _cannot(differences, partial=found.partial)
            yield Replace(part, reason, self._source(part), differences)
        else:
            self.unchanged += 1

    def _binding(self, part: Binding) -> Iterator[Change]:
        wanted = _live(part)
        if wanted.key in self.live.bindings_by_key:
            self.unchanged += 1
        elif self.live.complete:
            yield Create(part, _why(part, "is not on the broker"), self._source(part))
        elif not self._there(part):
            yield Create(part, _why(part, "needs its ends, which are created"), self._source(part))
        else:
            # Nobody can see it over AMQP, and the broker takes one it has without a word.
            self.unverified.append(Create(part, "cannot be seen over AMQP", self._source(part)))

    def _there(self, part: Binding) -> bool:
        ends = (
            self.live.queues_by_name
            if part.destination_kind == "queue"
            else self.live.exchanges_by_name
        )
        return part.destination in ends and part.source in self.live.exchanges_by_name

    # -- policies --------------------------------------------------------------------------

    def policies(self) -> Iterator[Change]:
        """Yield the policies that are missing or differ."""
        for policy in self._declared_policies:
            source = self._policy_source(policy)
            found = self.live.policies_by_name.get(policy.name)
            if found is None:
                yield Create(policy, "is not on the broker", source)
            elif found != policy:
                differences = _policy_differences(found, policy)
                yield Update(policy, "differs; changed in place", source, differences)
            else:
                self.unchanged += 1

    @property
    def _declared_policies(self) -> tuple[Policy, ...]:
        return () if self.declaration is None else self.declaration.policies

    def _policy_source(self, policy: Policy) -> str:
        assert self.declaration is not None, "only a file has policies"
        return self.declaration.positions.show(("policies", policy.name))

    # -- what is not declared --------------------------------------------------------------

    def deletes(self) -> Iterator[Delete]:
        """Yield what the file owns and nothing declares."""
        if self.declaration is None or not self.declaration.owns:
            return
        source = f"{self.declaration.source}: owns"
        gone: set[tuple[str, str]] = set()
        for queue in self.live.queues:
            if self._stray(queue.name, self.topology.queues_by_name) and not queue.exclusive:
                gone.add(("queue", queue.name))
                held = f" and holds {queue.messages} messages" if queue.messages else ""
                yield Delete(queue, f"is owned and not declared{held}", source)
        for exchange in self.live.exchanges:
            if self._stray(exchange.name, self.topology.exchanges_by_name):
                gone.add(("exchange", exchange.name))
                yield Delete(exchange, "is owned and not declared", source)
        for policy in self.live.policies:
            names = {one.name for one in self._declared_policies}
            if policy.name not in names and self._owned(policy.name):
                yield Delete(policy, "is owned and not declared", source)
        yield from self._stray_bindings(gone, source)

    def _stray_bindings(self, gone: set[tuple[str, str]], source: str) -> Iterator[Delete]:
        declared = {_live(binding).key for binding in self.topology.bindings}
        for binding in self.live.bindings:
            if binding.key in declared or not self._owned(binding.destination):
                continue
            if (binding.kind, binding.destination) in gone or ("exchange", binding.source) in gone:
                continue  # it goes with its end
            if binding.source.startswith(MOVING) or binding.destination.startswith(MOVING):
                continue
            yield Delete(binding, "leads to what is owned and is not declared", source)

    def _stray(self, name: str, declared: Mapping[str, object]) -> bool:
        return name not in declared and self._owned(name) and not name.startswith(MOVING)

    def _owned(self, name: str) -> bool:
        assert self.declaration is not None, "asked for a file only"
        return any(fnmatchcase(name, glob) for glob in self.declaration.owns)

    def forgotten(self) -> Iterator[str]:
        """Yield a sentence for each replacement under way of a queue nobody declares any more."""
        for name in sorted(self.live.moving - self.topology.queues_by_name.keys()):
            yield (
                f"the replacement of queue {name!r} was begun and is not finished, and nothing "
                f"here declares it: its messages may wait in {MovingNames(name).hold!r}"
            )

    # -- words -----------------------------------------------------------------------------

    def _source(self, part: Exchange | Queue | Binding) -> str:
        place = None if self.declaration is None else self.declaration.place_of(part)
        return place or "derived"

    def fingerprint(self) -> str:
        """Return a digest of what was compared: declared parts, and the live ones they concern."""
        names = {*self.topology.exchanges_by_name, *self.topology.queues_by_name}
        owned = self.declaration.owns if self.declaration is not None else ()

        def concerns(name: str) -> bool:
            return name in names or any(fnmatchcase(name, glob) for glob in owned)

        live: list[Any] = [
            *(_values(part) for part in self.live.exchanges if concerns(part.name)),
            *(_values(part) for part in self.live.queues if concerns(part.name)),
            *(
                _values(part)
                for part in self.live.bindings
                if concerns(part.source) or concerns(part.destination)
            ),
            *(_values(part) for part in self.live.policies),
        ]
        declared: list[Any] = [
            *(_values(part) for part in self.topology.exchanges),
            *(_values(part) for part in self.topology.queues),
            *(_values(part) for part in self.topology.bindings),
            *(_values(part) for part in self._declared_policies),
        ]
        text = json.dumps([sorted(live), sorted(declared)])
        return hashlib.sha256(text.encode()).hexdigest()


def _values(part: Any) -> str:
    """Return a part as text that is equal for equal parts."""
    skipped = {"why", "messages", "park", "prefetch"}
    return repr(
        [
            type(part).__name__,
            *(
                (name, sorted(value.items(), key=str) if isinstance(value, dict) else value)
                for name in part.__slots__
                if name not in skipped
                for value in [getattr(part, name)]
            ),
        ]
    )


def _live(part: Binding) -> LiveBinding:
    return LiveBinding(
        part.source,
        part.destination_kind.value,
        part.destination,
        part.routing_key,
        dict(part.arguments),
    )


def _why(part: Exchange | Queue | Binding, state: str) -> str:
    return f"{state}; {part.why}" if part.why else state


def _cannot(differences: Iterable[Difference], *, partial: bool) -> str:
    names = ", ".join(one.argument for one in differences)
    more = " (and perhaps more: a refusal names one)" if partial else ""
    return f"{names} cannot be changed in place{more}"


def _differences(
    part: Exchange | Queue,
    found: LiveExchange | LiveQueue,
    live: Mapping[str, Any],
    declared: Mapping[str, Any],
) -> tuple[Difference, ...]:
    fields = ["type", "durable", "auto_delete"]
    fields.append("internal" if isinstance(part, Exchange) else "exclusive")
    plain = [
        Difference(
            name, str(there) if name == "type" else there, str(here) if name == "type" else here
        )
        for name in fields
        for there, here in [(getattr(found, name), getattr(part, name))]
        if there != here
    ]
    arguments = [
        Difference(name, live.get(name), declared.get(name))
        for name in sorted({*live, *declared})
        if live.get(name) != declared.get(name)
    ]
    return (*plain, *arguments)


def _policy_differences(live: Policy, declared: Policy) -> tuple[Difference, ...]:
    plain = [
        Difference(name, getattr(live, name), getattr(declared, name))
        for name in ("pattern", "apply_to", "priority")
        if getattr(live, name) != getattr(declared, name)
    ]
    keys = sorted({*live.definition, *declared.definition})
    return (
        *plain,
        *(
            Difference(key, live.definition.get(key), declared.definition.get(key))
            for key in keys
            if live.definition.get(key) != declared.definition.get(key)
        ),
    )
