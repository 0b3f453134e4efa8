"""Arguments and results checked by annotations: compiled once, at first use, fast when plain."""

from __future__ import annotations

import inspect
import types
import typing
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import pydantic_core
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError, validate_call

from amqflow.errors import ConfigurationError, InvalidArguments, InvalidResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_EMPTY: Final = inspect.Parameter.empty
_BY_PLACE: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
#: Types of which an instance passes validation as it is and JSON carries it exactly.
_EXACT: Final = frozenset(
    {int, str, float, bool, bytes, type(None), datetime, date, time, Decimal, UUID}
)
#: Generic containers JSON carries, if what they hold is.
_PLAIN_CONTAINERS: Final = frozenset({list, dict})
_NONE: Final = type(None)
_CONFIG: Final = ConfigDict(arbitrary_types_allowed=True)
_MAX_SHOWN: Final = 80
_MAX_ERRORS: Final = 3


class _Rest(NamedTuple):
    """What keywords may and must follow so many positional arguments."""

    allowed: frozenset[str]
    required: frozenset[str]


class ArgumentValidator:
    """Checks the arguments of one function, and brings them into the form its body expects.

    Without annotations only the number and the names of arguments are checked. With them pydantic
    validates and converts (its lax mode: ``"5"`` is an int, ``5`` is no str); a call whose values
    already are exactly of the annotated plain types is let through without asking it.

    Annotations are resolved at first use. One that cannot be, such as a name imported under
    ``TYPE_CHECKING``, is a ConfigurationError: what is declared is what runs, so a check that was
    written down is not silently dropped. ``self`` of a bound task is never looked at.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        bound: bool = False,
        namespace: Mapping[str, Any] | None = None,
        check_types: bool = True,
    ) -> None:
        """Look at the signature; annotations wait.

        Args:
            function: The task's function.
            name: The task's name, for errors.
            bound: Leave out the first parameter (``self``).
            namespace: Local names of the place where the function was defined.
            check_types: False: only the number of arguments is checked.
        """
        self._name = name
        self._hints = Hints(function, name, namespace)
        self._check_types = check_types
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        if bound:
            if not parameters or parameters[0].kind not in _BY_PLACE:
                raise ConfigurationError(
                    f"task {name}: bind=True needs a first parameter for the task itself (self)"
                )
            parameters = parameters[1:]
        #: The signature callers see.
        self.signature = signature.replace(parameters=parameters)
        self._compiled = False
        self._names: tuple[str, ...] = ()
        # The quick way, where exact types say everything: by place, by name, and what may follow
        # 0, 1, 2… positional arguments. Empty: there is none.
        self._exact: tuple[type | None, ...] = ()
        self._exact_by_name: dict[str, type | None] = {}
        self._rests: tuple[_Rest, ...] = ()
        self._dump = False
        self._validate: Callable[..., Arguments] | None = None

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
        """Return the arguments validated and converted, for the body or for the way there.

        Raises:
            InvalidArguments: They do not fit.
            ConfigurationError: The annotations cannot be resolved.
        """
        if not self._compiled:
            self.compile()
        if len(args) < len(self._rests):
            rest = self._rests[len(args)]
            if (
                (rest.required <= kwargs.keys() <= rest.allowed) if kwargs else not rest.required
            ) and self._all_exact(args, kwargs):
                return tuple(args), kwargs if type(kwargs) is dict else dict(kwargs)
        return self._check_slowly(args, kwargs)

    def _all_exact(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        for value, exact in zip(args, self._exact, strict=False):
            if exact is not None and type(value) is not exact:
                return False
        for name in kwargs:
            exact = self._exact_by_name[name]
            if exact is not None and type(kwargs[name]) is not exact:
                return False
        return True

    def check_outgoing(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
        """Return the arguments validated, in a form the codec can write.

        Models, dataclasses, enums and sets become their JSON form where annotations name them;
        the worker's validation makes them again.
        """
        checked = self.check(args, kwargs)
        if not self._dump:
            return checked
        return tuple(to_wire(value) for value in checked[0]), {
            key: to_wire(value) for key, value in checked[1].items()
        }

    def first(self, args: int, kwargs: Sequence[str]) -> tuple[str, Any]:
        """Return name and type of the argument that one put before ``args`` others becomes.

        The type is Any where there is none, or it cannot be resolved yet.

        Raises:
            InvalidArguments: One more argument before these cannot be taken, or some are missing.
        """
        try:
            self.signature.bind(None, *(None,) * args, **dict.fromkeys(kwargs))
        except TypeError as error:
            raise InvalidArguments(
                f"{self._title()}: with a result before its own arguments: {error}"
            ) from None
        name = next(iter(self.signature.parameters))
        try:
            return name, self._hints.of([name])[name]
        except ConfigurationError:
            return name, Any

    def compile(self) -> None:
        """Resolve annotations and build the validator; done by the first check.

        Raises:
            ConfigurationError: An annotation cannot be resolved or validated by.
        """
        parameters = list(self.signature.parameters.values())
        hints: dict[str, Any] = {}
        if self._check_types:
            annotated = [one.name for one in parameters if one.annotation is not _EMPTY]
            hints = self._hints.of(annotated)
        self._names = tuple(one.name for one in parameters if one.kind in _BY_PLACE)
        self._prepare_quick_way(parameters, hints)
        if any(not _unchecked(hint) for hint in hints.values()):
            self._dump = not all(_plain(hint) for hint in hints.values())
            self._validate = self._build(hints)
        self._compiled = True

    def _prepare_quick_way(
        self, parameters: Sequence[inspect.Parameter], hints: Mapping[str, Any]
    ) -> None:
        """Precompute what calls need no more than a look at counts, names and exact types."""
        named = (*_BY_PLACE, inspect.Parameter.KEYWORD_ONLY)
        types_by_name = {one.name: hints.get(one.name, Any) for one in parameters}
        if not all(
            one.kind in named
            and (_unchecked(types_by_name[one.name]) or _exact_type(types_by_name[one.name]))
            for one in parameters
        ):
            return
        self._exact_by_name = {name: _exact_type(hint) for name, hint in types_by_name.items()}
        self._exact = tuple(self._exact_by_name[name] for name in self._names)
        positional_only = {one.name for one in parameters if one.kind is one.POSITIONAL_ONLY}
        required = {one.name for one in parameters if one.default is _EMPTY}
        self._rests = tuple(
            _Rest(
                frozenset(set(types_by_name) - set(self._names[:count]) - positional_only),
                frozenset(required - set(self._names[:count])),
            )
            for count in range(len(self._names) + 1)
        )

    def _build(self, hints: Mapping[str, Any]) -> Callable[..., Arguments]:
        """Return a function with this signature that returns its validated arguments."""

        def collect(*args: Any, **kwargs: Any) -> Arguments:
            return args, kwargs

        parameters = [
            one.replace(annotation=hints.get(one.name, Any))
            for one in self.signature.parameters.values()
        ]
        collect.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        collect.__annotations__ = {one.name: one.annotation for one in parameters}
        try:
            checked: Callable[..., Arguments] = validate_call(config=_CONFIG)(collect)
        except (PydanticUserError, TypeError) as error:
            raise ConfigurationError(
                f"task {self._name}: its annotations cannot be validated by: {error}"
            ) from error
        return checked

    def _check_slowly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
        if self._validate is None:
            try:
                self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise InvalidArguments(f"{self._title()}: {error}") from None
            return tuple(args), dict(kwargs)
        try:
            new_args, new_kwargs = self._validate(*args, **kwargs)
        except ValidationError as error:
            raise InvalidArguments(self._explain(error)) from None
        except Exception as error:
            # A validator of the user's own may raise anything; the arguments still do not fit.
            raise InvalidArguments(
                f"{self._title()}: validation failed with {shown(error)}"
            ) from error
        # The validator fills in defaults; they stay the body's own, so that a default changed
        # later holds for messages sent before, and one that JSON cannot carry does no harm.
        if len(new_args) == len(args) and len(new_kwargs) == len(kwargs):
            return new_args, new_kwargs
        return new_args[: len(args)], {
            key: value for key, value in new_kwargs.items() if key in kwargs
        }

    def _explain(self, error: ValidationError) -> str:
        details = error.errors(include_url=False, include_context=False)
        shown = [self._one(detail) for detail in details[:_MAX_ERRORS]]
        if len(details) > _MAX_ERRORS:
            shown.append(f"and {len(details) - _MAX_ERRORS} more")
        return f"{self._title()}: {'; '.join(shown)}"

    def _one(self, detail: Any) -> str:
        first, *inner = detail["loc"] or ("?",)
        name = repr(first)
        if isinstance(first, int):
            extra = f"number {first + 1}"
            name = repr(self._names[first]) if first < len(self._names) else extra
        place = "".join(f"[{part!r}]" for part in inner)
        kind = detail["type"]
        if kind == "missing_argument" or kind.startswith("missing_"):
            return f"missing argument {name}"
        if kind in {"unexpected_keyword_argument", "unexpected_positional_argument"}:
            return f"unexpected argument {name}"
        if kind == "multiple_argument_values":
            return f"argument {name} was given twice"
        return f"argument {name}{place}: {_expectation(detail)}"

    def _title(self) -> str:
        return f"{self._name}{self._shown_signature()}"

    def _shown_signature(self) -> str:
        parameters = [
            one.replace(annotation=_Unquoted(one.annotation))
            if isinstance(one.annotation, str)
            else one
            for one in self.signature.parameters.values()
        ]
        text = str(inspect.Signature(parameters))
        return text if len(text) <= 2 * _MAX_SHOWN else "(…)"


class _Unquoted(str):
    """An annotation under ``from __future__ import annotations``, shown as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class ResultValidator:
    """Checks a task's result by its return annotation, at the worker and back at the caller."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        namespace: Mapping[str, Any] | None = None,
    ) -> None:
        """Look at nothing yet."""
        self._function = function
        self._name = name
        self._hints = Hints(function, name, namespace)
        self._compiled = False
        self._exact: type | None = None
        self._adapter: TypeAdapter[Any] | None = None
        self._dump = False
        #: What :meth:`hint` found, once it did: a chord asks for each of its members.
        self._hint: Any = _EMPTY

    def hint(self) -> Any:
        """Return the return annotation; Any where there is none, or it cannot be resolved yet."""
        if self._hint is not _EMPTY:
            return self._hint
        hint: Any = Any
        if inspect.signature(self._function).return_annotation is not _EMPTY:
            try:
                hint = self._hints.of(["return"])["return"]
            except ConfigurationError:
                return Any
        self._hint = Any if hint is typing.NoReturn or hint is typing.Never else hint
        return self._hint

    def compile(self) -> None:
        """Resolve the annotation and build the validator; done by the first check.

        Raises:
            ConfigurationError: The annotation cannot be resolved or validated by.
        """
        hint: Any = Any
        if inspect.signature(self._function).return_annotation is not _EMPTY:
            hint = self._hints.of(["return"])["return"]
        if not (_unchecked(hint) or hint is typing.NoReturn or hint is typing.Never):
            try:
                config = None if _has_own_config(hint) else _CONFIG
                self._adapter = TypeAdapter(hint, config=config)
            except (PydanticUserError, TypeError) as error:
                raise ConfigurationError(
                    f"task {self._name}: its return annotation cannot be validated by: {error}"
                ) from error
            self._exact = _exact_type(hint)
            self._dump = not _plain(hint)
        self._compiled = True

    def encode(self, value: Any) -> Any:
        """Return what the task returned in the form the codec writes, at the worker.

        Raises:
            InvalidResult: It is not what the return annotation says.
        """
        checked = self.decode(value)
        return to_wire(checked) if self._dump else checked

    def decode(self, value: Any) -> Any:
        """Return a stored result validated and converted by the annotation, at the caller.

        Raises:
            InvalidResult: It is not what the return annotation says.
        """
        if not self._compiled:
            self.compile()
        if self._adapter is None or (self._exact is not None and type(value) is self._exact):
            return value
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            detail = error.errors(include_url=False, include_context=False)[0]
            place = "".join(f"[{part!r}]" for part in detail["loc"])
            raise InvalidResult(f"{self._name}: result{place}: {_expectation(detail)}") from None
        except Exception as error:
            raise InvalidResult(
                f"{self._name}: result: validation failed with {shown(error)}"
            ) from error


class Hints:
    """Resolves the annotations of one function, one by one, so that an error names its place."""

    def __init__(
        self, function: Callable[..., Any], name: str, namespace: Mapping[str, Any] | None
    ) -> None:
        self._function = inspect.unwrap(function)
        self._name = name
        self._namespace = namespace

    def of(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the types of the named parameters (``return`` is the result).

        Raises:
            ConfigurationError: One cannot be resolved.
        """
        found = inspect.get_annotations(_annotated(self._function))
        scope = dict(getattr(self._function, "__globals__", {}))
        hints = {}
        for name in names:
            hint = found.get(name, Any)
            try:
                hints[name] = self._resolve(hint, scope)
            except (NameError, AttributeError, SyntaxError, TypeError) as error:
                where = "its return annotation" if name == "return" else f"argument {name!r}"
                raise ConfigurationError(
                    f"task {self._name}: the annotation {hint!r} of {where} cannot be resolved "
                    f"({error}); import the name at run time (not under TYPE_CHECKING), or leave "
                    "the annotation out"
                ) from error
        return hints

    def _resolve(self, hint: Any, scope: dict[str, Any]) -> Any:
        """Resolve texts, also nested ones, by typing's own rules; keep ``Annotated``."""
        holder = types.SimpleNamespace(__annotations__={"hint": hint})
        local = dict(self._namespace or {})
        return typing.get_type_hints(holder, scope, local, include_extras=True)["hint"]


