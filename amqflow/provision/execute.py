"""Executes a plan and nothing else: in the plan's order, idempotent, restartable.

Each step is one that the broker takes twice without harm, and the plan is worked out from what
the broker holds: a run that was killed half-way is finished by planning and applying again.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from amqflow.errors import ChannelLost, ManagementUnavailable, ReplaceRefused, TopologyMismatch
from amqflow.provision.mismatch import explain
from amqflow.topology.diff import ORDER
from amqflow.topology.live import LiveBinding, LiveExchange, LiveQueue
from amqflow.topology.model import Binding, DestinationKind, Exchange, Queue
from amqflow.topology.plan import Action, Replace, name_of
from amqflow.topology.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from amqflow.management import Management
    from amqflow.topology.plan import Change, Plan
    from amqflow.transport import Admin

T = TypeVar("T")

#: Tries of one step whose channel was closed by another one's refusal.
TRIES = 5

#: Seconds after which the management API's counts are newer than now: queues tell them every five,
#: and it collects what they told every five (RabbitMQ docs, "Management Plugin",
#: ``collect_statistics_interval``).
COUNTED = 11.0


async def execute(
    plan: Plan,
    admin: Admin,
    *,
    management: Management | None = None,
    replace: Callable[[Replace], Awaitable[None]] | None = None,
    on_done: Callable[[Change], None] = lambda _: None,
) -> None:
    """Carry out a plan's changes.

    Args:
        plan: What to do.
        admin: Declares.
        management: For policies; None where the broker has none.
        replace: Does one Replace; None refuses a plan that has some.
        on_done: Told of each change when it is done.

    Raises:
        ReplaceRefused: the plan replaces parts, and ``replace`` is None; nothing was done.
        TopologyMismatch: somebody declared a part otherwise meanwhile, or what is to be deleted
            is in use. What was told to ``on_done`` is done; plan and apply again.
        AccessRefused: the broker's user may not configure.
        BrokerUnavailable: the broker went away; apply again.
        ManagementUnavailable: a policy is to be set, and the API cannot be used.
    """
    if plan.replaces and replace is None:
        raise ReplaceRefused(refusal(plan))
    run = _Run(admin, management, replace, on_done)
    for action, kind in ORDER:
        changes = list(plan.of(Action(action), kind))
        if changes:
            await run.all(changes)
    await asyncio.gather(*(create(change.part, admin) for change in plan.unverified))


def refusal(plan: Plan) -> str:
    """Say which parts a plan replaces, and how that is allowed."""
    names = ", ".join(repr(name_of(change)) for change in plan.replaces[:5])
    more = f" and {len(plan.replaces) - 5} more" if len(plan.replaces) > 5 else ""  # noqa: PLR2004
    return (
        f"the plan replaces {names}{more}, which a broker cannot change in place; --migrate does "
        "it without losing a message, while producers and workers run"
    )


class _Run:
    """One pass over a plan."""

    def __init__(
        self,
        admin: Admin,
        management: Management | None,
        replace: Callable[[Replace], Awaitable[None]] | None,
        on_done: Callable[[Change], None],
    ) -> None:
        self._admin = admin
        self._management = management
        self._replace = replace
        self._on_done = on_done

    async def all(self, changes: list[Change]) -> None:
        """Do the changes of one step of the order, at once; raise the first failure at the end."""
        answers = await asyncio.gather(*map(self._one, changes), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _one(self, change: Change) -> None:
        part: Any = change.part
        if isinstance(change, Replace):
            assert self._replace is not None, "execute() refused it"
            await self._replace(change)
        elif isinstance(part, Policy):
            await self._policy(part, delete=change.action is Action.DELETE)
        elif change.action is Action.DELETE:
            await self._delete(part)
        else:
            await create(part, self._admin)
        self._on_done(change)

    async def _policy(self, policy: Policy, *, delete: bool) -> None:
        assert self._management is not None, "a plan has policies only where the API told them"
        path = self._management.path("policies", policy.name)
        if delete:
            await self._management.delete(path)
            return
        await self._management.put(
            path,
            {
                "pattern": policy.pattern,
                "definition": dict(policy.definition),
                "priority": policy.priority,
                "apply-to": policy.apply_to,
            },
        )

    async def _delete(self, part: LiveExchange | LiveQueue | LiveBinding) -> None:
        if isinstance(part, LiveBinding):
            unbind = (
                self._admin.unbind_queue if part.kind == "queue" else self._admin.unbind_exchange
            )
            await again(
                lambda: unbind(
                    part.destination, part.source, part.routing_key, dict(part.arguments)
                )
            )
        elif isinstance(part, LiveExchange):
            await again(lambda: self._admin.delete_exchange(part.name))
        else:
            await self._delete_queue(part)

    async def _delete_queue(self, part: LiveQueue) -> None:
        """Delete a queue that is empty and unused: what it holds was confirmed to somebody."""
        counts = await again(lambda: self._admin.declare_queue(part.name, passive=True))
        held = max(counts.messages, await self._unsettled(part.name))
        if held or counts.consumers:
            raise TopologyMismatch(
                f"queue {part.name!r} is not deleted: it holds {held} messages and has "
                f"{counts.consumers} consumers; stop its workers, move or purge what it holds "
                "(amqflow dlq), then apply again"
            )
        classic = part.type == "classic"
        await again(
            lambda: self._admin.delete_queue(part.name, if_empty=classic, if_unused=classic)
        )

    async def _unsettled(self, queue: str) -> int:
        if self._management is None:
            return 0
        path = self._management.path("queues", queue)
        end = time.monotonic() + COUNTED
        while (count := (await self._management.get(path)).get("messages")) is None:
            if time.monotonic() > end:  # of a queue declared just now it tells within five seconds
                message = f"the management API does not tell how many messages queue {queue!r} has"
                raise ManagementUnavailable(message)
            await asyncio.sleep(0.2)
        return int(count)


async def create(part: Exchange | Queue | Binding | Policy, admin: Admin) -> None:
    """Declare a part; the broker takes one it has without a word, and refuses another one."""
    assert not isinstance(part, Policy), "policies go by the management API"
    if isinstance(part, Binding):
        bind = (
            admin.bind_queue
            if part.destination_kind is DestinationKind.QUEUE
            else admin.bind_exchange
        )
        await again(
            lambda: bind(part.destination, part.source, part.routing_key, dict(part.arguments))
        )
        return
    with explain(part):
        if isinstance(part, Queue):
            await again(
                lambda: admin.declare_queue(
                    part.name,
                    durable=part.durable,
                    exclusive=part.exclusive,
                    auto_delete=part.auto_delete,
                    arguments=part.declare_arguments(),
                )
            )
        else:
            await again(
                lambda: admin.declare_exchange(
                    part.name,
                    part.type,
                    durable=part.durable,
                    auto_delete=part.auto_delete,
                    internal=part.internal,
                    arguments=part.declare_arguments(),
                )
            )


async def again(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a step whose channel was closed under it; each of these may be repeated freely."""
    for _ in range(TRIES - 1):
        try:
            return await call()
        except ChannelLost:
            await asyncio.sleep(0)
    return await call()
