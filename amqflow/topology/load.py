"""Reads a topology file into a :class:`Declaration`; each error says where and what to write."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from amqflow.abc import DeadReason
from amqflow.errors import TopologyError
from amqflow.topology.declaration import Declaration, Delays, derived_names
from amqflow.topology.derive import Retention
from amqflow.topology.document import MAX_BYTES, Document, read, read_text
from amqflow.topology.fieldproblems import field_problems
from amqflow.topology.file import EXTENSION_PREFIX, BindingFile, DeadLetterFile, TopologyFile
from amqflow.topology.ladder import Ladder
from amqflow.topology.model import (
    DEFAULT_PARK,
    Binding,
    DeadLetter,
    DestinationKind,
    Exchange,
    ImpossiblePart,
    Queue,
    QueueType,
    Route,
)
from amqflow.topology.policy import Policy
from amqflow.topology.positions import Path, Problem, TopologyFileError
from amqflow.topology.references import reference_problems

if TYPE_CHECKING:
    from amqflow.topology.file import ExchangeFile, QueueFile

#: What a text is called in messages.
TEXT: Final = "<text>"


def load(source: str | FilePath) -> Declaration:
    """Read a topology.

    Args:
        source: The path of a file; or, with a line break in it, the YAML itself.

    Raises:
        TopologyFileError: It cannot be read, or cannot work; ``problems`` holds all that is
            wrong, each with file, line and column.
    """
    if isinstance(source, str) and "\n" in source:
        return load_text(source)
    return declaration(read(_bytes(FilePath(source)), str(source)))


def load_text(text: str, source: str = TEXT) -> Declaration:
    """Read a topology from YAML at hand; ``source`` is what messages call it."""
    return declaration(read_text(text, source))


def _bytes(path: FilePath) -> bytes:
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            text = f"is larger than {MAX_BYTES >> 20} MiB; a topology file takes less: split it"
            raise TopologyFileError([Problem(str(path), (), text)])
        return path.read_bytes()
    except (OSError, ValueError) as error:
        said: dict[type[Exception], str] = {
            IsADirectoryError: "is a folder; name the file in it",
            FileNotFoundError: "no such file",
            PermissionError: "may not be read by this user",
        }
        text = said.get(type(error), f"cannot be read: {error}")
        raise TopologyFileError([Problem(str(path), (), text)]) from error


def declaration(document: Document) -> Declaration:
    """Return what a document declares.

    Raises:
        TopologyFileError: Something in it is wrong. Fields are looked at first; references
            between parts only when every field is right.
    """
    problems = list(document.problems)
    data, positions = document.data, document.positions
    if not isinstance(data, dict):
        text = (
            "is empty; a topology starts with `version: 1`"
            if data is None
            else f"holds a {'list' if isinstance(data, list) else 'single value'}; a topology is "
            "a mapping that starts with `version: 1`"
        )
        raise TopologyFileError([*problems, Problem(positions.source, (), text, positions.of(()))])
    data = {key: value for key, value in data.items() if not key.startswith(EXTENSION_PREFIX)}
    try:
        file = TopologyFile.model_validate(data)
    except ValidationError as error:
        found = field_problems(error, TopologyFile, data, positions)
        problems += [problem for problem in found if problem.path not in document.told]
        raise TopologyFileError(problems) from error
    built = _Build(document)
    result = built.declaration(file)
    problems += built.problems
    if not problems:
        problems += reference_problems(result)
    if problems:
        raise TopologyFileError(problems)
    return result


def _retention(part: QueueFile) -> Retention:
    letter = part.dead_letter or DeadLetterFile()
    return Retention(letter.max_age, letter.max_length, letter.alarm)


class _Build:
    """Makes values of a file's parts and keeps what is wrong with them."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.paths: dict[Binding, Path] = {}

    def declaration(self, file: TopologyFile) -> Declaration:
        """Return the declaration; it is whole only where no problem was noted."""
        exchanges = [self._exchange(name, part) for name, part in file.exchanges.items()]
        bindings: list[Binding] = []
        for name, part in file.exchanges.items():
            path = ("exchanges", name, "bindings")
            bindings += self._bindings(path, name, DestinationKind.EXCHANGE, part.bindings)
        for name, queue in file.queues.items():
            path = ("queues", name, "bindings")
            bindings += self._bindings(path, name, DestinationKind.QUEUE, queue.bindings)
        queues = [self._queue(name, part) for name, part in file.queues.items()]
        consumed = tuple(name for name in file.queues if self._is_consumed(name, file))
        self._check_delays(file, consumed)
        return Declaration(
            self.document.positions.source,
            tuple(exchange for exchange in exchanges if exchange),
            tuple(queue for queue in queues if queue),
            tuple(bindings),
            tuple(Route(**dict(route)) for route in file.routes),
            consumed,
            tuple(file.owns),
            Delays(file.delays.resolution, file.delays.levels),
            {
                name: kept
                for name, part in file.queues.items()
                if (kept := _retention(part)) != Retention()
            },
            tuple(
                Policy(name, part.pattern, part.definition, part.apply_to, part.priority)
                for name, part in file.policies.items()
            ),
            self.document.positions,
            self.paths,
            self.document.ignores,
        )

    def _add(self, path: Path, text: str) -> None:
        positions = self.document.positions
        self.problems.append(Problem(positions.source, path, text, positions.of(path)))

    def _exchange(self, name: str, part: ExchangeFile) -> Exchange | None:
        path = ("exchanges", name)
        self._check_arguments((*path, "arguments"), part.arguments)
        try:
            return Exchange(
                name, part.type, part.durable, part.auto_delete, part.internal, part.arguments
            )
        except TopologyError as error:
            self._add(path, str(error))
            return None

    def _bindings(
        self, path: Path, name: str, kind: DestinationKind, parts: list[BindingFile]
    ) -> list[Binding]:
        found = []
        for index, part in enumerate(parts):
            here = (*path, index)
            self._check_arguments((*here, "arguments"), part.arguments)
            key = "" if part.routing_key is None else part.routing_key
            try:
                binding = Binding(part.exchange, name, kind, key, part.arguments)
            except TopologyError as error:
                self._add(here, str(error))
                continue
            if binding in self.paths:
                first = self.document.positions.of(self.paths[binding])
                self._add(here, f"is here twice, first at {first}; keep one")
                continue
            self.paths[binding] = here
            found.append(binding)
        return found

    def _queue(self, name: str, part: QueueFile) -> Queue | None:
        path = ("queues", name)
        self._check_arguments((*path, "arguments"), part.arguments)
        kind = QueueType(part.type)
        letter = self._dead_letter(name, part)
        overflow = part.overflow
        if letter is not None and letter.at_least_once and overflow is None:
            overflow = "reject-publish"
        park = DEFAULT_PARK if part.park is None else frozenset(map(DeadReason, part.park))
        plain = part.model_dump(
            include={
                "durable", "exclusive", "auto_delete", "max_priority", "message_ttl", "expires",
                "max_length", "max_length_bytes", "max_age", "delivery_limit",
                "single_active_consumer", "prefetch",
            }
        )  # fmt: skip
        try:
            return Queue(
                name,
                kind,
                overflow=overflow,
                dead_letter=letter,
                park=park,
                arguments=part.arguments,
                **plain,
            )
        except ImpossiblePart as error:
            for slot, text in error.problems:
                self._add((*path, slot), text)
        except TopologyError as error:
            self._add(path, str(error))
        return None

    def _dead_letter(self, name: str, part: QueueFile) -> DeadLetter | None:
        """Return where a queue's dead letters go; None: the application's own exchange."""
        letter = part.dead_letter
        if letter is None:
            return None
        path = ("queues", name, "dead_letter")
        if letter.exchange is None:
            for slot in ("routing_key", "at_least_once"):
                if getattr(letter, slot) is not None:
                    self._add((*path, slot), f"{slot} needs an exchange beside it")
            return None
        key = letter.routing_key
        if key is None and "routing_key" not in letter.model_fields_set:
            # The default exchange takes a queue's name for the key: its own would be a cycle.
            key = name if letter.exchange else f"{name}.dead"
        certain = letter.at_least_once
        if certain is None:
            certain = part.type == "quorum" and part.overflow in {None, "reject-publish"}
        return DeadLetter(letter.exchange, key, certain)

    def _is_consumed(self, name: str, file: TopologyFile) -> bool:
        part = file.queues[name]
        derived = name in derived_names(tuple(file.queues))
        can = part.type != "stream" and not derived
        if part.consumed and not can:
            what = "a stream" if part.type == "stream" else "a home or a suspects' queue"
            self._add(
                ("queues", name, "consumed"), f"workers take no tasks from {what}; leave it out"
            )
        consumed = can if part.consumed is None else part.consumed and can
        if not consumed and part.dead_letter is not None:
            self._check_unused_retention(name, part.dead_letter)
        elif part.dead_letter is not None and f"{name}.dead" in file.queues:
            self._check_declared_home(name, part.dead_letter)
        return consumed

    def _check_unused_retention(self, name: str, letter: DeadLetterFile) -> None:
        for slot in ("max_age", "max_length", "alarm"):
            if getattr(letter, slot) is not None:
                text = "only a consumed queue has a home whose dead letters are kept; leave it out"
                self._add(("queues", name, "dead_letter", slot), text)

    def _check_declared_home(self, name: str, letter: DeadLetterFile) -> None:
        meant = {"max_age": "message_ttl", "max_length": "max_length"}
        for slot, there in meant.items():
            if getattr(letter, slot) is not None:
                text = f"this file declares {name}.dead itself; set {there} there instead"
                self._add(("queues", name, "dead_letter", slot), text)

    def _check_arguments(self, path: Path, arguments: dict[str, Any]) -> None:
        """Refuse argument values no AMQP table holds."""
        for name, value in arguments.items():
            if value is None:
                self._add((*path, name), "has no value; write one or leave it out")
            elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
                self._add((*path, name), f"{value} does not fit into AMQP's 64 bits")

    def _check_delays(self, file: TopologyFile, consumed: tuple[str, ...]) -> None:
        try:
            ladder = Ladder(file.delays.resolution, file.delays.levels)
        except TopologyError as error:
            self._add(("delays",), str(error).removeprefix("delays: "))
            return
        for name in consumed:
            try:
                ladder.word(name)
            except TopologyError as error:
                self._add(("queues", name), str(error))