def _annotated(function: Any) -> Any:
    """Return what holds the annotations: a function, or the ``__call__`` of an object."""
    return function if hasattr(function, "__annotations__") else type(function).__call__


# -- which types need what ----------------------------------------------------------------------


def _exact_type(hint: Any) -> type | None:
    """Return the type of which an instance needs no validation, None where there is none."""
    if hint is None:
        return _NONE
    return hint if isinstance(hint, type) and hint in _EXACT else None


def _unchecked(hint: Any) -> bool:
    return hint is Any or hint is object


def _plain(hint: Any) -> bool:
    """Return whether JSON as we write it carries every value of this type exactly."""
    if hint is None or hint is Any or hint is object:
        return True
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _plain(typing.get_args(hint)[0])
    if origin is typing.Literal:
        return all(type(value) in _EXACT for value in typing.get_args(hint))
    if origin in _PLAIN_CONTAINERS or origin in {typing.Union, types.UnionType}:
        return all(_plain(part) for part in typing.get_args(hint))
    return isinstance(hint, type) and (hint in _EXACT or hint in _PLAIN_CONTAINERS)


def _has_own_config(hint: Any) -> bool:
    """Return whether pydantic takes the config from the type itself and refuses another."""
    return isinstance(hint, type) and (
        hasattr(hint, "__pydantic_config__")
        or hasattr(hint, "__pydantic_fields__")
        or hasattr(hint, "__dataclass_fields__")
        or typing.is_typeddict(hint)
    )


def to_wire(value: Any) -> Any:
    """Return a value with models, dataclasses, enums and sets in it in their JSON form.

    What the codec carries exactly (dates, decimals, UUIDs, bytes) is left alone.
    """
    kind = type(value)
    if kind in _EXACT:
        return value
    if kind is dict:
        return {key: to_wire(one) for key, one in value.items()}
    if kind is list or kind is tuple:
        return [to_wire(one) for one in value]
    try:
        return pydantic_core.to_jsonable_python(value, by_alias=True)
    except pydantic_core.PydanticSerializationError:
        return value  # the codec names it, with its place


def _expectation(detail: Any) -> str:
    """Return one of pydantic's errors as "expected …, got …"."""
    message = detail["msg"]
    if message.startswith("Input should be "):
        message = "expected " + message.removeprefix("Input should be ")
    return f"{message}, got {shown(detail['input'])}"


def shown(value: Any) -> str:
    """Return a value's type and a bounded ``repr``, for errors."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a user's __repr__ may raise anything
        text = "…"
    text = text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
    return f"{type(value).__name__} {text}"
