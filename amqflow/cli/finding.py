"""Finds the application a command is about: ``-A app``, ``-A app.celery_app``, ``-A app:name``."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from amqflow.app import App
from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from types import ModuleType


class AppSource:
    """Imports the application when a command first needs it."""

    def __init__(self, name: str | None, workdir: str | None = None) -> None:
        """Keep the name given to ``-A``, or the environment's ``AMQFLOW_APP``."""
        self._name = name or os.environ.get("AMQFLOW_APP")
        self._workdir = workdir
        self._app: App | None = None

    @classmethod
    def of(cls, app: App) -> AppSource:
        """Return the source of an application that is at hand."""
        source = cls(None)
        source._app = app
        return source

    def load(self) -> App:
        """Return the application.

        Raises:
            ConfigurationError: none was named, or none is found under the name.
        """
        if self._app is not None:
            return self._app
        if not self._name:
            message = "name the application: amqflow -A module[:attribute] … (or set AMQFLOW_APP)"
            raise ConfigurationError(message)
        if self._workdir:
            os.chdir(self._workdir)
        if (folder := os.getcwd()) not in sys.path:  # noqa: PTH109 - sys.path holds strings
            sys.path.insert(0, folder)
        return find_app(self._name)


def find_app(name: str) -> App:
    """Return the application of ``module``, ``module.attribute`` or ``module:attribute``."""
    module_name, _, attribute = name.partition(":")
    if attribute:
        return _attribute(_module(module_name), attribute, name)
    try:
        module = _module(module_name)
    except ConfigurationError:
        parent, dot, last = module_name.rpartition(".")
        if not dot:
            raise
        return _attribute(_module(parent), last, name)
    apps = {id(value): value for value in vars(module).values() if isinstance(value, App)}
    for wanted in ("app", "celery", "celery_app"):
        if isinstance(found := getattr(module, wanted, None), App):
            return found
    if len(apps) == 1:
        return next(iter(apps.values()))
    count = "no application" if not apps else f"{len(apps)} applications"
    message = f"-A {name}: {count} in module {module_name!r}; write -A {module_name}:attribute"
    raise ConfigurationError(message)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            message = f"-A: no module named {name!r} from {os.getcwd()}"  # noqa: PTH109 - for people
            raise ConfigurationError(message) from error
        raise


def _attribute(module: ModuleType, attribute: str, name: str) -> App:
    found = module
    for part in attribute.split("."):
        found = getattr(found, part, None)  # type: ignore[assignment]
    if not isinstance(found, App):
        message = (
            f"-A {name}: {attribute!r} in module {module.__name__!r} is no AmqFlow application"
        )
        raise ConfigurationError(message)
    return found
