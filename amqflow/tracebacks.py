"""Tracebacks as text, without disturbing tasks that parse Python meanwhile."""

from __future__ import annotations

import sys
from traceback import TracebackException


def format_error(error: BaseException) -> str:
    """Return an exception as ``traceback`` writes it, with its causes.

    Up to Python 3.12 without the carets under each line: ``traceback`` finds their place with
    ``ast.parse``, and two threads in that at once raise SystemError (python/cpython#106905), in
    the task that parses as well as here.
    """
    described = TracebackException.from_exception(error, compact=True)
    if sys.version_info < (3, 13):
        _drop_columns(described)
    return "".join(described.format())


def _drop_columns(described: TracebackException) -> None:
    waiting: list[TracebackException | None] = [described]
    while waiting:
        one = waiting.pop()
        if one is None:
            continue
        for frame in one.stack:
            frame.colno = None
        waiting += [one.__cause__, one.__context__, *(one.exceptions or ())]
