"""Replaces a queue by another of its name on a live system, with nothing lost.

RabbitMQ changes neither the type nor the arguments of a queue, and renames none. So messages
wait beside it in a queue of ours while the name is given to the new one:

1. **Divert.** Each binding of the queue is doubled by one to ``…/in``, an exchange that leads to
   the queue, and then taken away: a message reaches a queue once, however many ways lead there.
   Then ``…/in`` is unbound, and its alternate exchange takes everything to ``…/hold``: one step of
   the broker's, so that no message goes both ways or none. A mark lets publishers by the queue's
   name follow (``transport.detour``).
2. **Drain.** What the queue holds moves to ``…/hold`` under confirms. Our consumer has the highest
   priority, so that workers get no more and settle what they have.
3. **Swap.** Nothing is published to the name any more, the queue is empty and nobody holds a
   message of it: it is deleted and declared as wanted. Workers subscribe again by themselves.
4. **Refill.** ``…/hold`` moves back, then ``…/in`` is bound to the new queue.
5. **Restore.** Each binding gets its old form, as in 1; the mark goes, and later the rest.

The broker holds the record of all steps: what stands of ours tells where a migration that was
killed goes on. A message moves by one publish to two queues, its new one and a queue of receipts.
Putting back, whoever goes on drops what has a receipt and still lies in the old one. Taking out, a
worker may have had it meanwhile: so each ack is one transaction with a note to the receipts, and a
copy without a note is void (``mover``); the queue ``…/void`` names those, and they are left out
when the messages are put back. The receipts do not outlive the broker, so that one that was written
without its message can never drop it; of a queue that may refuse messages (it has a length, and
``overflow: reject-publish``) they are not believed at all: rather twice than never.

What a dead migration had sent may still lie unread in the broker's sockets, and be done after its
messages have come back to their queue. So each run publishes and notes to exchanges of its own, and
the next one deletes them before it reads the receipts: from then on nothing of the old run happens
any more, neither a copy nor an ack. An exclusive consumer of ``…/lock`` keeps a second migration
of the queue waiting; one that was cut off from the broker for so long that another took over finds
its exchange gone, and leaves the queue to it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import (
    AccessRefused,
    AmqflowError,
    BrokerUnavailable,
    NotFound,
    ReplaceRefused,
    TopologyMismatch,
)
from amqflow.logs import get_logger
from amqflow.protocol import new_id
from amqflow.provision.execute import COUNTED, again, create
from amqflow.provision.mover import (
    PAUSE,
    TIMEOUT,
    WINDOW,
    Mover,
    Past,
    digest,
    inbound,
    listed,
    outbound,
    read_list,
)
from amqflow.topology.facts import BrokerFacts
from amqflow.topology.model import Exchange, Queue
from amqflow.topology.names import MOVING, RUN_TOKEN, MovingNames
from amqflow.transport.detour import GRACE, LEASE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from amqflow.management import Management
    from amqflow.protocol import Envelope
    from amqflow.topology.plan import Replace
    from amqflow.transport import Consumer, Delivery, Transport

log = get_logger("amqflow.provision")

#: Our consumer's priority; workers have 0 unless somebody says otherwise.
PRIORITY: Final = 1_000_000
#: Seconds without an arrival before the queue is deleted.
QUIET: Final = 2.0
#: Queues replaced at one time.
AT_ONCE: Final = 4
#: Seconds between two looks.
EVERY: Final = 0.2
#: What a policy may set by which a queue drops messages.
LIMITING: Final = frozenset(
    {"delivery-limit", "expires", "max-length", "max-length-bytes", "message-ttl"}
)
#: Seconds between two looks for bindings that are new.
LOOK: Final = 1.0
#: Seconds between two tries to be the only one.
LOCKED: Final = 2.0
#: Seconds without progress after which a migration gives up; it may be gone on with later.
PATIENCE: Final = 300.0
#: From here on transient queues are denied (RabbitMQ release notes, 4.3).
_DURABLE_ONLY: Final = (4, 3)


class Migration:
    """The replacement of one queue, from wherever an earlier one stopped to its end."""

    def __init__(
        self,
        queue: Queue,
        transport: Transport,
        management: Management,
        *,
        on_step: Callable[[str, int, int], None] = lambda *_: None,
        patience: float = PATIENCE,
    ) -> None:
        """Prepare it; nothing happens before :meth:`run`.

        Args:
            queue: As it is wanted.
            transport: The door to the broker.
            management: Bindings, and messages that consumers hold, which AMQP does not tell.
            on_step: Told what is being done: the step, messages moved, messages left (about).
            patience: Seconds without progress until it gives up.
        """
        self._queue = queue
        self._transport = transport
        self._management = management
        self._on_step = on_step
        self._patience = patience
        self._names = MovingNames(queue.name)
        self._facts = BrokerFacts((4, 0))
        self._holder: Consumer | None = None
        self._tenure = 0
        self._looked = float("-inf")

    async def run(self) -> None:
        """Replace the queue.

        Raises:
            ReplaceRefused: the queue cannot be replaced this way; nothing was changed.
            BrokerUnavailable: there was no progress for too long, or the broker went away. Apply
                again: it goes on where it stopped.
            TopologyMismatch: somebody declared the old queue again.
            ManagementUnavailable, AccessRefused: as they say.
        """
        self._facts = BrokerFacts((await self._transport.server()).version)
        async with self._alone():
            await self._replace()

    async def _replace(self) -> None:
        begun = await self._begun()
        if await self._old_stands():
            await self._refuse_impossible()
            await self._scaffold()
            began = _now()
            await self._divert()
            await self._drain_and_swap(began)
        elif not begun:
            return
        await self._refill()
        await self._restore()
        await self._finish()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Be the only migration of this queue; whoever dies makes room for the next."""
        lock, door = self._names.lock, self._transport
        end = _now() + self._patience
        while True:
            await again(
                lambda: door.declare_queue(
                    lock,
                    durable=self._facts.version >= _DURABLE_ONLY,
                    auto_delete=True,
                    arguments={"x-queue-type": "classic"},
                )
            )
            holder = door.consume(lock, lambda _: None, prefetch=1, exclusive=True)
            try:
                await holder.wait_active(LOCKED)
            except BrokerUnavailable as error:
                await holder.close()
                if _now() < end:
                    self._on_step("waiting for another migration of it", 0, 0)
                    continue
                message = (
                    f"another `apply --migrate` has been at queue {self._queue.name!r} for "
                    f"{self._patience:g} s: let it end, then apply again"
                )
                raise BrokerUnavailable(message) from error
            except BaseException:
                await holder.close()
                raise
            break
        self._holder, self._tenure = holder, holder.generation
        try:
            yield
        finally:
            await holder.close()

    def _check_alone(self) -> None:
        """Be sure that no other migration has taken over; what comes next cannot be undone."""
        holder = self._holder
        if holder is None or not holder.active or holder.generation != self._tenure:
            message = (
                f"the connection was lost while replacing queue {self._queue.name!r}; nothing is "
                "lost, apply again"
            )
            raise BrokerUnavailable(message)

    # -- where it stands -------------------------------------------------------------------

    async def _begun(self) -> bool:
        names = self._names
        exchanges = (names.mark, names.entry, names.hold)
        queues = (names.hold, names.void, names.receipts("out"), names.receipts("back"))
        there = [await self._exchange_there(name) for name in exchanges]
        return any(there) or any([await self._there(name) for name in queues])

    async def _old_stands(self) -> bool:
        """Whether the queue is still the old one. One that is missing is declared as wanted."""
        try:
            await create(self._queue, self._transport)
        except TopologyMismatch:
            return True
        return False

    async def _refuse_impossible(self) -> None:
        found = await self._management.get(self._path())
        name = self._queue.name
        if found.get("exclusive") or found.get("auto_delete"):
            message = (
                f"queue {name!r} is exclusive or deletes itself: it goes with its consumers; stop "
                "them and apply again"
            )
            raise ReplaceRefused(message)
        end = _now() + COUNTED
        while found.get("messages") is None:  # a queue that was declared just now
            if _now() > end:
                message = (
                    f"the management API does not tell how many messages queue {name!r} has, nor "
                    "how many its consumers hold: turn its metrics collector on "
                    "(management_agent.disable_metrics_collector = false), then apply again"
                )
                raise ReplaceRefused(message)
            await asyncio.sleep(EVERY)
            found = await self._management.get(self._path())
        if str(found.get("type")) == "stream" and found.get("messages"):
            message = (
                f"queue {name!r} is a stream and holds messages: reading takes none out, so they "
                "cannot be moved; give the new queue another name"
            )
            raise ReplaceRefused(message)
        if (found.get("arguments") or {}).get("x-single-active-consumer") and found.get(
            "consumers"
        ):
            message = (
                f"queue {name!r} has a single active consumer, and ours would get nothing beside "
                "it: stop its workers, then apply again"
            )
            raise ReplaceRefused(message)

    def _path(self) -> str:
        return self._management.path("queues", self._queue.name)

    # -- 1. divert -------------------------------------------------------------------------

    async def _scaffold(self) -> None:
        """Declare what messages wait in and pass through; the mark comes last."""
        names, door = self._names, self._transport
        await self._refuse_policies()
        await create(Queue(names.hold, delivery_limit=self._facts.no_delivery_limit), door)
        await create(Exchange(names.hold, "fanout"), door)
        await again(lambda: door.bind_queue(names.hold, names.hold))
        await create(
            Exchange(names.entry, "fanout", arguments={"alternate-exchange": names.hold}), door
        )
        await create(Queue(names.void, delivery_limit=self._facts.no_delivery_limit), door)
        await self._declare_receipts("out")
        await create(Exchange(names.mark, "fanout"), door)

    async def _refuse_policies(self) -> None:
        """Refuse a policy by which messages that wait beside the queue would be dropped.

        Of all that match, the one of the highest priority is in force (RabbitMQ docs, "Policies").
        """
        names = self._names
        ours = (names.hold, names.void, names.receipts("out"), names.receipts("back"))
        for kind in ("policies", "operator-policies"):
            try:
                policies = await self._management.get(self._management.path(kind))
            except (AccessRefused, NotFound):
                continue  # who may not look at policies has set none; older brokers lack a kind
            for queue in ours:
                matching = [one for one in policies if _applies(one, queue)]
                policy = max(matching, key=lambda one: int(one["priority"]), default=None)
                limits = LIMITING.intersection(policy["definition"] if policy else ())
                if policy and limits:
                    message = (
                        f"policy {policy['name']!r} sets {', '.join(sorted(limits))} on {queue!r}, "
                        f"where the messages of queue {self._queue.name!r} are to wait: let its "
                        f"pattern leave out names that begin with {MOVING!r}, then apply again"
                    )
                    raise ReplaceRefused(message)

    async def _declare_receipts(self, way: str) -> None:
        await again(
            lambda: self._transport.declare_queue(
                self._names.receipts(way),
                # Receipts must not outlive the broker; in memory only, of the last few.
                durable=self._facts.version >= _DURABLE_ONLY,
                arguments={"x-queue-type": "classic", "x-max-length": 8 * WINDOW},
            )
        )

    async def _divert(self) -> None:
        names, door = self._names, self._transport
        self._on_step("moving its bindings", 0, 0)
        bindings = [
            one
            for one in await self._management.get(self._path() + "/bindings")
            if one["source"] and not one["source"].startswith(MOVING)
        ]
        if bindings:
            await again(lambda: door.bind_queue(self._queue.name, names.entry))
        for one in bindings:
            source, key, arguments = one["source"], one["routing_key"], one["arguments"]
            await door.bind_exchange(names.entry, source, key, arguments)
            await self._unbind(one)
        await again(lambda: door.unbind_queue(self._queue.name, names.entry))

    async def _divert_new(self) -> None:
        """Divert what somebody has bound meanwhile, as a worker does that starts."""
        if _now() < self._looked + LOOK:
            return
        self._looked = _now()
        for one in await self._management.get(self._path() + "/bindings"):
            source = one["source"]
            if source and not source.startswith(MOVING):
                await self._transport.bind_exchange(
                    self._names.entry, source, one["routing_key"], one["arguments"]
                )
                await self._unbind(one)

    async def _unbind(self, binding: Mapping[str, Any]) -> None:
        """Take a binding away by the API's own key: over AMQP, an argument of another integer
        type than it was bound with would not match, without a word.
        """  # noqa: D205 - one sentence
        kind = "q" if binding["destination_type"] == "queue" else "e"
        path = self._management.path(
            "bindings",
            "e",
            binding["source"],
            kind,
            binding["destination"],
            binding["properties_key"],
        )
        await self._management.delete(path)

    # -- 2. and 3. drain, swap -------------------------------------------------------------

    async def _drain_and_swap(self, began: float) -> None:
        name, hold = self._queue.name, self._names.hold

        async def drain(mover: Mover) -> None:
            started = _now()
            async for left in self._watched(mover, name, "taking its messages out"):
                await self._divert_new()
                quiet = max(started, began + LEASE + GRACE, mover.arrived_at) + COUNTED
                if left or mover.under_way or _now() < quiet or await self._held(name) != 0:
                    continue
                if mover.broken is not None:
                    continue
                mover.insist = True  # what it takes now has no queue to go back to
                if await self._deleted():
                    break
                mover.insist = False
            await mover.settled()

        await self._run("out", name, hold, drain)
        await create(self._queue, self._transport)

    async def _held(self, queue: str) -> int | None:
        """Return how many messages a queue has, those that consumers hold too; None: not told."""
        found = await self._management.get(self._management.path("queues", queue))
        count = found.get("messages")
        return None if count is None else int(count)

    async def _deleted(self) -> bool:
        """Delete the old queue, our consumer still on it; False where a message came meanwhile.

        What somebody who knows of no detour publishes up to now is still taken out.
        """
        found = await self._management.get(self._path())
        classic = str(found.get("type")) == "classic"  # others know no such condition
        self._check_alone()
        try:
            # Once: a second try might meet the new queue.
            await self._transport.delete_queue(self._queue.name, if_empty=classic)
        except TopologyMismatch:
            return False
        return True

    # -- 4. refill -------------------------------------------------------------------------

    async def _refill(self) -> None:
        names, door = self._names, self._transport
        if not await self._there(names.hold):
            return  # it was all done before
        await self._declare_receipts("back")
        first = await self._ready(names.hold)
        bound = False

        async def refill(mover: Mover) -> None:
            nonlocal bound
            async for left in self._watched(mover, names.hold, "putting its messages back"):
                if not bound and (not left or mover.moved > 2 * first):
                    # Now, so that what is published meanwhile comes behind what waited.
                    if await self._exchange_there(names.entry):
                        await again(lambda: door.bind_queue(self._queue.name, names.entry))
                    bound = True
                elif left or mover.under_way or _now() < mover.arrived_at + QUIET:
                    continue
                elif await self._held(names.hold) == 0:
                    break

        await self._run("back", names.hold, self._queue.name, refill)

    # -- 5. restore ------------------------------------------------------------------------

    async def _restore(self) -> None:
        names, door = self._names, self._transport
        self._on_step("restoring its bindings", 0, 0)
        if not await self._exchange_there(names.entry):
            return
        path = self._management.path("exchanges", names.entry) + "/bindings/destination"
        for one in await self._management.get(path):
            source, key, arguments = one["source"], one["routing_key"], one["arguments"]
            if source:
                await door.bind_queue(self._queue.name, source, key, arguments)
                await self._unbind(one)

    async def _finish(self) -> None:
        """Take the mark away, and what stands of ours once no publisher uses it any more."""
        names, door = self._names, self._transport
        await again(lambda: door.delete_exchange(names.mark))
        self._on_step("waiting for publishers to take the new queue", 0, 0)
        await asyncio.sleep(LEASE + GRACE)
        self._check_alone()
        await again(lambda: door.delete_exchange(names.entry))
        if await self._there(names.hold) and await self._ready(names.hold):
            await self._refill()  # of a publisher that stood still for longer than its lease
        for way in ("out", "back"):
            await self._end_runs(way)
            await door.delete_queue(names.receipts(way))
        await door.delete_exchange(names.hold)
        for name in (names.hold, names.void):
            await door.delete_queue(name)
        self._on_step("done", 0, 0)

    # -- parts of the steps ----------------------------------------------------------------

    async def _run(
        self, way: str, source: str, target: str, work: Callable[[Mover], Awaitable[None]]
    ) -> None:
        """Move from one queue to another until ``work`` returns, in as many runs as it takes."""
        since = _now()
        while True:
            mover = await self._mover(way, source, target)
            try:
                return await work(mover)
            except _Interrupted as interrupted:
                error = interrupted.error
                if isinstance(error, NotFound):
                    message = (
                        f"another `apply --migrate` has taken over queue {self._queue.name!r}: "
                        "let it end, then apply again"
                    )
                    raise BrokerUnavailable(message) from error
                log.info("moving in a new run", queue=self._queue.name, error=str(error))
                if mover.moved:
                    since = _now()
                elif _now() - since > self._patience:
                    raise
            finally:
                await mover.close()
            await asyncio.sleep(PAUSE)
            if self._holder is not None:
                await self._holder.wait_active(self._patience)
                self._tenure = self._holder.generation

    async def _mover(self, way: str, source: str, target: str) -> Mover:
        """Start a run after the one before, whose last steps have left their receipts."""
        names, door = self._names, self._transport
        await self._end_runs(way)
        past = await (self._past_out() if way == "out" else self._past_back())
        token = new_id()[1 - RUN_TOKEN :]
        copies, notes = names.run(way, f"{token}c"), names.run(way, f"{token}n")
        for exchange in (copies, notes):
            await create(Exchange(exchange, "fanout"), door)
            await again(partial(door.bind_queue, names.receipts(way), exchange))
        await again(partial(door.bind_queue, target, copies))
        mover = Mover(
            door,
            source,
            copies,
            _numbered(token) if way == "out" else inbound,
            past,
            notes=notes if way == "out" else None,
            arguments={"x-priority": PRIORITY} if way == "out" else {},
        )
        await mover.start(self._patience)
        return mover

    async def _past_out(self) -> Past:
        """Declare void what has no note, then forget the receipts. Originals are all there."""
        names, door = self._names, self._transport
        made, noted = await self._receipts(names.receipts("out"))
        if void := set(made).difference(noted):
            await door.publish(listed(void), "", names.void, timeout=TIMEOUT)
        await again(partial(door.purge_queue, names.receipts("out")))
        return Past()

    async def _past_back(self) -> Past:
        made, _ = await self._receipts(self._names.receipts("back"))
        if await self._may_refuse():
            made = []
        void: list[bytes] = []
        if await self._there(self._names.void):
            _, void = await self._receipts(self._names.void)
        return Past(there=made, void=frozenset(void))

    async def _may_refuse(self) -> bool:
        """Whether the new queue may refuse a message whose receipt is written."""
        found = await self._management.get(self._path())
        settings = dict(found.get("effective_policy_definition") or {})
        for key, value in (found.get("arguments") or {}).items():
            settings[key.removeprefix("x-")] = value
        rejects = str(settings.get("overflow", "")).startswith("reject-publish")
        return rejects and not settings.keys().isdisjoint({"max-length", "max-length-bytes"})

    async def _end_runs(self, way: str) -> None:
        """Delete the exchanges of earlier runs: what is still on its way to them is refused."""
        found = await self._management.get(self._management.path("exchanges"))
        for name in [str(one["name"]) for one in found]:
            if self._names.is_run(way, name):
                await again(partial(self._transport.delete_exchange, name))

    async def _receipts(self, queue: str) -> tuple[list[bytes], list[bytes]]:
        """Return the digests of the copies in a queue, and those that lists in it name.

        All of it stays. An earlier reader that holds some of it is waited for.
        """
        copies: list[bytes] = []
        named: list[bytes] = []
        mark, marked = new_id(), asyncio.Event()

        def take(delivery: Delivery) -> None:
            digests = read_list(delivery)
            if digests is None:
                copies.append(digest(delivery))
            else:
                named.extend(digests)
            if delivery.envelope.message_id == mark:
                marked.set()

        consumer = self._transport.consume(queue, take, prefetch=0, exclusive=True)
        try:
            await consumer.wait_active(self._patience)
            # Behind all that is there: when this comes, everything has come.
            await self._transport.publish(
                replace(listed(()), message_id=mark), "", queue, timeout=TIMEOUT
            )
            async with asyncio.timeout(self._patience):
                await marked.wait()
        except TimeoutError:
            message = f"queue {queue!r} hands out no receipts; apply again"
            raise BrokerUnavailable(message) from None
        finally:
            await consumer.close()
        return copies, named

    async def _watched(self, mover: Mover, queue: str, step: str) -> AsyncIterator[int]:
        """Yield the ready messages of a queue, again and again, while there is progress."""
        progress, since = -1, _now()
        while True:
            if mover.broken is not None:
                raise _Interrupted(mover.broken)
            left = await self._ready(queue)
            self._on_step(step, mover.moved, left + mover.under_way)
            if mover.moved != progress or not (left or mover.under_way):
                if left or mover.under_way or mover.moved != progress:
                    since = _now()
                progress = mover.moved
            if _now() - since > self._patience:
                reason = mover.problem or (
                    "consumers hold messages of it" if not left else "none of its messages comes"
                )
                message = (
                    f"replacing queue {self._queue.name!r} stopped while {step}: {reason} for "
                    f"{self._patience:g} s. Nothing is lost; apply again, it goes on from here"
                )
                raise BrokerUnavailable(message)
            yield left
            await asyncio.sleep(EVERY)

    async def _ready(self, queue: str) -> int:
        counts = await again(lambda: self._transport.declare_queue(queue, passive=True))
        return counts.messages

    async def _there(self, queue: str) -> bool:
        try:
            await again(lambda: self._transport.declare_queue(queue, passive=True))
        except NotFound:
            return False
        return True

    async def _exchange_there(self, name: str) -> bool:
        try:
            await again(lambda: self._transport.declare_exchange(name, passive=True))
        except NotFound:
            return False
        return True


