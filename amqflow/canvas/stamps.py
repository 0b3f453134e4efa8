"""Stamps: marks on calls, by which a task is known, and revoked. Celery's form among options.

``{"stamped_headers": ["tenant"], "tenant": "acme"}``: so a signature's dict form carries them from
and to Celery. ``stamps={"tenant": "acme"}`` says the same in one word, which mypy can check.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection

#: The option that names the stamps.
NAMES: Final = "stamped_headers"
#: The option that names them with their values.
STAMPS: Final = "stamps"


def is_stamped(options: Mapping[str, Any]) -> bool:
    """Return whether options hold stamps."""
    return NAMES in options or STAMPS in options


def names_in(options: Mapping[str, Any]) -> Collection[str]:
    """Return the names that ``stamped_headers`` lists.

    Raises:
        TypeError: They are no list of names.
    """
    names = options.get(NAMES)
    if names is None:
        return ()
    if not isinstance(names, list | tuple | set | frozenset) or not all(
        isinstance(name, str) for name in names
    ):
        raise TypeError(f"option {NAMES}: must be a list of names, got {names!r:.80}")
    return names


def stamps_in(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stamps that options hold, by name.

    Raises:
        TypeError: They are written in another way.
        ConfigurationError: A name has no value, or is that of an execution option.
    """
    found: dict[str, Any] = {}
    headers = options.get("headers") or {}
    for name in names_in(options):
        if name not in options and name not in headers:
            raise ConfigurationError(
                f"option {NAMES} names {name!r}, but nothing gives its value: write "
                f"stamps={{{name!r}: …}}, which needs no {NAMES}"
            )
        found[name] = _value(options[name] if name in options else headers[name])
    stamps = options.get(STAMPS)
    return found if stamps is None else {**found, **checked(stamps)}


def checked(stamps: Any) -> dict[str, Any]:
    """Return stamps by name as they travel: of several values a list.

    Raises:
        TypeError: It is no mapping of names to values.
        ConfigurationError: A name is that of an execution option, beside which it would stand.
    """
    # The options are read by what reads stamps, so they come after this module.
    from amqflow.canvas.call import OPTION_NAMES  # noqa: PLC0415

    if not isinstance(stamps, Mapping) or not all(isinstance(name, str) for name in stamps):
        raise TypeError(f"option {STAMPS}: must be a dict of names and values, got {stamps!r:.80}")
    for name in stamps:
        if name in OPTION_NAMES:
            raise ConfigurationError(
                f"a stamp cannot be called {name!r}: that is an execution option; choose another "
                "name"
            )
    return {name: _value(value) for name, value in stamps.items()}


def without_stamps(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the other options."""
    if not is_stamped(options):
        return dict(options)
    away = {NAMES, STAMPS, *names_in(options)}
    return {name: value for name, value in options.items() if name not in away}


def as_options(stamps: Mapping[str, Any]) -> dict[str, Any]:
    """Return stamps in Celery's form among options."""
    return {NAMES: list(stamps), **stamps} if stamps else {}


def stamp_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return of options the stamps alone, in Celery's form: they hold for all members alike."""
    return as_options(stamps_in(options)) if is_stamped(options) else {}


def merged(
    options: Mapping[str, Any], more: Mapping[str, Any], *, over: bool = False
) -> dict[str, Any]:
    """Return options with more over them; stamps stand beside each other.

    Args:
        options: A node's own.
        more: Over them.
        over: Whether of two stamps of one name the later stands, as with ``set``; else a node's
            own does (``celery/canvas.py: Signature._merge``).
    """
    if STAMPS not in options and not is_stamped(more):
        return {**options, **more}
    own, given = stamps_in(options), stamps_in(more)
    stamps = {**own, **given} if over else {**given, **own}
    return {**without_stamps(options), **without_stamps(more), **as_options(stamps)}


def restamped(own: Mapping[str, Any], stamps: Mapping[str, Any], *, append: bool) -> dict[str, Any]:
    """Return a node's stamps with more; the later of one name stands, or both are kept."""
    if not append:
        return {**own, **stamps}
    made = dict(own)
    for name, value in stamps.items():
        known = _several(made[name]) if name in made else []
        more = [one for one in _several(value) if one not in known]
        made[name] = [*known, *more] if name in own else value
    return made


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _value(value: Any) -> Any:
    """Return a stamp's value as JSON holds it."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return list(value) if isinstance(value, tuple) else value
