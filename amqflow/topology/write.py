"""Writes a declaration as the YAML of a topology file; reading that gives the same again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from amqflow.topology.declaration import Delays, derived_names
from amqflow.topology.file import VERSION
from amqflow.topology.model import DEFAULT_PARK, Exchange, Queue, Route
from amqflow.topology.units import write_duration, write_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.topology.declaration import Declaration
    from amqflow.topology.model import Binding

#: A line of a shipped file; longer ones are broken.
WIDTH: Final = 100


class _Inline(dict[str, Any]):
    """A mapping on one line."""


class _Dumper(yaml.SafeDumper):
    """Writes :class:`_Inline` as ``{key: value}``, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        """Write equal values out."""
        return True


_Dumper.add_representer(
    _Inline,
    lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True),
)


def write(declared: Declaration) -> str:
    """Return the YAML of a declaration; what is at its default is left out.

    The text reads back as an equal declaration, places and comments apart.
    """
    file: dict[str, Any] = {"version": VERSION}
    if declared.owns:
        file["owns"] = list(declared.owns)
    if declared.exchanges:
        file["exchanges"] = {
            part.name: _exchange(part, _to(declared.bindings, "exchange", part.name))
            for part in declared.exchanges
        }
    if declared.queues:
        file["queues"] = {part.name: _queue(part, declared) for part in declared.queues}
    if declared.delays != Delays():
        resolution = write_duration(declared.delays.resolution)
        file["delays"] = _Inline(resolution=resolution, levels=declared.delays.levels)
    if declared.routes:
        file["routes"] = [_route(route) for route in declared.routes]
    if declared.policies:
        file["policies"] = {
            policy.name: {
                "pattern": policy.pattern,
                "apply_to": policy.apply_to,
                "priority": policy.priority,
                "definition": dict(policy.definition),
            }
            for policy in declared.policies
        }
    return yaml.dump(
        file, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH, indent=2
    )


def _to(bindings: Iterable[Binding], kind: str, name: str) -> list[_Inline]:
    return [
        _Inline(
            exchange=binding.source,
            routing_key=binding.routing_key,
            **({"arguments": dict(binding.arguments)} if binding.arguments else {}),
        )
        for binding in bindings
        if binding.destination_kind == kind and binding.destination == name
    ]


def _exchange(part: Exchange, bindings: list[_Inline]) -> dict[str, Any]:
    plain = Exchange(part.name)
    written: dict[str, Any] = {"type": part.type}
    for name in ("durable", "auto_delete", "internal"):
        if getattr(part, name) != getattr(plain, name):
            written[name] = getattr(part, name)
    if bindings:
        written["bindings"] = bindings
    if part.arguments:
        written["arguments"] = dict(part.arguments)
    return written


_DURATIONS: Final = ("message_ttl", "expires", "max_age")


def _queue(part: Queue, declared: Declaration) -> dict[str, Any]:
    written: dict[str, Any] = {"type": part.type.value}
    names = tuple(queue.name for queue in declared.queues)
    could = part.type != "stream" and part.name not in derived_names(names)
    if could and part.name not in declared.consumed:
        written["consumed"] = False
    if bindings := _to(declared.bindings, "queue", part.name):
        written["bindings"] = bindings
    written.update(_plain_fields(part))
    if part.overflow and not (part.dead_letter and part.dead_letter.at_least_once):
        written["overflow"] = part.overflow
    if letter := _dead_letter(part, declared):
        written["dead_letter"] = letter
    if part.park != DEFAULT_PARK:
        written["park"] = sorted(reason.value for reason in part.park)
    if part.arguments:
        written["arguments"] = dict(part.arguments)
    return written


def _plain_fields(part: Queue) -> dict[str, Any]:
    written: dict[str, Any] = {}
    plain = Queue("plain")
    for name in (
        "durable", "exclusive", "auto_delete", "max_priority", *_DURATIONS, "max_length",
        "max_length_bytes", "delivery_limit", "single_active_consumer", "prefetch",
    ):  # fmt: skip
        value = getattr(part, name)
        if value == getattr(plain, name):
            continue
        if name in _DURATIONS:
            value = write_duration(value)
        elif name == "max_length_bytes":
            value = write_size(value)
        written[name] = value
    return written


def _dead_letter(part: Queue, declared: Declaration) -> _Inline:
    written = _Inline()
    letter = part.dead_letter
    if letter is not None:
        written.update(exchange=letter.exchange, routing_key=letter.routing_key)
        default = part.type == "quorum" and part.overflow in {None, "reject-publish"}
        if letter.at_least_once != default:
            written["at_least_once"] = letter.at_least_once
    kept = declared.retention.get(part.name)
    if kept is not None:
        if kept.max_age is not None:
            written["max_age"] = write_duration(kept.max_age)
        for name in ("max_length", "alarm"):
            if (value := getattr(kept, name)) is not None:
                written[name] = value
    return written


def _route(route: Route) -> _Inline:
    plain = Route()
    written = _Inline(task=route.task)
    for name in ("queue", "exchange", "routing_key", "priority", "broadcast"):
        if getattr(route, name) != getattr(plain, name):
            written[name] = getattr(route, name)
    return written