def _applies(policy: Mapping[str, Any], queue: str) -> bool:
    """Whether a policy is meant for a queue of this name."""
    if policy.get("apply-to") == "exchanges":
        return False
    try:
        return re.search(str(policy["pattern"]), queue) is not None
    except re.error:
        return False  # what only Erlang's expressions know


def _numbered(token: str) -> Callable[[Delivery], Envelope]:
    """Return what makes copies of one run, each with a number of its own."""
    numbers = itertools.count()
    return lambda delivery: outbound(delivery, f"{token}-{next(numbers)}")


class _Interrupted(BrokerUnavailable):
    """A run of the mover ended with a publish of which nobody knows what became."""

    def __init__(self, error: AmqflowError) -> None:
        super().__init__(f"moving stopped: {error}. Nothing is lost; apply again")
        self.error = error


def _now() -> float:
    return asyncio.get_running_loop().time()


def replacer(
    transport: Transport,
    management: Management,
    *,
    on_step: Callable[[str, str, int, int], None] = lambda *_: None,
    patience: float = PATIENCE,
) -> Callable[[Replace], Awaitable[None]]:
    """Return what replaces the queues of a plan, a few at a time.

    Args:
        transport: The door to the broker.
        management: The broker's API.
        on_step: Told the queue, the step, messages moved, messages left (about).
        patience: Seconds without progress until it gives up.
    """
    slots = asyncio.Semaphore(AT_ONCE)

    async def replaced(change: Replace) -> None:
        part = change.part
        if not isinstance(part, Queue):
            raise ReplaceRefused(
                f"exchange {part.name!r} cannot be replaced without a moment in which what is "
                "published to it is refused or dropped: give the new one another name, move "
                "bindings and producers to it, then prune the old one"
            )
        async with slots:
            await Migration(
                part,
                transport,
                management,
                on_step=lambda step, moved, left: on_step(part.name, step, moved, left),
                patience=patience,
            ).run()

    return replaced
