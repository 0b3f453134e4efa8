"""A composition drawn as a Mermaid flow chart (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from amqflow.canvas.chain import Chain
from amqflow.canvas.chord import Chord
from amqflow.canvas.group import Group
from amqflow.canvas.node import signature_from
from amqflow.canvas.signature import Signature

if TYPE_CHECKING:
    from amqflow.canvas.node import Node

#: Members of one group that are drawn; the rest are counted.
MEMBERS: Final = 8
_LABEL: Final = 60
_MEANS_SOMETHING: Final = frozenset('"#<>&`\\\r\n')


def draw(node: Node[Any]) -> str:
    """Return a composition as a Mermaid flow chart, from left to right.

    Of a large group the first members are drawn, and the others counted; of one that is still a
    generator, no more than these are drawn.
    """
    chart = _Chart()
    chart.add(node)
    return "\n".join(["flowchart LR", *chart.lines]) + "\n"


class _Chart:
    """The lines of a chart, and the names of its nodes."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0

    def add(self, node: Node[Any]) -> tuple[list[str], list[str]]:
        """Draw a node and its links; return the names of where it begins and where it ends."""
        begins, ends = self._drawn(node)
        for option, word in (("link", "then"), ("link_error", "on error")):
            for linked in node.options.get(option) or ():
                after, _ = self.add(signature_from(linked))
                self._connect(ends, after, f"-. {word} .->")
        return begins, ends

    def _drawn(self, node: Node[Any]) -> tuple[list[str], list[str]]:
        if isinstance(node, Chain):
            return self._chain(node)
        if isinstance(node, Chord):
            begins, ends = self.add(node.header)
            if node.body is None:
                return begins, ends
            after, last = self.add(node.body)
            self._connect(ends, after)
            return begins, last
        if isinstance(node, Group):
            return self._group(node)
        name = self._box(repr(node), "[", "]") if isinstance(node, Signature) else ""
        return [name], [name]

    def _chain(self, chain: Chain) -> tuple[list[str], list[str]]:
        begins, ends = self.add(chain.tasks[0])
        for step in chain.tasks[1:]:
            after, last = self.add(step)
            self._connect(ends, after)
            ends = last
        return begins, ends

    def _group(self, group: Group) -> tuple[list[str], list[str]]:
        parts = [self.add(member) for member in islice(group, MEMBERS)]
        more = 0 if group.lazy else len(group) - len(parts)
        if more or group.lazy:
            name = self._box(f"{more} more" if more else "and so on", "([", "])")
            parts.append(([name], [name]))
        if not parts:
            name = self._box("nothing to wait for", "([", "])")
            parts.append(([name], [name]))
        return (
            [name for begins, _ in parts for name in begins],
            [name for _, ends in parts for name in ends],
        )

    def _box(self, text: str, left: str, right: str) -> str:
        name = f"n{self._count}"
        self._count += 1
        self.lines.append(f'    {name}{left}"{_escaped(text)}"{right}')
        return name

    def _connect(self, ends: list[str], begins: list[str], arrow: str = "-->") -> None:
        """Draw the arrows; many to many meet in one point."""
        if len(ends) > 1 and len(begins) > 1:
            name = f"n{self._count}"
            self._count += 1
            self.lines.append(f"    {name}(( ))")
            self._connect(ends, [name], arrow)
            ends = [name]
        self.lines += [f"    {end} {arrow} {begin}" for end in ends for begin in begins]


def _escaped(text: str) -> str:
    """Return text that a quoted label holds, entities for what means something in it."""
    shown = text if len(text) <= _LABEL else text[:_LABEL] + "…"
    return "".join(
        f"#{ord(char)};" if char in '"#<>&`\\' else " " if char in "\r\n" else char
        for char in shown
    )
