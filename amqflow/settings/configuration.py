"""The layers of settings and which one wins: what ``app.conf`` is."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import ValidationError

from amqflow.errors import ConfigurationError
from amqflow.logs import redact
from amqflow.settings import celery, sources
from amqflow.settings.model import FIELDS, NAMES, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Which source wins, the strongest first.
PRECEDENCE: Final = (
    "flags",
    "environment",
    "app.conf",
    "constructor",
    "config_from_object",
    "amqflow.toml",
    "pyproject.toml",
    "default",
)

_log = logging.getLogger(__name__)


class Source(NamedTuple):
    """Where a setting's value came from: a layer of :data:`PRECEDENCE`, and the place in it."""

    layer: str
    place: str

    def __str__(self) -> str:
        return self.place


class Configuration:
    """Settings by attribute and by item, laid over each other from every source.

    Sources are read when a setting is first asked for, not before, so that a module may be named
    before it can be imported. Assigning (``app.conf.task_time_limit = 5``, ``update``) checks the
    name at once and the value with all others at the next look.
    """

    def __init__(
        self,
        constructor: Mapping[str, Any] | None = None,
        *,
        flags: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Take what the application's constructor was given; None values count as not given.

        Args:
            constructor: Settings by name.
            flags: Settings from a command line.
            environ: The environment; None: the process's, when first read.
            folder: Where to look for files from; None: the current folder, when first read.

        Raises:
            ConfigurationError: A name is no setting.
        """
        put = object.__setattr__
        put(self, "_layers", {layer: {} for layer in PRECEDENCE})
        put(self, "_objects", [])
        put(self, "_environ", environ)
        put(self, "_folder", folder)
        put(self, "_read", False)  # noqa: FBT003 - a value, no parameter
        put(self, "_settings", None)
        put(self, "_warned", set())
        self._put("constructor", constructor or {}, "the constructor", skip_none=True)
        self._put("flags", flags or {}, "the command line", skip_none=True)

    if TYPE_CHECKING:
        _layers: dict[str, dict[str, tuple[Any, str]]]
        _objects: list[tuple[Any, str | None]]
        _environ: Mapping[str, str] | None
        _folder: Path | None
        _read: bool
        _settings: Settings | None
        _warned: set[str]

    # -- reading ----------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """All settings in force, checked; kept until something changes.

        Raises:
            ConfigurationError: A source cannot be read, or a value is not what is expected.
        """
        settings = self._settings
        if settings is None:
            settings = self._resolve()
            object.__setattr__(self, "_settings", settings)
        return settings

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        settings = self._settings or self.settings
        try:
            return getattr(settings, name) if name in FIELDS else self._harmless(name)
        except KeyError:
            raise AttributeError(
                f"no setting is called {name!r}{sources.suggestion(name)}"
            ) from None

    def __getitem__(self, name: str) -> Any:
        return getattr(self.settings, name) if name in FIELDS else self._harmless(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a setting, or ``default`` where no setting has this name."""
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: object) -> bool:
        return name in FIELDS

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)

    def keys(self) -> tuple[str, ...]:
        """Return the names of all settings, so that ``dict(app.conf)`` works."""
        return NAMES

    def source_of(self, name: str) -> Source:
        """Return which source a setting's value came from.

        Raises:
            KeyError: No setting has this name.
        """
        if name not in FIELDS:
            raise KeyError(name)
        self._read_sources()
        return self._winner(name)[1]

    def humanize(self) -> str:
        """Return what differs from the defaults, a line each, with its source and no secrets."""
        lines = []
        for name in FIELDS:
            source = self.source_of(name)
            if source.layer != "default":
                lines.append(f"{name} = {redact(repr(self[name]))}  # {source}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Configuration: {sum(map(len, self._layers.values()))} values set>"

    # -- writing ----------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        self._put("app.conf", {name: value}, f"app.conf.{name}")

    def __setitem__(self, name: str, value: Any) -> None:
        self._put("app.conf", {name: value}, f"app.conf[{name!r}]")

    def update(self, *mappings: Mapping[str, Any], **values: Any) -> None:
        """Set several settings, as assignments would, or none when one's name is wrong.

        Raises:
            ConfigurationError: A name is no setting.
        """
        merged: dict[str, Any] = {}
        for mapping in (*mappings, values):
            merged.update(mapping)
        self._put("app.conf", merged, "app.conf.update")

    def set_flags(self, **values: Any) -> None:
        """Set what a command line said: over everything else; None counts as not given."""
        self._put("flags", values, "the command line", skip_none=True)

    def from_object(self, reference: Any, namespace: str | None = None) -> None:
        """Take settings from a mapping, module, class, or the name of one (``config_from_object``).

        Names are imported at the first look at a setting, as in Celery; a later call wins.

        Args:
            reference: The object, or ``"module"``, ``"module:attribute"``.
            namespace: Read only names with this prefix, such as Django's ``CELERY``.
        """
        self._objects.append((reference, namespace))
        object.__setattr__(self, "_read", False)
        object.__setattr__(self, "_settings", None)

    # -- the layers -------------------------------------------------------------------------

    def _put(
        self, layer: str, values: Mapping[str, Any], place: str, *, skip_none: bool = False
    ) -> None:
        given = {key: value for key, value in values.items() if value is not None or not skip_none}
        for name in given:
            sources.check_name(name, place)
        self._layers[layer].update({name: (value, place) for name, value in given.items()})
        object.__setattr__(self, "_settings", None)

    def _read_sources(self) -> None:
        """Read objects, files and the environment, once."""
        if self._read:
            return
        # Marked first: a module being imported here may itself look at app.conf.
        object.__setattr__(self, "_read", True)
        try:
            self._read_objects()
            own, shared = sources.find_files(self._folder or Path.cwd())
            for layer, path in (("amqflow.toml", own), ("pyproject.toml", shared)):
                self._layers[layer] = {}
                if path is not None:
                    self._put(layer, sources.from_file(path), str(path))
            environ = os.environ if self._environ is None else self._environ
            self._layers["environment"] = {}
            for name, (value, variable) in sources.from_environment(environ).items():
                self._put("environment", {name: value}, f"environment variable {variable}")
        except BaseException:
            object.__setattr__(self, "_read", False)
            raise

    def _read_objects(self) -> None:
        self._layers["config_from_object"] = {}
        for reference, namespace in list(self._objects):
            shown = reference if isinstance(reference, str) else _name_of(reference)
            place = f"config_from_object({shown})"
            loaded = sources.load_object(reference, place)
            values = sources.from_object(loaded, namespace, place)
            self._put("config_from_object", values, place)

    def _winner(self, name: str) -> tuple[Any, Source]:
        for layer in PRECEDENCE:
            if name in self._layers[layer]:
                value, place = self._layers[layer][name]
                return value, Source(layer, place)
        return None, Source("default", "the default")

    def _resolve(self) -> Settings:
        self._read_sources()
        given = {name for layer in self._layers.values() for name in layer}
        values: dict[str, Any] = {}
        for name in given:
            value, source = self._winner(name)
            if name in FIELDS:
                values[name] = _split(name, value) if source.layer == "environment" else value
            elif name not in self._warned:
                self._warned.add(name)
                _log.warning(
                    "setting %s (%s) has no effect: %s", name, source, celery.HARMLESS[name]
                )
        try:
            return Settings(**values)
        except ValidationError as error:
            raise self._explain(error) from None

    def _explain(self, error: ValidationError) -> ConfigurationError:
        """Name the first wrong setting, where it came from, and what was expected."""
        detail = error.errors(include_url=False, include_context=False)[0]
        message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if not detail["loc"]:
            return ConfigurationError(f"settings contradict each other: {message}")
        name = str(detail["loc"][0])
        value, source = self._winner(name)
        shown = redact(repr(value))
        shown = shown if len(shown) <= 100 else shown[:100] + "…"  # noqa: PLR2004 - a line's width
        return ConfigurationError(f"setting {name!r} ({source}): expected {message}, got {shown}")

    def _harmless(self, name: str) -> Any:
        """Return the value given for a setting that has no effect here; KeyError where none is."""
        if name not in celery.HARMLESS:
            raise KeyError(name)
        self._read_sources()
        return self._winner(name)[0]


def _split(name: str, value: Any) -> Any:
    """Read a list from an environment variable: commas separate."""
    if isinstance(value, str) and name in {"include", "imports", "accept_content"}:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _name_of(thing: Any) -> str:
    return str(getattr(thing, "__name__", None) or type(thing).__name__)
