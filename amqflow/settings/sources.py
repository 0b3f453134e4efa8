"""Where settings are read from: TOML files, the environment, objects and modules."""

from __future__ import annotations

import importlib
import inspect
import json
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import ConfigurationError
from amqflow.settings import celery
from amqflow.settings.model import FIELDS, NAMES

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "amqflow.toml"
_PREFIX: Final = "AMQFLOW_"
_SHORT: Final = {"AMQFLOW_BROKER": "broker_url", "AMQFLOW_BACKEND": "result_backend"}
#: Variables of this prefix that are read elsewhere and are no settings.
_NOT_SETTINGS: Final = frozenset({"AMQFLOW_ALLOW_SYNC_IN_LOOP", "AMQFLOW_APP", "AMQFLOW_DEBUG"})


def suggestion(name: str) -> str:
    """Return `` (did you mean …?)`` for a mistyped setting, or nothing."""
    near = get_close_matches(name, [*NAMES, *celery.HARMLESS, *celery.REFUSED], n=1, cutoff=0.75)
    return f" (did you mean {near[0]!r}?)" if near else ""


def check_name(name: str, source: str) -> None:
    """Refuse what is no setting, an old name, or a setting that cannot be honoured.

    Raises:
        ConfigurationError: Naming the setting, its source and the way out.
    """
    if name in FIELDS or name in celery.HARMLESS:
        return
    if (instead := celery.refusal(name)) is not None:
        raise ConfigurationError(f"setting {name!r} ({source}) has no place here: {instead}")
    if (new := celery.renamed(name)) is not None:
        raise ConfigurationError(
            f"setting {name!r} ({source}) is Celery's old name; write {new!r} instead"
        )
    raise ConfigurationError(f"unknown setting {name!r} ({source}){suggestion(name)}")


# -- files --------------------------------------------------------------------------------------


def find_files(start: Path) -> tuple[Path | None, Path | None]:
    """Return the nearest ``amqflow.toml`` and ``pyproject.toml`` with a ``[tool.amqflow]``.

    Looked for in ``start`` and upwards to the root of its repository (the folder with ``.git`` or
    ``.hg``); outside a repository in ``start`` only, so that no stray file of a parent counts.
    """
    folders = _folders(start)
    own = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    projects = (folder / "pyproject.toml" for folder in folders)
    shared = next((path for path in projects if path.is_file() and _project_table(path)), None)
    return own, shared


def _folders(start: Path) -> list[Path]:
    folders = [start, *start.parents]
    for index, folder in enumerate(folders):
        if (folder / ".git").exists() or (folder / ".hg").exists():
            return folders[: index + 1]
    return folders[:1]


def _project_table(path: Path) -> dict[str, Any]:
    table = _load_toml(path).get("tool", {}).get("amqflow", {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: [tool.amqflow] must be a table")
    return table


def _load_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: not a readable TOML file: {error}") from error


def from_file(path: Path) -> dict[str, Any]:
    """Return the settings of an ``amqflow.toml``, or of ``[tool.amqflow]`` in a pyproject.toml."""
    return _load_toml(path) if path.name == FILE else _project_table(path)


# -- the environment ----------------------------------------------------------------------------


def from_environment(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Return settings named ``AMQFLOW_<UPPER NAME>`` with the variable each came from.

    Lists may be written with commas, tables as JSON. Variables with this prefix that resemble no
    setting are left to whoever reads them.

    Raises:
        ConfigurationError: A variable is nearly the name of a setting.
    """
    found: dict[str, tuple[Any, str]] = {}
    for variable, text in environ.items():
        if not variable.startswith(_PREFIX) or variable in _NOT_SETTINGS:
            continue
        if variable.startswith("AMQFLOW_TEST_"):
            continue
        name = _SHORT.get(variable, variable.removeprefix(_PREFIX).lower())
        if celery.known(name):
            found[name] = (_parse(text), variable)
        elif near := get_close_matches(name, NAMES, n=1, cutoff=0.85):
            raise ConfigurationError(
                f"environment variable {variable} is no setting (did you mean "
                f"{_PREFIX}{near[0].upper()}?)"
            )
    return found


def _parse(text: str) -> Any:
    """Read JSON lists and objects; all other text is read by the setting's own type."""
    if text[:1] in {"[", "{"}:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


# -- objects ------------------------------------------------------------------------------------


def load_object(reference: Any, source: str) -> Any:
    """Return the object of ``module``, ``module:attribute`` or ``module.attribute``; else as is.

    Raises:
        ConfigurationError: It cannot be imported.
    """
    if not isinstance(reference, str):
        return reference
    module, _, attribute = reference.partition(":")
    try:
        try:
            loaded: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # "package.module.Class", as Celery reads it; any other missing module is an error.
            parent, _, last = module.rpartition(".")
            if not parent or attribute or error.name != module:
                raise
            loaded, attribute = importlib.import_module(parent), last
        for part in filter(None, attribute.split(".")):
            loaded = getattr(loaded, part)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{source}: cannot load {reference!r}: {error}") from error
    return loaded


def from_object(loaded: Any, namespace: str | None, source: str) -> dict[str, Any]:
    """Return the settings of a mapping, module, class or instance.

    With a namespace (Django's ``CELERY``) only ``CELERY_TASK_TIME_LIMIT`` and the like count, and
    each must be a setting. Without one a mapping holds settings only; a module or class may hold
    other things too, of which those that are nearly a setting are refused.
    """
    whole = isinstance(loaded, Mapping)
    items: dict[str, Any] = dict(loaded) if whole else _attributes(loaded)
    if namespace is not None:
        upper, lower = f"{namespace.upper()}_", f"{namespace.lower()}_"
        return {
            key[len(upper) :].lower(): value
            for key, value in items.items()
            if str(key).startswith((upper, lower))
        }
    if whole:
        return items
    found = {}
    for key, value in items.items():
        if celery.known(key) or celery.renamed(key) is not None:
            found[key] = value
        elif get_close_matches(key, NAMES, n=1, cutoff=0.85):
            check_name(key, source)
    return found


def _attributes(loaded: Any) -> dict[str, Any]:
    return {
        key: value
        for key in dir(loaded)
        if not key.startswith("_")
        for value in (getattr(loaded, key),)
        if not (inspect.ismodule(value) or inspect.isroutine(value) or inspect.isclass(value))
    }
