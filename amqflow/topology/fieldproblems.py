"""Says what pydantic found wrong with a file in the words of the file, with places."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from amqflow.topology.positions import Path, Positions, Problem, near

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_KINDS: Final = {
    dict: "a mapping",
    list: "a list",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "nothing",
}
_EXPECTED: Final = {
    "string_type": "a text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "float_type": "a number",
}


def field_problems(
    error: ValidationError, model: type[BaseModel], data: Any, positions: Positions
) -> list[Problem]:
    """Return every error of a validation as a problem of the file."""
    return [_problem(detail, model, data, positions) for detail in error.errors(include_url=False)]


def _problem(
    detail: ErrorDetails, model: type[BaseModel], data: Any, positions: Positions
) -> Problem:
    path = _real(detail["loc"], data)
    text = _sentence(detail, path, model, positions)
    if detail["type"] in {"extra_forbidden", "missing"}:
        path = path[: len(detail["loc"]) - 1]
    place = positions.of((*path, detail["loc"][-1]) if path else detail["loc"])
    return Problem(positions.source, path, text, place)


def _real(loc: tuple[str | int, ...], data: Any) -> Path:
    """Return an error's way in the data, without pydantic's own words such as ``[key]``."""
    path: list[str | int] = []
    for step in loc:
        if step == "[key]":
            continue
        try:
            data = data[step]
        except (LookupError, TypeError):
            data = None
        path.append(step)
    return tuple(path)


def _sentence(
    detail: ErrorDetails, path: Path, model: type[BaseModel], positions: Positions
) -> str:
    kind, value, last = detail["type"], detail["input"], detail["loc"][-1]
    shown = positions.texts.get(path, repr(value))
    match kind:
        case "extra_forbidden":
            fields = _fields(model, path[:-1])
            hint = near(str(last), fields) or f"; it takes {', '.join(fields)}"
            said = f"unknown field `{last}`{hint}"
        case "missing":
            said = f"`{last}` is missing; {_wanted(model, path)}"
        case "topology":
            text = str(detail.get("ctx", {})["text"])
            between = "; " if text.startswith("takes") else " "
            said = f"{shown}{between}{text}" if _is_scalar(value) else text
        case "greater_than_equal" | "less_than_equal":
            said = f"{shown}; {_range(model, path, detail.get('ctx', {}))}"
        case "too_short" | "string_too_short":
            said = "is empty; write at least one" if kind == "too_short" else "is empty; name it"
        case _ if kind in _EXPECTED:
            said = _wrong_kind(_EXPECTED[kind], value, shown)
        case _:
            said = f"{shown}: {detail['msg']}"
    return said


def _wrong_kind(expected: str, value: object, shown: str) -> str:
    found = _KINDS.get(type(value), type(value).__name__)
    if value is None:
        return f"has no value; expected {expected}"
    if not _is_scalar(value):
        return f"is {found}; expected {expected}"
    if expected == _EXPECTED["string_type"]:
        return f'YAML reads {shown} as {found}, a text is meant: write "{shown}" in quotes'
    if not shown.strip():
        return f"is an empty text; expected {expected}"
    return f"{shown} is {found}; expected {expected}"


def _is_scalar(value: object) -> bool:
    return not isinstance(value, dict | list)


def _wanted(model: type[BaseModel], path: Path) -> str:
    found = _annotation(model, path[:-1])
    info = found.model_fields.get(str(path[-1])) if _is_model(found) else None
    said = info.description if info is not None and info.description else "add it"
    return said[0].lower() + said[1:].rstrip(".")


def _range(model: type[BaseModel], path: Path, context: dict[str, Any]) -> str:
    """Return ``RabbitMQ takes 1 to 255`` from the field's own bounds."""
    found = _annotation(model, path[:-1])
    bounds: dict[str, Any] = dict(context)
    if _is_model(found) and path[-1] in found.model_fields:
        info = found.model_fields[str(path[-1])]
        for source in (*info.metadata, *_metadata(info.annotation)):
            for name in ("ge", "le"):
                if (bound := getattr(source, name, None)) is not None:
                    bounds[name] = bound
    low, high = bounds.get("ge"), bounds.get("le")
    if high is None or high > 1 << 40:
        return f"takes {low} or more" if low is not None else f"takes at most {high}"
    who = "" if path[0] == "delays" else "RabbitMQ "  # the ladder is amqflow's own
    return f"{who}takes {low} to {high}"


def _metadata(annotation: Any) -> list[Any]:
    found: list[Any] = []
    if get_origin(annotation) is Annotated:
        found += annotation.__metadata__
    for inner in get_args(annotation):
        found += _metadata(inner)
    for item in list(found):
        found += getattr(item, "metadata", ())
    return found


def _fields(model: type[BaseModel], path: Path) -> list[str]:
    found = _annotation(model, path)
    return list(found.model_fields) if _is_model(found) else []


def _is_model(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, BaseModel)


def _annotation(model: Any, path: Path) -> Any:
    """Return the type a path leads to; None where it leads out of the models."""
    found = _bare(model)
    for step in path:
        if _is_model(found):
            info = found.model_fields.get(str(step))
            found = None if info is None else _bare(info.annotation)
        elif get_origin(found) in {dict, list}:
            found = _bare(get_args(found)[-1])
        else:
            return None
    return found


def _bare(annotation: Any) -> Any:
    """Return a type without ``Annotated`` and ``| None``."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in {Union, UnionType}:
            inner = [part for part in get_args(annotation) if part is not NoneType]
            if len(inner) != 1:
                return annotation
            annotation = inner[0]
        else:
            return annotation
