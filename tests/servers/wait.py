"""Waiting for a condition with a deadline: what tests do instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(
    condition: Callable[[], T | Awaitable[T]],
    *,
    deadline: float = 30,
    every: float = 0.02,
    message: str = "",
) -> T:
    """Call `condition`, sync or async, until what it returns is true, and return that.

    Args:
        condition: Asked every `every` seconds; an exception it raises is the test's.
        deadline: Seconds after which an AssertionError is raised; it also bounds one awaiting.
        every: Seconds between two calls.
        message: What was waited for, for the error.
    """
    end = time.monotonic() + deadline
    value: T | None = None
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            try:
                async with asyncio.timeout(max(end - time.monotonic(), every)) as limit:
                    value = await answer
            except TimeoutError:
                if not limit.expired():
                    raise
                raise _late(deadline, message, "no answer") from None
        else:
            value = answer
        if value:
            return value
        if time.monotonic() > end:
            raise _late(deadline, message, value)
        await asyncio.sleep(every)


def until_sync(
    condition: Callable[[], T], *, deadline: float = 30, every: float = 0.02, message: str = ""
) -> T:
    """Call `condition` until what it returns is true, and return that: `until` for plain tests."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise _late(deadline, message, value)
        time.sleep(every)
    return value


def _late(deadline: float, message: str, last: object) -> AssertionError:
    return AssertionError(f"{message or 'condition'}: not within {deadline:g} s (last: {last!r})")
