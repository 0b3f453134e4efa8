"""Reads YAML into plain values that remember their places, within bounds.

YAML's events are composed here, not by PyYAML's loader: that keeps marks, sees duplicate keys, and
counts what aliases expand to *before* anything is built. Nothing but mappings with text keys,
lists, text, numbers, true, false and null comes out (the tags of ``yaml.SafeLoader`` less dates,
sets and binary).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

import yaml

from amqflow.topology.positions import Path, Place, Positions, Problem, TopologyFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: A file of 10,000 queues takes about 2 MB; what is larger is no topology.
MAX_BYTES: Final = 4 << 20
#: Values after aliases are expanded. Nine lists of nine aliases each would be 387 million.
MAX_NODES: Final = 400_000
#: A topology nests six deep, arguments a little more.
MAX_DEPTH: Final = 32
#: Problems after which reading on helps nobody.
MAX_PROBLEMS: Final = 500

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = _TAG + "merge"
_PLAIN: Final = frozenset(_TAG + kind for kind in ("str", "int", "float", "bool", "null"))

_IGNORE: Final = re.compile(r"#\s*amqflow:\s*ignore\b[ :]*((?:AT\d+[ ,]*)*)(.*)$")


@dataclass(frozen=True, slots=True)
class Ignore:
    """A comment ``# amqflow: ignore AT104 because …``.

    It counts for the line it ends, or, alone on its line, for the next line that is no comment.
    """

    line: int
    covers: int
    codes: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Document:
    """A file's content; ``problems`` are those that did not stop the reading."""

    data: Any
    positions: Positions
    problems: tuple[Problem, ...] = ()
    #: The values among them: what else is wrong with those needs no saying.
    told: frozenset[Path] = frozenset()
    ignores: tuple[Ignore, ...] = ()


def read(raw: bytes, source: str) -> Document:
    """Read a file's bytes.

    Args:
        raw: UTF-8, with or without a byte order mark.
        source: What to call it in messages.

    Raises:
        TopologyFileError: It is not text, not YAML, not one document, or beyond a bound.
    """
    text = _decode(raw, source)
    return read_text(text, source)


def read_text(text: str, source: str) -> Document:
    """Read YAML; see :func:`read`."""
    if len(text) > MAX_BYTES:
        raise _refusal(
            source, f"is larger than {MAX_BYTES >> 20} MiB; a topology file takes less: split it"
        )
    reader = _Reader(source)
    try:
        root = reader.compose(text)
        expander = _Expander(source, reader.problems)
        data = None if root is None else expander.value(root, ())
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, source, text) from error
    except yaml.YAMLError as error:  # a sign YAML has no place for
        raise _refusal(source, _character(error, text), *_offset(error, text)) from error
    return Document(
        data,
        Positions(source, expander.places, expander.texts),
        tuple(reader.problems),
        frozenset(expander.told),
        tuple(_ignores(text)),
    )


def _decode(raw: bytes, source: str) -> str:
    if len(raw) > MAX_BYTES:
        raise _refusal(
            source, f"is larger than {MAX_BYTES >> 20} MiB; a topology file takes less: split it"
        )
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _refusal(source, "is UTF-16; save it as UTF-8")
    if b"\0" in raw:
        raise _refusal(source, "is a binary file; expected YAML")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        raise _refusal(
            source,
            f"byte 0x{raw[error.start]:02x} is no UTF-8; save the file as UTF-8",
            line,
            column,
        ) from error


def _refusal(source: str, text: str, line: int = 0, column: int = 0) -> TopologyFileError:
    place = Place(line, column) if line else None
    return TopologyFileError([Problem(source, (), text, place)])


# -- from events to nodes ------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    """A value as written. ``size`` counts the values it expands to, ``height`` its levels."""

    place: Place
    size: int = 1
    height: int = 1


@dataclass(slots=True)
class _Scalar(_Node):
    tag: str = ""
    text: str = ""
    #: What is wrong with it as written; nothing for most.
    trouble: str = ""


@dataclass(slots=True)
class _List(_Node):
    items: list[_Node] = field(default_factory=list)


@dataclass(slots=True)
class _Map(_Node):
    entries: list[tuple[_Scalar, _Node]] = field(default_factory=list)


