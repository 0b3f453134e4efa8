"""Where a task is just now: its stack as text, of a thread or of a coroutine that waits."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amqflow.worker.pools.soft import SoftLimit

if TYPE_CHECKING:
    from types import FrameType

#: This package's folder.
_OWN = str(Path(__file__).parents[2])
_BELOW = ("threading.py", "asyncio/", "runpy.py", "<string>", "<frozen")


def of_thread(ident: int) -> str:
    """Return the stack of a thread of this process, without what leads to the task's body."""
    frame = sys._current_frames().get(ident)  # noqa: SLF001 - the one way, and documented
    if frame is None:
        return ""
    return _written([(one, line) for one, line in traceback.walk_stack(frame)][::-1])


def of_coroutine(work: Any) -> str:
    """Return the stack of a coroutine that waits, down to what it awaits."""
    frames: list[tuple[FrameType, int]] = []
    while work is not None:
        frame = getattr(work, "cr_frame", None) or getattr(work, "gi_frame", None)
        if frame is None:
            break
        frames.append((frame, frame.f_lineno))
        if frame.f_code is SoftLimit._drive.__code__:  # noqa: SLF001 - it stands in between
            work = frame.f_locals.get("work")
        else:
            work = getattr(work, "cr_await", None) or getattr(work, "gi_yieldfrom", None)
    return _written(
        [entry for entry in frames if not _leads(entry[0].f_code.co_filename)] or frames
    )


def noted(error: BaseException, stack: str) -> BaseException:
    """Return an error whose traceback shows where the task was."""
    if stack:
        error.add_note(f"The task was here (most recent call last):\n{stack.rstrip()}")
    return error


def _written(frames: list[tuple[FrameType, int]]) -> str:
    kept = list(frames)
    while len(kept) > 1 and _leads(kept[0][0].f_code.co_filename):
        kept.pop(0)
    summary = traceback.StackSummary.extract(iter(kept), limit=None, lookup_lines=True)
    return "".join(summary.format())


def _leads(filename: str) -> bool:
    """Whether a frame only leads to the task: our own, or the interpreter's."""
    return filename.startswith(_OWN) or any(part in filename for part in _BELOW)
