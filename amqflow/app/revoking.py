"""Keeps revocations where every worker reads them, and ends what has not begun."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from amqflow.abc import REVOKED, Finish
from amqflow.guards.revocations import no_store, revoked_outcome
from amqflow.protocol.revocation import Revocation, Target
from amqflow.workflow.catalog import count_revoked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from amqflow.abc import Outcome
    from amqflow.app.application import App
    from amqflow.workflow.catalog import Workflow


async def revoke_all(
    app: App,
    target: Target,
    values: Iterable[str],
    *,
    terminate: bool = False,
    expires: float | None = None,
) -> None:
    """Keep revocations where every worker reads them, and end what has not begun.

    Raises:
        NoResultStore: there is no store that callers and workers share.
        StoreUnavailable: it cannot be used now; nothing was revoked.
    """
    runtime, now = app.runtime(), app.clock.now()
    if runtime.revocations is None:
        raise no_store()
    known: dict[str, Outcome | None] = {}
    values = list(values)
    if target is Target.ID:
        store = await runtime.opened_store()
        known = dict(zip(values, await asyncio.gather(*map(store.get, values)), strict=True))
    kept = app.conf.settings.revoke_expires if expires is None else expires
    await runtime.revocations.add(
        [
            Revocation(
                target,
                value,
                at=now,
                expires=now + kept,
                terminate=terminate,
                epoch=outcome.epoch if (outcome := known.get(value)) is not None else 0,
            )
            for value in values
        ]
    )
    if known:
        await _end_revoked(app, known, now)


async def _end_revoked(app: App, known: Mapping[str, Outcome | None], now: float) -> None:
    """Store REVOKED for what no worker has begun: whoever waits for it is answered now.

    Fence 0 loses against every attempt under way; that one's worker has been told.
    """
    runtime = app.runtime()
    store = await runtime.opened_store()
    finishes = [
        Finish(revoked_outcome(task_id, outcome, now), fence=0)
        for task_id, outcome in known.items()
        if outcome is None or not outcome.terminal
    ]
    finished = await store.finish(finishes)
    ended = [one.stored for one in finished if not one.refused and one.stored.state == REVOKED]
    # A member's message may lie in a queue for long; its chord is told now.
    await count_revoked(ended, runtime.launcher)
    for told in runtime.after_revoke:
        await told(ended)


async def cancel(app: App, workflow: Workflow, *, terminate: bool = False) -> int:
    """Revoke what has not ended of a workflow, its delayed retries too; return how many."""
    ids = list(dict.fromkeys(workflow.ids()))
    outcomes = await app.fetch_outcomes(ids)
    waiting = [
        task_id
        for task_id, outcome in zip(ids, outcomes, strict=True)
        if outcome is None or not outcome.terminal
    ]
    await revoke_all(app, Target.ROOT, [workflow.root_id], terminate=terminate)
    if waiting:
        await revoke_all(app, Target.ID, waiting, terminate=terminate)
    return len(waiting)


async def lift(app: App, target: Target, values: Iterable[str]) -> int:
    """Forget revocations; what a revoke has ended already stays ended."""
    kept = app.runtime().revocations
    if kept is None:
        raise no_store()
    return await kept.lift(target, values)


async def revocations(app: App) -> list[Revocation]:
    """Return the revocations in force."""
    kept = app.runtime().revocations
    if kept is None:
        raise no_store()
    return await kept.all()