class _Reader:
    """Composes the nodes of one document, counting as it goes."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self._resolver = yaml.resolver.Resolver()
        self._anchors: dict[str, _Node] = {}
        self._open: list[_Node] = []
        self._nodes = 0

    def compose(self, text: str) -> _Node | None:
        """Return the document's top node; None for an empty one."""
        events = yaml.parse(text, Loader=_LOADER)
        root: _Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._stop(event, "a second document starts here; a file holds one topology")
            elif isinstance(event, yaml.NodeEvent):
                node = self._node(event, events)
                root = node
        return root

    def _node(self, event: Any, events: Iterator[Any]) -> _Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(event, f"more than {MAX_NODES} values; a topology file takes less")
        if isinstance(event, yaml.ScalarEvent):
            node: _Node = self._scalar(event)
        else:
            if len(self._open) >= MAX_DEPTH:
                self._stop(event, f"nests deeper than {MAX_DEPTH} levels")
            node = self._collection(event, events)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _scalar(self, event: Any) -> _Scalar:
        plain = bool(event.implicit[0])
        tag = event.tag
        if tag is None or tag == "!":
            implicit = (plain, not plain)
            tag = self._resolver.resolve(  # type: ignore[no-untyped-call] # PyYAML has no types
                yaml.ScalarNode, event.value, implicit
            )
        trouble = ""
        if event.tag is None and tag == _TAG + "timestamp":
            tag = _TAG + "str"  # a date where only text can be meant
        elif tag == _TAG + "value" and plain:
            tag = _TAG + "str"  # a lone =, a type nobody uses
        elif tag not in _PLAIN and tag != _MERGE:
            shown = tag.replace(_TAG, "!!")
            trouble = f"tag {shown} is not allowed here; write plain text, numbers and lists"
            tag = _TAG + "str"
        elif plain:
            trouble = _trap(tag, event.value)
        return _Scalar(_place(event), tag=tag, text=event.value, trouble=trouble)

    def _collection(self, event: Any, events: Iterator[Any]) -> _Node:
        place = _place(event)
        is_map = isinstance(event, yaml.MappingStartEvent)
        node: _List | _Map = _Map(place) if is_map else _List(place)
        kind = "map" if is_map else "seq"
        if event.tag not in {None, "!", _TAG + kind}:
            shown = event.tag.replace(_TAG, "!!")
            self._add(place, f"tag {shown} is not allowed here; write a plain mapping or list")
        self._open.append(node)
        if event.anchor:
            self._anchors[event.anchor] = node
        children = self._children(events)
        if isinstance(node, _List):
            node.items = list(children)
            parts = node.items
        else:
            node.entries = [(self._key(key), value) for key, value in _pairs(children)]
            parts = [value for _, value in node.entries]
        self._open.pop()
        node.size = 1 + sum(part.size for part in parts)
        node.height = 1 + max((part.height for part in parts), default=0)
        if node.size > MAX_NODES:
            self._stop(event, f"its aliases expand to more than {MAX_NODES} values: write it out")
        if len(self._open) + node.height > MAX_DEPTH + 1:
            self._stop(event, f"nests deeper than {MAX_DEPTH} levels")
        return node

    def _children(self, events: Iterator[Any]) -> Iterator[_Node]:
        for event in events:
            if isinstance(event, yaml.CollectionEndEvent):
                return
            yield self._node(event, events)

    def _key(self, node: _Node) -> _Scalar:
        if not isinstance(node, _Scalar):
            raise TopologyFileError(
                [Problem(self.source, (), "a list or mapping cannot be a key", node.place)]
            )
        return node

    def _alias(self, event: Any) -> _Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            self._stop(event, f"no anchor &{event.anchor} before *{event.anchor}")
        if any(node is one for one in self._open):
            self._stop(event, f"*{event.anchor} contains itself")
        assert node is not None
        return node

    def _add(self, place: Place, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(self.source, (), text, place))

    def _stop(self, event: Any, text: str) -> NoReturn:
        raise TopologyFileError([*self.problems, Problem(self.source, (), text, _place(event))])


def _trap(tag: str, text: str) -> str:
    """Say what YAML 1.1 makes of a value that looks otherwise; nothing where it looks alike."""
    kind = tag.removeprefix(_TAG)
    if kind == "bool" and text.lower() not in {"true", "false"}:
        meant = str(_BOOLS[text.lower()]).lower()
        return f'YAML reads {text} as {meant}: write {meant}, or "{text}" for text'
    if kind in {"int", "float"} and ":" in text:
        return f'YAML reads {text} as the number {_number(tag, text)}: write "{text}" for text'
    if kind == "int" and re.fullmatch(r"[-+]?0[0-7_]+", text):
        value = _number(tag, text)
        decimal = text.replace("_", "").lstrip("+-0") or "0"
        return (
            f"YAML reads {text} as octal, the number {value}: write {value} or {decimal}, "
            f'or "{text}" for text'
        )
    return ""


_BOOLS: Final = {
    "yes": True,
    "no": False,
    "on": True,
    "off": False,
    "true": True,
    "false": False,
}


def _pairs(nodes: Iterator[_Node]) -> Iterator[tuple[_Node, _Node]]:
    for key in nodes:
        yield key, next(nodes)


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


_CONSTRUCTOR: Final = yaml.constructor.SafeConstructor()
_READ: Final[dict[str, Callable[[Any], Any]]] = {
    _TAG + "int": _CONSTRUCTOR.construct_yaml_int,
    _TAG + "float": _CONSTRUCTOR.construct_yaml_float,
}


