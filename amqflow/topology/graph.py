"""Draws a topology as a Mermaid flow chart: exchanges, queues, bindings, dead letters, routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.names import OWN_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.declaration import Declaration
    from amqflow.topology.model import Queue, Topology


def mermaid(declared: Declaration, topology: Topology, *, derived: bool = True) -> str:
    """Return a flow chart; exchanges are hexagons, queues cylinders, tasks rounded.

    Args:
        declared: The file.
        topology: Everything, as :meth:`Declaration.topology` returns it.
        derived: Homes and suspects' queues too. The ladder and the application's own queues are
            in every topology and never drawn.
    """
    chart = _Chart(declared, topology, derived=derived)
    return "\n".join(["flowchart LR", *(f"  {line}" for line in chart.lines())]) + "\n"


class _Chart:
    """The lines of one chart."""

    def __init__(self, declared: Declaration, topology: Topology, *, derived: bool) -> None:
        self.declared, self.topology, self.derived = declared, topology, derived
        self._ids: dict[tuple[str, str], str] = {}
        self._used = {queue.dead_letter.exchange for queue in self._queues() if queue.dead_letter}

    def lines(self) -> Iterator[str]:
        for exchange in self.topology.exchanges:
            if self._shown_exchange(exchange.name):
                yield self._node("exchange", exchange.name, f"{exchange.name}\n{exchange.type}")
        for queue in self._queues():
            yield self._node("queue", queue.name, _label(queue))
        for binding in self.topology.bindings:
            if self._shows(binding.source, binding.destination_kind, binding.destination):
                source = self._id("exchange", binding.source)
                target = self._id(binding.destination_kind, binding.destination)
                yield f"{source} -->{_on_edge(binding.routing_key)} {target}"
        for queue in self._queues():
            yield from self._dead_letter(queue)
        yield from self._routes()

    def _dead_letter(self, queue: Queue) -> Iterator[str]:
        letter = queue.dead_letter
        if letter is None or not (self.derived or queue.name in self.declared.own.queues_by_name):
            return
        kind, name = (
            ("exchange", letter.exchange)
            if letter.exchange
            else ("queue", letter.routing_key or queue.name)
        )
        if kind == "exchange" or any(one.name == name for one in self._queues()):
            yield (
                f"{self._id('queue', queue.name)} -.->{_on_edge(letter.routing_key or '')} "
                f"{self._id(kind, name)}"
            )

    def _routes(self) -> Iterator[str]:
        for index, route in enumerate(self.declared.routes):
            if route.queue is None and route.exchange is None:
                continue
            key = ("route", str(index))
            yield f'{self._id(*key)}(["{_escape(route.task)}"])'
            kind, name = (
                ("queue", route.queue) if route.queue is not None else ("exchange", route.exchange)
            )
            edge = _on_edge(route.routing_key or "")
            yield f"{self._id(*key)} ==>{edge} {self._id(kind, str(name))}"

    def _queues(self) -> list[Queue]:
        own = self.declared.own.queues_by_name
        return [
            queue
            for queue in self.topology.queues
            if queue.name in own or (self.derived and not queue.name.startswith(OWN_PREFIX))
        ]

    def _shown_exchange(self, name: str) -> bool:
        return name in self._used or not name.startswith(OWN_PREFIX)

    def _shows(self, source: str, kind: str, destination: str) -> bool:
        if not self._shown_exchange(source):
            return False
        if kind == "queue":
            return any(queue.name == destination for queue in self._queues())
        return self._shown_exchange(destination)

    def _node(self, kind: str, name: str, label: str) -> str:
        left, right = ("{{", "}}") if kind == "exchange" else ("[(", ")]")
        return f'{self._id(kind, name)}{left}"{_escape(label)}"{right}'

    def _id(self, kind: str, name: str) -> str:
        """Return a name Mermaid takes: queues and exchanges may share theirs, or hold spaces."""
        return self._ids.setdefault((kind, name), f"{kind[0]}{len(self._ids)}")


def _label(queue: Queue) -> str:
    words = [queue.type.value]
    if queue.max_priority is not None:
        words.append(f"priority 0-{queue.max_priority}")
    return f"{queue.name}\n{', '.join(words)}"


def _on_edge(text: str) -> str:
    return f'|"{_escape(text)}"|' if text else ""


def _escape(text: str) -> str:
    """Return text for a quoted Mermaid label, which knows entities written ``#quot;``."""
    for sign, code in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
        text = text.replace(sign, code)
    return text.replace("\n", "<br/>")
