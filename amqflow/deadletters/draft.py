"""A dead letter's payload as a text to edit, and the edited text as a message for its task."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml

from amqflow.deadletters.replay import replayed
from amqflow.errors import AmqflowError, EncodeError, InvalidArguments, Undecodable
from amqflow.protocol import DEFAULT_LIMITS, Limits, decode, dumps, encode, loads, short_repr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.deadletters.parked import Parked
    from amqflow.protocol import Envelope, TaskMessage
    from amqflow.tasks import Task

Syntax = Literal["json", "yaml", "raw"]

_KEYS: Final = ("task", "args", "kwargs")
#: Characters up to which the line of a wrong argument is looked for; the search is slow.
_SEARCHED: Final = 200_000
_ARGUMENT: Final = re.compile(r"argument (?:number (?P<number>\d+)|'(?P<name>\w+)')")


class InvalidDraft(AmqflowError, ValueError):
    """An edited payload cannot run as it is; the message names the line and what is wrong."""

    def __init__(self, problem: str, line: int | None = None, column: int | None = None) -> None:
        """Keep the place: ``line`` and ``column`` count from 1."""
        self.problem, self.line, self.column = problem, line, column
        place = "" if line is None else f"line {line}: "
        if line is not None and column is not None:
            place = f"line {line}, column {column}: "
        super().__init__(place + problem)


@dataclass(frozen=True, slots=True)
class Draft:
    """The text of one dead letter's payload.

    ``task``, ``args`` and ``kwargs`` where the message can be decoded, in JSON or YAML; the body
    itself (``raw``) where it cannot: mending it is what editing is for.
    """

    parked: Parked
    text: str
    syntax: Syntax
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def of(
        cls,
        parked: Parked,
        *,
        syntax: Literal["json", "yaml"] = "json",
        limits: Limits = DEFAULT_LIMITS,
    ) -> Draft:
        """Return the text of a dead letter.

        Raises:
            InvalidDraft: It is neither a task message nor text.
        """
        try:
            message = decode(parked.envelope, limits=limits)
        except Undecodable as error:
            try:
                return cls(parked, parked.envelope.body.decode(), "raw", limits)
            except UnicodeDecodeError:
                raise InvalidDraft(
                    f"{parked.id} cannot be edited: {error}, and its body is not text; "
                    "`dlq export` writes it to a file"
                ) from None
        return cls(parked, _written(message, syntax), syntax, limits)

    @property
    def suffix(self) -> str:
        """What the file's name ends with, so that editors know the syntax."""
        return ".yaml" if self.syntax == "yaml" else ".json"

    def read(self, text: str, tasks: Mapping[str, Task[Any, Any]], *, now: float) -> Envelope:
        """Return the message an edited text makes, as it is replayed.

        Args:
            text: What the editor left.
            tasks: The application's, by name.
            now: Unix seconds.

        Raises:
            InvalidDraft: It cannot run; the message names the place.
        """
        fresh = replayed(self.parked, now=now)
        if self.syntax == "raw":
            fresh.body = text.encode()
            try:
                message = decode(fresh, limits=self.limits)
            except Undecodable as error:
                raise InvalidDraft(str(error)) from None
            self._check(message.task, message.args, message.kwargs, tasks, "")
            return fresh
        payload = self._parsed(text)
        task, args, kwargs = payload["task"], payload["args"], payload["kwargs"]
        self._check(task, args, kwargs, tasks, text)
        message = decode(fresh, limits=self.limits)
        shown = message.argsrepr is not None or message.kwargsrepr is not None
        edited = replace(
            message,
            task=task,
            args=args,
            kwargs=kwargs,
            argsrepr=short_repr(tuple(args)) if shown else None,
            kwargsrepr=short_repr(kwargs) if shown else None,
        )
        try:
            written = encode(edited, limits=self.limits)
        except EncodeError as error:
            raise InvalidDraft(str(error)) from None
        fresh.body, fresh.headers = written.body, written.headers
        return fresh

    # -- reading ---------------------------------------------------------------------------

    def _parsed(self, text: str) -> dict[str, Any]:
        """Return the document's three parts, each of its type."""
        value = _from_yaml(text) if self.syntax == "yaml" else _from_json(text)
        if not isinstance(value, dict):
            raise InvalidDraft("the document must be an object with task, args and kwargs", 1)
        for name in value:
            if name not in _KEYS:
                raise InvalidDraft(f"{name!r} is not one of {', '.join(_KEYS)}", _line(text, name))
        for name, kind, words in (
            ("task", str, "a text"),
            ("args", list, "an array"),
            ("kwargs", dict, "an object"),
        ):
            if name not in value:
                raise InvalidDraft(f"{name} is missing: it must be {words}")
            if not isinstance(value[name], kind):
                raise InvalidDraft(f"{name} must be {words}", _line(text, name))
        try:
            # Once through the codec: its tags become values, and what it refuses is refused here.
            read: dict[str, Any] = loads(
                dumps(value, root="payload", max_depth=self.limits.max_depth)
                if self.syntax == "yaml"
                else text.encode(),
                max_depth=self.limits.max_depth,
            )
        except (EncodeError, Undecodable, UnicodeEncodeError) as error:
            raise InvalidDraft(str(error)) from None
        return read

    def _check(
        self,
        name: str,
        args: list[Any],
        kwargs: dict[str, Any],
        tasks: Mapping[str, Task[Any, Any]],
        text: str,
    ) -> None:
        task = tasks.get(name)
        if task is None:
            close = difflib.get_close_matches(name, list(tasks), 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            problem = f"task {name!r} is not registered in this application{hint}"
            raise InvalidDraft(problem, _line(text, "task"))
        try:
            task.check_arguments(args, kwargs)
        except InvalidArguments as error:
            line = _argument_line(text, str(error), task, len(args), kwargs)
            raise InvalidDraft(str(error), line) from None


def _written(message: TaskMessage, syntax: Literal["json", "yaml"]) -> str:
    payload = {"task": message.task, "args": message.args, "kwargs": message.kwargs}
    plain = json.loads(dumps(payload, root="payload"))
    if syntax == "yaml":
        text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
        return text
    return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"


def _from_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise InvalidDraft(f"no JSON: {error.msg}", error.lineno, error.colno) from None
    except RecursionError:
        raise InvalidDraft("nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidDraft(f"{name!r} is there twice in one object")
        found[name] = value
    return found


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them write out to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse an alias where it stands."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise InvalidDraft("aliases are not read here", mark.line + 1, mark.column + 1)
        return super().compose_node(parent, index)


def _from_yaml(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = (None, None) if mark is None else (mark.line + 1, mark.column + 1)
        raise InvalidDraft(f"no YAML: {error.problem}", *place) from None
    except yaml.YAMLError as error:
        raise InvalidDraft(f"no YAML: {error}") from None
    except (ValueError, RecursionError) as error:
        # A date such as 2026-13-45 is a timestamp to YAML's grammar and none to the calendar.
        raise InvalidDraft(f"no YAML that can be read: {error}") from None


# -- places --------------------------------------------------------------------------------


def _argument_line(
    text: str, problem: str, task: Task[Any, Any], given: int, kwargs: Mapping[str, Any]
) -> int | None:
    """Return the line of the argument an error names first."""
    found = _ARGUMENT.search(problem)
    if found is None:
        return _line(text, "args")
    if found["number"]:
        return _line(text, "args", int(found["number"]) - 1)
    if found["name"] in kwargs:
        return _line(text, "kwargs", found["name"])
    names = list(inspect.signature(task.run).parameters)
    index = names.index(found["name"]) if found["name"] in names else given
    return _line(text, "args", index) if index < given else _line(text, "args")


def _line(text: str, *path: str | int) -> int | None:
    """Return the line of a value in a document; JSON is read as the YAML it is."""
    if not text or len(text) > _SEARCHED:
        return None
    try:
        node = yaml.compose(text.replace("\t", " "), yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    for step in path:
        inner = _child(node, step)
        if inner is None:
            break
        node = inner
    return None if node is None else int(node.start_mark.line) + 1


def _child(node: Any, step: str | int) -> Any:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step]
    return None
