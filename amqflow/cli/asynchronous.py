"""Runs a command's coroutine for one application, and closes the application after it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from amqflow.app import App

T = TypeVar("T")


def run(app: App, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``work()`` in an event loop of its own and return what it returns."""

    async def closing() -> T:
        try:
            return await work()
        finally:
            await app.aclose()

    return asyncio.run(closing())