def _number(tag: str, text: str) -> Any:
    return _READ[tag](yaml.ScalarNode(tag, text))


# -- from nodes to values ------------------------------------------------------------------


class _Expander:
    """Builds plain values and writes down where they stand."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = problems
        self.places: dict[Path, Place] = {}
        self.texts: dict[Path, str] = {}
        self.told: set[Path] = set()

    def value(self, node: _Node, path: Path) -> Any:
        """Return a node's value; problems with it are noted."""
        self.places.setdefault(path, node.place)
        if isinstance(node, _Scalar):
            return self._scalar(node, path)
        if isinstance(node, _List):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.items)]
        assert isinstance(node, _Map)
        found: dict[str, Any] = {}
        for name, (key, value) in self._entries(node, path).items():
            inner = (*path, name)
            self.places[inner] = key.place
            found[name] = self.value(value, inner)
        return found

    def _scalar(self, node: _Scalar, path: Path) -> Any:
        self.texts[path] = node.text
        if node.trouble:
            self._add(path, node.trouble, node.place)
            return node.text
        kind = node.tag.removeprefix(_TAG)
        if kind == "null":
            return None
        if kind == "bool":
            return _BOOLS.get(node.text.lower())
        if kind in {"int", "float"}:
            try:
                return _number(node.tag, node.text)
            except ValueError:
                self._add(path, f"{node.text!r} is no number", node.place)
                return node.text
        return node.text

    def _entries(self, node: _Map, path: Path) -> dict[str, tuple[_Scalar, _Node]]:
        """Return a mapping's entries by key: its own, then those its ``<<`` brings."""
        found: dict[str, tuple[_Scalar, _Node]] = {}
        merged: list[_Map] = []
        for key, value in node.entries:
            if key.tag == _MERGE:
                merged += self._merged(value, path)
                continue
            name = key.text
            if key.trouble or key.tag != _TAG + "str":
                self._odd_key(key, path)
            if name in found:
                first = found[name][0].place
                self._add((*path, name), f"is here twice, first at {first}; keep one", key.place)
                continue
            found[name] = (key, value)
        for other in merged:
            for name, entry in self._entries(other, path).items():
                found.setdefault(name, entry)
        return found

    def _odd_key(self, key: _Scalar, path: Path) -> None:
        kind = key.tag.removeprefix(_TAG)
        said = f'YAML reads the key {key.text or "~"} as {kind}: write "{key.text}"'
        self._add(path, key.trouble or said, key.place)

    def _merged(self, value: _Node, path: Path) -> list[_Map]:
        parts = value.items if isinstance(value, _List) else [value]
        maps = [part for part in parts if isinstance(part, _Map)]
        if len(maps) < len(parts):
            self._add(path, "<< takes a mapping, or a list of mappings", value.place)
        return maps

    def _add(self, path: Path, text: str, place: Place) -> None:
        self.told.add(path)
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(self.source, path, text, place))


# -- what PyYAML refuses -------------------------------------------------------------------


def _syntax(error: yaml.MarkedYAMLError, source: str, text: str) -> TopologyFileError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    lines = text.split("\n")
    written = lines[line - 1] if 0 < line <= len(lines) else ""
    if "\t" in written[:column]:
        column = written.index("\t") + 1
        return _refusal(source, "a tab; YAML indents with spaces", line, column)
    said = error.problem or "cannot be read"
    if error.context and error.context_mark and error.problem_mark != error.context_mark:
        said += f" ({error.context} at line {error.context_mark.line + 1})"
    return _refusal(source, f"is no YAML: {said}", line, column)


def _offset(error: yaml.YAMLError, text: str) -> tuple[int, int]:
    at = getattr(error, "position", None)
    if not isinstance(at, int):
        return 0, 0
    found = _FORBIDDEN.search(text)
    at = found.start() if found else min(at, len(text))
    before = text[:at]
    return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1


#: What YAML 1.1 does not take even in quotes (section 5.1, printable characters).
_FORBIDDEN: Final = re.compile(
    "[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)


def _character(error: yaml.YAMLError, text: str) -> str:
    found = _FORBIDDEN.search(text)
    if found:
        return f"character U+{ord(found[0]):04X} has no place in YAML; write it escaped in quotes"
    return f"is no YAML: {getattr(error, 'reason', error)}"


def _ignores(text: str) -> Iterator[Ignore]:
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        found = _IGNORE.search(line)
        if found is None:
            continue
        covers = number
        if line.lstrip().startswith("#"):
            covers = next(
                (
                    later
                    for later in range(number + 1, len(lines) + 1)
                    if (words := lines[later - 1].strip()) and not words.startswith("#")
                ),
                number,
            )
        codes = tuple(re.findall(r"AT\d+", found[1]))
        yield Ignore(number, covers, codes, found[2].strip(" \t\r:-–—"))  # noqa: RUF001
