"""Finds the application a command is about: ``-A app``, ``-A app.celery_app``, ``-A app:name``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from amqflow.app import App
from amqflow.errors import AmqflowError, ConfigurationError
from amqflow.settings import redact

if TYPE_CHECKING:
    from types import ModuleType

#: Names looked for in a module before any other, as in Celery.
USUAL = ("app", "celery", "celery_app")

#: Modules of a package that may hold its application: ``-A proj`` finds ``proj/celery.py``.
PARTS = ("celery", "app")


class UnknownApp(ConfigurationError):
    """``-A`` names no application; a wrong command line, so the exit code is 2."""


class ImportFailed(ConfigurationError):
    """A module of the user's raised while it was imported; the message names its line."""


class AppSource:
    """Imports the application when a command first needs it."""

    def __init__(self, name: str | None, workdir: str | None = None) -> None:
        """Keep the name given to ``-A``, or the environment's ``AMQFLOW_APP``."""
        self.name = name or os.environ.get("AMQFLOW_APP")
        self.workdir = workdir
        self._app: App | None = None

    @classmethod
    def of(cls, app: App) -> AppSource:
        """Return the source of an application that is at hand."""
        source = cls(None)
        source._app = app
        return source

    @property
    def named(self) -> bool:
        """Whether an application was named at all; some commands do without one."""
        return self._app is not None or bool(self.name)

    def load(self) -> App:
        """Return the application.

        Raises:
            UnknownApp: none was named, or none is found under the name.
            ImportFailed: its module raised while it was imported.
        """
        if self._app is not None:
            return self._app
        if not self.name:
            message = "name the application: amqflow -A module[:attribute] … (or set AMQFLOW_APP)"
            raise UnknownApp(message)
        if self.workdir:
            os.chdir(self.workdir)
        if (folder := os.getcwd()) not in sys.path:  # noqa: PTH109 - sys.path holds strings
            sys.path.insert(0, folder)
        return find_app(self.name)


def find_app(name: str) -> App:
    """Return the application of ``module``, ``module.attribute`` or ``module:attribute``.

    Raises:
        UnknownApp: there is none.
        ImportFailed: the module raised while it was imported.
    """
    module_name, _, attribute = name.partition(":")
    _check_module_name(module_name, name)
    if attribute:
        return _attribute(_module(module_name, name), attribute, name)
    try:
        module = _module(module_name, name)
    except UnknownApp:
        parent, dot, last = module_name.rpartition(".")
        if not dot:
            raise
        return _attribute(_module(parent, name), last, name)
    if (app := _only_app(module, name)) is not None:
        return app
    for part in PARTS:
        if _has_part(module, part):
            app = _only_app(_module(f"{module_name}.{part}", name), name)
            if app is not None:
                return app
    raise UnknownApp(f"-A {name}: no AmqFlow application in module {module_name!r}")


def _only_app(module: ModuleType, given: str) -> App | None:
    """Return the application of a module, None where it has none; several are a question."""
    for wanted in USUAL:
        if isinstance(found := getattr(module, wanted, None), App):
            return found
    apps = {id(value): key for key, value in vars(module).items() if isinstance(value, App)}
    if len(apps) > 1:
        choices = " or ".join(f"-A {module.__name__}:{key}" for key in apps.values())
        message = (
            f"-A {given}: {len(apps)} applications in module {module.__name__!r}; write {choices}"
        )
        raise UnknownApp(message)
    name = next(iter(apps.values()), None)
    return None if name is None else getattr(module, name)


def _has_part(module: ModuleType, part: str) -> bool:
    return hasattr(module, "__path__") and find_spec(f"{module.__name__}.{part}") is not None


def _check_module_name(module: str, given: str) -> None:
    """Refuse a path where a module's name is meant, which imports would refuse in riddles."""
    is_file = module.endswith(".py") and Path(module).is_file()
    if not is_file and all(part.isidentifier() for part in module.split(".")):
        return
    meant = module.removesuffix(".py").replace("/", ".").strip(".")
    hint = f"-A {meant}" if meant else "-A module:attribute"
    message = f"-A {given}: {module!r} is no module's name; write {hint}"
    raise UnknownApp(message)


def _module(name: str, given: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            message = f"-A {given}: no module named {name!r} from {Path.cwd()}"
            raise UnknownApp(message) from error
        raise ImportFailed(_why(name, error)) from error
    except AmqflowError:
        raise  # a setting or task of the user's: the message says which
    except Exception as error:
        raise ImportFailed(_why(name, error)) from error


def import_tasks(app: App) -> None:
    """Import the modules that ``include``, ``imports`` and ``autodiscover_tasks`` name.

    Raises:
        ConfigurationError: one does not exist, or raised while it was imported.
    """
    try:
        app.import_modules()
    except AmqflowError:
        raise
    except Exception as error:
        raise ImportFailed(_why("the tasks' modules", error)) from error


def _why(name: str, error: Exception) -> str:
    """Say in one sentence what was raised where, with no secret in it."""
    if isinstance(error, SyntaxError):
        place = f" at {error.filename}:{error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith("<frozen ")]
        place = f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    text = redact(f"{type(error).__name__}: {what}".splitlines()[0].rstrip(": "))
    return f"importing {name} failed with {text}{place} (--debug shows the traceback)"


def _attribute(module: ModuleType, attribute: str, name: str) -> App:
    found: object = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, App):
        place = f"{attribute!r} in module {module.__name__!r}"
        if found is None:
            message = f"-A {name}: there is no {place}"
        else:
            message = f"-A {name}: {place} is a {type(found).__name__}, no AmqFlow application"
        raise UnknownApp(message)
    return found
