"""Where ``embedded://[name]`` is served: a file per name in the user's runtime folder.

Who serves (``amqflow dev``, ``amqflow broker``) writes the file, who joins reads it. The folder is
``$XDG_RUNTIME_DIR/amqflow`` (XDG Base Directory Specification: the user's own, mode 0700), else a
folder of mode 0700 under the temp folder. A file that anybody else could have written is not
trusted; one whose process or port is gone is stale and replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from amqflow.errors import AmqflowError, ConfigurationError, NoEmbeddedBroker

SCHEME: Final = "embedded"
#: The name of plain ``embedded://``.
DEFAULT_NAME: Final = "default"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SUFFIX: Final = ".json"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
#: Seconds a port of this machine may take to accept; it takes none where somebody listens.
_PROBE_TIMEOUT: Final = 1.0
#: Bytes a rendezvous file may have.
_LARGEST: Final = 16_384


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """What serves one name: addresses, and the process they belong to.

    ``broker`` is an ``amqp://`` URL, ``management`` the URL of its HTTP API, ``store`` the
    ``host:port`` of the result store and ``token`` what it wants to be shown.
    """

    name: str
    pid: int
    broker: str
    management: str | None = None
    store: str | None = None
    token: str = ""

    @property
    def url(self) -> str:
        """What joins it: ``embedded://`` or ``embedded://name``."""
        return url_of(self.name)


def is_embedded(url: str | None) -> bool:
    """Whether a URL is ``embedded://[name]``."""
    return url is not None and url.partition("://")[0].lower() == SCHEME and "://" in url


def url_of(name: str) -> str:
    """Return the URL of a name."""
    return f"{SCHEME}://{'' if name == DEFAULT_NAME else name}"


def name_of(url: str) -> str:
    """Return the name in ``embedded://[name]``.

    Raises:
        ConfigurationError: there is more in the URL, or the name has signs no file should have.
    """
    parts = urlsplit(url)
    if parts.path.strip("/") or parts.query or parts.fragment:
        message = f"{url[:80]!r}: embedded:// takes a name and nothing else, as in embedded://shop"
        raise ConfigurationError(message)
    return checked_name(parts.netloc or DEFAULT_NAME)


def checked_name(name: str) -> str:
    """Return a name that may be part of a file's name.

    Raises:
        ConfigurationError: it may not.
    """
    if not _NAME.fullmatch(name):
        message = (
            f"{name[:80]!r} is no name for an embedded broker: letters, digits, '.', '_' and '-', "
            "at most 64, the first a letter or digit"
        )
        raise ConfigurationError(message)
    return name


def folder() -> Path:
    """Return the folder of this user's rendezvous files, made where it does not exist.

    Raises:
        NoEmbeddedBroker: what is there is not this user's alone, so nothing in it is trusted.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and _objection(Path(runtime), folder=True) is None:
        path = Path(runtime) / "amqflow"
    else:
        path = Path(tempfile.gettempdir()) / f"amqflow-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if (objection := _objection(path, folder=True)) is not None:
        raise NoEmbeddedBroker(f"{path} is not trusted: {objection}; remove it, or mend that")
    return path


def find(name: str) -> Rendezvous:
    """Return what serves a name now.

    Raises:
        NoEmbeddedBroker: nothing does; the message says how to start one.
    """
    path = _path(name)
    found = _read(path)
    if found is not None and (gone := _gone(found)) is None:
        return found
    why = "" if found is None else f" (the one that was there is gone: {gone})"
    command = "amqflow dev -A app"
    if name != DEFAULT_NAME:
        command += f" --name {name}"
    others = [entry.name for entry in running() if entry.name != name]
    hint = f"; running: {', '.join(map(url_of, others))}" if others else ""
    message = (
        f"no embedded broker answers for {url_of(name)}{why}: run '{command}' in another terminal, "
        f"or use app.running(){hint}"
    )
    raise NoEmbeddedBroker(message)


def running() -> list[Rendezvous]:
    """Return everything of this user's that serves a name now, by name."""
    found = []
    for path in sorted(folder().glob(f"*{_SUFFIX}")):
        with contextlib.suppress(NoEmbeddedBroker):
            entry = _read(path)
            if entry is not None and _gone(entry) is None:
                found.append(entry)
    return found


def announce(entry: Rendezvous) -> None:
    """Write the file of a name, mode 0600.

    Raises:
        AmqflowError: another process serves this name.
    """
    path = _path(checked_name(entry.name))
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(entry), file)
        while True:
            try:
                # Unlike a rename, a link fails where the name is taken: of two processes that
                # start at once one is told.
                os.link(draft, path)
            except FileExistsError:
                _make_way(path, entry)
            else:
                return
    finally:
        Path(draft).unlink(missing_ok=True)


def withdraw(entry: Rendezvous) -> None:
    """Remove the file of a name, unless somebody else's is there by now."""
    path = _path(entry.name)
    with contextlib.suppress(NoEmbeddedBroker):
        if _read(path) == entry:
            path.unlink(missing_ok=True)


def _make_way(path: Path, entry: Rendezvous) -> None:
    """Remove a stale file; what is alive stays, and is an error."""
    there = _read(path)
    if there is not None and _gone(there) is None:
        message = (
            f"{entry.url} is served already by process {there.pid}; stop it, or take another name "
            "with --name"
        )
        raise AmqflowError(message)
    path.unlink(missing_ok=True)


def _path(name: str) -> Path:
    return folder() / f"{checked_name(name)}{_SUFFIX}"


def _objection(path: Path, *, folder: bool) -> str | None:
    """Say why a path is not this user's alone; None where it is. Links are not followed."""
    try:
        found = path.lstat()
    except OSError as error:
        return error.strerror or "it cannot be read"
    return _objection_to(found, folder=folder)


def _objection_to(found: os.stat_result, *, folder: bool) -> str | None:
    kind = stat.S_ISDIR if folder else stat.S_ISREG
    if not kind(found.st_mode):
        return f"it is no {'folder' if folder else 'file'}"
    if found.st_uid != os.geteuid():
        return f"it belongs to user {found.st_uid}"
    if found.st_mode & _OTHERS:
        return f"others may use it (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def _read(path: Path) -> Rendezvous | None:
    """Return what a file says; None where there is none, or it was written by another version.

    Raises:
        NoEmbeddedBroker: somebody else could have written it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NoEmbeddedBroker(f"{path} is not trusted: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        if (objection := _objection_to(os.fstat(file.fileno()), folder=False)) is not None:
            raise NoEmbeddedBroker(f"{path} is not trusted: {objection}; remove it")
        text = file.read(_LARGEST)
    try:
        known = {field.name for field in fields(Rendezvous)}
        return Rendezvous(**{key: value for key, value in json.loads(text).items() if key in known})
    except (ValueError, TypeError, AttributeError):
        return None


def _gone(entry: Rendezvous) -> str | None:
    """Say what of an entry is gone; None where it is alive."""
    try:
        os.kill(entry.pid, 0)
    except ProcessLookupError:
        return f"process {entry.pid} has ended"
    except PermissionError:
        pass
    parts = urlsplit(entry.broker)
    try:
        socket.create_connection(
            (parts.hostname or "127.0.0.1", parts.port or 5672), timeout=_PROBE_TIMEOUT
        ).close()
    except OSError:
        return f"port {parts.port} does not answer"
    return None
