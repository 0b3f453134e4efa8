"""Which changes of files a worker is started again for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from watchfiles import Change, DefaultFilter, awatch

from amqflow.errors import AmqflowError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Sequence

#: Code, topology files, and settings.
SUFFIXES: Final = frozenset({".py", ".yaml", ".yml", ".toml"})


class SourceFilter(DefaultFilter):
    """Lets through what an application is made of; virtual environments and caches are not."""

    def __call__(self, change: Change, path: str) -> bool:
        """Whether a change counts."""
        return Path(path).suffix in SUFFIXES and super().__call__(change, path)


async def changes(paths: Sequence[Path], stop: asyncio.Event) -> AsyncIterator[list[str]]:
    """Yield the files of each burst of changes below ``paths``, relative where they can be.

    Raises:
        AmqflowError: the folders cannot be watched.
    """
    here = Path.cwd()
    try:
        async for found in awatch(
            *paths, watch_filter=SourceFilter(), stop_event=stop, ignore_permission_denied=True
        ):
            yield sorted({_shown(Path(path), here) for _, path in found})
    except (OSError, RuntimeError) as error:
        message = (
            f"cannot watch {', '.join(map(str, paths))}: {error}; name the folders of your code "
            "with --watch, set WATCHFILES_FORCE_POLLING=1, or switch reloading off with --no-reload"
        )
        raise AmqflowError(message) from error


def _shown(path: Path, here: Path) -> str:
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
