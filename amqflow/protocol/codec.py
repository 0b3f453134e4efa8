"""kombu's JSON, exactly: what Celery writes and reads, in both directions.

The rules are those of ``kombu/utils/json.py`` (5.7): JSON, and ``{"__type__", "__value__"}`` for
datetime, date, time, Decimal, UUID and bytes. Beyond kombu, dataclasses and pydantic models are
written as the dicts of their fields, and enum members as their values.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import re
import sys
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from amqflow.errors import EncodeError, Undecodable
from amqflow.protocol.depth import deeper_than
from amqflow.protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable

# -- writing -------------------------------------------------------------------------------


def dumps(value: Any, *, root: str = "value", max_depth: int = DEFAULT_LIMITS.max_depth) -> bytes:
    """Write ``value`` as kombu's JSON, in UTF-8.

    Args:
        value: Anything made of JSON's types, the types above, tuples, dataclasses and models.
        root: What to call ``value`` in an error: ``args`` gives ``args[1]['user']``.
        max_depth: Levels of nesting allowed.

    Raises:
        EncodeError: Something in it cannot be written, would be read back as something else, or
            nests too deep; the message names the place.
    """
    written = _written_fast(value)
    if written is None:
        written = _written_exactly(value, root, max_depth)
    if deeper_than(written, max_depth):
        raise EncodeError(f"{root}: nested deeper than {max_depth} levels")
    return written


class _NotPlain(TypeError):
    """The fast writer met a value that only the exact one may write."""


def _refuse(value: Any) -> Any:
    raise _NotPlain(type(value))


_PLAIN: Final = (
    orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_UUID_TEXT: Final = re.compile(rb'"[0-9a-f]{8}-[0-9a-f]{4}-')
#: Counting them is twenty times as fast as searching.
_DASHES_OF_A_UUID: Final = 4


def _written_fast(value: Any) -> bytes | None:
    """Write with orjson where that is sure to be exact, else return None.

    orjson refuses integers over 64 bits, lone surrogates and keys that are no strings. What it
    writes differently, silently, shows in its output: NaN and the infinities as ``null``, a UUID
    as its text. A hit of these tests may be innocent; then the exact writer is only slower.
    (A text enum whose value is not its text goes by its value; no test shows that one.)
    """
    try:
        written = orjson.dumps(value, _refuse, _PLAIN)
    except TypeError:
        return None
    if b"null" in written or b'"__type__"' in written:
        return None
    if written.count(b"-") >= _DASHES_OF_A_UUID and _UUID_TEXT.search(written):
        return None
    return written


def _written_exactly(value: Any, root: str, max_depth: int) -> bytes:
    try:
        text = _ENCODER.encode(value)
    except Exception as exc:
        # A user's own __json__ or property may raise anything.
        problem = _first_problem(value, root, max_depth) or f"{root}: {exc}"
        raise EncodeError(problem) from exc
    if '"__type__"' in text:
        ambiguous = _first_problem(value, root, max_depth)
        if ambiguous is not None:
            raise EncodeError(ambiguous)
    # ASCII only, as kombu writes it: lone surrogates stay escaped and survive.
    return text.encode("ascii")


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    return {"__type__": kind, "__value__": value}


def _tagged_bytes(value: bytes) -> dict[str, Any]:
    try:
        return _tagged("bytes", value.decode("utf-8"))
    except UnicodeDecodeError:
        return _tagged("base64", base64.b64encode(value).decode("ascii"))


#: kombu's own types in kombu's order: a datetime is a date as well.
_WRITERS: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (datetime, lambda value: _tagged("datetime", value.isoformat())),
    (date, lambda value: _tagged("date", value.isoformat())),
    (time, lambda value: _tagged("time", value.isoformat())),
    (Decimal, lambda value: _tagged("decimal", str(value))),
    (UUID, lambda value: _tagged("uuid", {"hex": value.hex})),
    (bytes, _tagged_bytes),
)
_NATIVE: Final = (str, int, float, bool, type(None))
_TAGGED: Final = tuple(kind for kind, _ in _WRITERS)
_TAG_KEYS: Final = frozenset({"__type__", "__value__"})
_JSON_SPACE: Final = " \t\r\n"


def _plain(value: Any) -> Any:
    """Return what stands for ``value`` in JSON; json's ``default`` hook."""
    reducer = getattr(value, "__json__", None)
    if reducer is not None:
        return reducer()
    for kind, writer in _WRITERS:
        if isinstance(value, kind):
            return writer(value)
    if isinstance(value, BaseModel):
        return _model_fields(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if _is_lazy_text(value):
        return str(value)
    raise TypeError(f"object of type {_name(type(value))} cannot be written as JSON")


_ENCODER: Final = json.JSONEncoder(default=_plain, check_circular=False)


def _model_fields(model: BaseModel) -> Any:
    """Return a model's fields under the names it validates by.

    Types kombu's JSON carries stay themselves, so that a strict model accepts them again; the
    rest (URLs, sets, time deltas) is written as pydantic writes it.
    """
    return _jsonable(model.model_dump(mode="python", by_alias=True))


def _jsonable(value: Any) -> Any:
    if isinstance(value, (*_NATIVE, *_TAGGED)):
        return value
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError:
        return value


def _is_lazy_text(value: Any) -> bool:
    """Whether it is Django's lazily translated text, which kombu writes as text."""
    django = sys.modules.get("django.utils.functional")
    return django is not None and isinstance(value, django.Promise)


# -- saying what is wrong ------------------------------------------------------------------


def _name(kind: type) -> str:
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _first_problem(value: Any, root: str, max_depth: int) -> str | None:
    """Return a sentence on the first value that cannot travel, in reading order."""
    stack = [(value, root, 0)]
    while stack:
        item, path, depth = stack.pop()
        if depth > max_depth:
            return f"{root}: nested deeper than {max_depth} levels, or contains itself"
        problem, inside = _inspected(item, path)
        if problem is not None:
            return problem
        stack.extend(reversed([(child, where, depth + 1) for child, where in inside]))
    return None


def _inspected(item: Any, path: str) -> tuple[str | None, list[tuple[Any, str]]]:
    """Return what is wrong with ``item`` itself, and what is inside it."""
    if isinstance(item, dict):
        return _dict_problem(item, path), [
            (value, f"{path}[{key!r}]") for key, value in item.items()
        ]
    if isinstance(item, (list, tuple)):
        return None, [(value, f"{path}[{index}]") for index, value in enumerate(item)]
    if isinstance(item, int):
        return _int_problem(item, path), []
    if isinstance(item, (*_NATIVE, *_TAGGED)):
        return None, []
    try:
        return None, [(_plain(item), path)]
    except Exception as exc:  # noqa: BLE001 - as above
        return f"{path}: {exc}", []


def _dict_problem(item: dict[Any, Any], path: str) -> str | None:
    for key in item:
        if not isinstance(key, _NATIVE):
            return f"{path}: key {key!r} is of type {_name(type(key))}; JSON keys are text"
    if item.keys() == _TAG_KEYS:
        return (
            f"{path}: a dict of exactly the keys '__type__' and '__value__' would be read back "
            "as something else; rename one"
        )
    return None


def _int_problem(item: int, path: str) -> str | None:
    try:
        int.__repr__(item)
    except ValueError as exc:
        return f"{path}: {exc}"
    return None


# -- reading -------------------------------------------------------------------------------


def loads(data: bytes, *, max_depth: int = DEFAULT_LIMITS.max_depth) -> Any:
    """Read kombu's JSON.

    The standard library's reader, because it is exact (integers of any size, NaN, infinities)
    and, for the messages that travel, as fast as orjson with the checks it would need.

    Raises:
        Undecodable: It is no UTF-8, no JSON, nests deeper than ``max_depth``, or holds a
            ``__type__`` that is unknown or has a wrong value.
    """
    if deeper_than(data, max_depth):
        raise Undecodable(f"the body nests deeper than {max_depth} levels")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise Undecodable(f"the body is not UTF-8: {exc.reason} at byte {exc.start}") from exc
    if text[:1].isspace():
        text = text.lstrip(_JSON_SPACE)
    decoder = _TAG_DECODER if "__type__" in text or _hides_letters(text) else _DECODER
    try:
        # raw_decode saves two searches for white space that is hardly ever there.
        value, end = decoder.raw_decode(text)
        return value if end == len(text) else decoder.decode(text)
    except Undecodable:
        raise
    except (ValueError, RecursionError) as exc:
        raise Undecodable(f"the body is not JSON that can be read: {exc}") from exc


#: An escaped letter of ASCII, which nobody writes but a tag may hide behind.
_ESCAPED_LETTER: Final = re.compile(r"\\u00[567]")


def _hides_letters(text: str) -> bool:
    return "\\u00" in text and _ESCAPED_LETTER.search(text) is not None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, got {_name(type(value))}")
    return value


def _read_uuid(value: Any) -> UUID:
    # kombu before 5.4 wrote the version beside the digits, which already say it.
    if not isinstance(value, dict) or not value.keys() <= {"hex", "version"}:
        raise ValueError('{"hex": …} expected')
    return UUID(hex=_text(value.get("hex")), version=value.get("version"))


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "datetime": lambda value: datetime.fromisoformat(_text(value)),
    "date": lambda value: datetime.fromisoformat(_text(value)).date(),
    "time": lambda value: time.fromisoformat(_text(value)),
    "decimal": lambda value: Decimal(_text(value)),
    "uuid": _read_uuid,
    "bytes": lambda value: _text(value).encode("utf-8"),
    "base64": lambda value: base64.b64decode(_text(value).encode("ascii")),
}


def _read_tag(found: dict[str, Any]) -> Any:
    """Return what a tagged object stands for; json's ``object_hook``."""
    if found.keys() != _TAG_KEYS:
        return found
    kind = found["__type__"]
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise Undecodable(f"the body holds a value of the unknown __type__ {kind!r:.80}")
    try:
        return reader(found["__value__"])
    except (ValueError, TypeError, ArithmeticError, binascii.Error) as exc:
        raise Undecodable(f"the body holds a broken {kind}: {exc}") from exc


_DECODER: Final = json.JSONDecoder()
_TAG_DECODER: Final = json.JSONDecoder(object_hook=_read_tag)
