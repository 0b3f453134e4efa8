"""Opens a text in the user's editor; what was typed is never lost."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from amqflow.errors import AmqflowError

#: What an id may leave of itself in a file's name.
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


class EditorFailed(AmqflowError):
    """The editor could not be started, or ended with an error."""


class Draftfile:
    """A text in a file of its own, in a folder that only the user may read."""

    def __init__(self, name: str, suffix: str, text: str) -> None:
        """Write ``text`` to a new file."""
        self._folder = Path(tempfile.mkdtemp(prefix="amqflow-dlq-"))
        self.path = self._folder / (_UNSAFE.sub("_", name)[:100] + suffix)
        self._written = text
        self.path.write_text(text)

    def edit(self) -> str:
        """Open the editor (``$VISUAL``, ``$EDITOR``, else vi), return the text it left.

        Raises:
            EditorFailed: It could not be started, or ended with an error.
        """
        command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        try:
            argv = [*shlex.split(command), str(self.path)]
            code = subprocess.run(argv, check=False).returncode  # noqa: S603 - the user's own
        except (OSError, ValueError) as error:
            raise EditorFailed(
                f"the editor {command!r} does not start ({error}); set EDITOR to one that does"
            ) from error
        if code:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
            raise EditorFailed(f"the editor {command!r} {how}")
        return self.text()

    def text(self) -> str:
        """Return what the file holds.

        Raises:
            EditorFailed: It is gone, or no UTF-8.
        """
        try:
            return self.path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise EditorFailed(f"the edited file cannot be read: {error}") from error

    @property
    def touched(self) -> bool:
        """Whether the file holds something that was typed."""
        try:
            return self.path.read_bytes() != self._written.encode()
        except OSError:
            return False

    def remove(self) -> None:
        """Delete file and folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
