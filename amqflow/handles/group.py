"""The handle on a group: the handles on its members, and all of them at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

from amqflow.abc import FAILURE, PENDING, PROPAGATE_STATES, SUCCESS, TERMINAL_STATES
from amqflow.errors import ResultTimeout, StoreError
from amqflow.handles.base import Handle, check_signal, current_reader, known_id, seconds_to_wait
from amqflow.handles.joining import refuse_in_task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence

    from amqflow.abc import Outcome, ResultReader
    from amqflow.handles.result import AsyncResult

    Member: TypeAlias = "AsyncResult[Any] | GroupResult"


class GroupResult(Handle):
    """The results of a group, in its order: Celery's verbs, each with its ``a`` twin.

    It is a sequence of its members' handles. ``async for`` and :meth:`as_completed` yield them as
    they end instead.
    """

    __slots__ = ("results",)

    #: The members' handles; a member that ends in a group is a GroupResult itself.
    results: list[Member]

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        results: Iterable[Member] = (),
        reader: ResultReader | None = None,
        *,
        app: ResultReader | None = None,
        parent: Handle | None = None,
    ) -> None:
        """Hold a group.

        Args:
            id: The group's id.
            results: The members' handles, in the group's order.
            reader: The application; None: the one made last.
            app: Celery's name of it.
            parent: The handle on what ran before it.

        Raises:
            ValueError: The id is None, or no text.
            ConfigurationError: There is no application.
        """
        self.id = known_id("GroupResult", id)
        self.results = list(results)
        self.parent = parent
        self._reader = reader or app or current_reader("GroupResult")

    # -- waiting ----------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        callback: Callable[[str, Any], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """Wait for all members and return their results in order; blocks.

        Args:
            timeout: Seconds to wait for all of them; None: for as long as it takes; 0: look, and
                do not wait.
            propagate: Raise the first failure as soon as it is there; False: every failed
                member's place holds its exception.
            interval: Celery's, ignored: waiting here is push.
            callback: Called with (id, value) for each member as it ends; the list is then empty.
            disable_sync_subtasks: False: allow waiting inside a task.

        Raises:
            ResultTimeout: Not all came in time; the message says how many, and why.
            Exception: A member's own (see :meth:`AsyncResult.get`).
            SyncInLoop: Called inside a running event loop.
            JoinInTask: Called inside a task.
        """
        del interval
        refuse_in_task(self._reader, disabled=disable_sync_subtasks)
        if callback is not None:
            for member in self.as_completed(timeout, disable_sync_subtasks=False):
                callback(member.id, member.get(propagate=propagate, disable_sync_subtasks=False))
            return []
        return self._run(self.aget(timeout, propagate, disable_sync_subtasks=False), "aget")

    join = get
    join_native = get

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        *,
        disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """Async twin of :meth:`get`."""
        refuse_in_task(self._reader, disabled=disable_sync_subtasks)
        timeout = seconds_to_wait(timeout)
        if timeout == 0:
            return await self._now(propagate=propagate)
        waiting = [
            asyncio.ensure_future(member.aget(None, propagate, disable_sync_subtasks=False))
            for member in self.results
        ]
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.gather(*waiting)
        except TimeoutError as error:
            if isinstance(error, ResultTimeout):
                raise
            missing = [
                member
                for member, one in zip(self.results, waiting, strict=True)
                if not one.done() or one.cancelled()
            ]
            if not missing:  # the last came as the time was up
                return [one.result() for one in waiting]
            raise await self._late(timeout or 0.0, missing) from error
        finally:
            for one in waiting:
                one.cancel()

    ajoin = aget

    async def _now(self, *, propagate: bool) -> list[Any]:
        """Return what all members have given already: one look at the store, no wait."""
        await self.aoutcomes()
        missing = [member for member in self.results if not has_ended(member)]
        if not missing:
            return [
                await member.aget(0, propagate, disable_sync_subtasks=False)
                for member in self.results
            ]
        for leaf in self._leaves():
            if propagate and leaf.ended is not None and leaf.ended.state in PROPAGATE_STATES:
                await leaf.aget(0, disable_sync_subtasks=False)
        raise await self._late(0.0, missing)

    async def _late(self, timeout: float, missing: Sequence[Member]) -> ResultTimeout:
        return ResultTimeout(
            f"{len(missing)} of {len(self.results)} members of group {self.id} gave no result "
            f"within {timeout:g} s; the first of them, {missing[0].id}: "
            f"{await missing[0].aexplain()}"
        )

    def __await__(self) -> Generator[Any, None, list[Any]]:
        """Wait for all results: ``await group(...).adelay()`` gives the handle, this the list."""
        return self.aget().__await__()

    def as_completed(
        self, timeout: float | None = None, *, disable_sync_subtasks: bool = True
    ) -> Iterator[Member]:
        """Yield the members' handles as they end, ready to be read; blocks in between.

        Raises:
            ResultTimeout: Not all ended within ``timeout`` seconds.
        """
        refuse_in_task(self._reader, disabled=disable_sync_subtasks)
        arrivals = self._run(self._watched(timeout), "__aiter__")
        try:
            while batch := self._run(arrivals.next(), "__aiter__"):
                yield from batch
        finally:
            self._run(arrivals.close(), "__aiter__")

    iterate = as_completed

    async def _watched(self, timeout: float | None) -> _Arrivals:
        return _Arrivals(self, timeout)

    async def aas_completed(
        self, timeout: float | None = None, *, disable_sync_subtasks: bool = True
    ) -> AsyncIterator[Member]:
        """Async twin of :meth:`as_completed`."""
        refuse_in_task(self._reader, disabled=disable_sync_subtasks)
        arrivals = _Arrivals(self, timeout)
        try:
            while batch := await arrivals.next():
                for member in batch:
                    yield member
        finally:
            await arrivals.close()

    def __aiter__(self) -> AsyncIterator[Member]:
        """Yield the members' handles as they end: ``async for member in result``."""
        return self.aas_completed()

    # -- looking ----------------------------------------------------------------------------

    async def aoutcomes(self) -> list[Outcome | None]:
        """Return what the store knows of each single member now, those of groups within included.

        One round trip for hundreds of them.
        """
        leaves = list(self._leaves())
        unknown = [leaf for leaf in leaves if leaf.ended is None]
        if unknown:
            found = await self._reader.fetch_outcomes([leaf.id for leaf in unknown])
            late = dict(zip((leaf.id for leaf in unknown), found, strict=True))
            for leaf in unknown:
                leaf.note(late[leaf.id])
        else:
            late = {}
        return [late.get(leaf.id) if leaf.ended is None else leaf.ended for leaf in leaves]

    async def astates(self) -> list[str]:
        """Return the state of each single member now, those of groups within included."""
        return [PENDING if one is None else one.state for one in await self.aoutcomes()]

    def _states(self) -> list[str]:
        return self._run(self.astates(), "astates")

    async def aready(self) -> bool:
        """Async twin of :meth:`ready`."""
        return all(state in TERMINAL_STATES for state in await self.astates())

    def ready(self) -> bool:
        """Return whether every member has ended; true of an empty group."""
        return all(state in TERMINAL_STATES for state in self._states())

    async def asuccessful(self) -> bool:
        """Async twin of :meth:`successful`."""
        return all(state == SUCCESS for state in await self.astates())

    def successful(self) -> bool:
        """Return whether every member has ended well."""
        return all(state == SUCCESS for state in self._states())

    async def afailed(self) -> bool:
        """Async twin of :meth:`failed`."""
        return any(state == FAILURE for state in await self.astates())

    def failed(self) -> bool:
        """Return whether a member has failed."""
        return any(state == FAILURE for state in self._states())

    async def awaiting(self) -> bool:
        """Async twin of :meth:`waiting`."""
        return not await self.aready()

    def waiting(self) -> bool:
        """Return whether a member has not ended."""
        return not self.ready()

    async def acompleted_count(self) -> int:
        """Async twin of :meth:`completed_count`."""
        return sum(state == SUCCESS for state in await self.astates())

    def completed_count(self) -> int:
        """Return how many members have ended well, as in Celery."""
        return sum(state == SUCCESS for state in self._states())

    @property
    def children(self) -> list[Handle]:
        """The members' handles, as in Celery."""
        return list(self.results)

    async def achildren(self) -> list[Handle]:
        """Return the members' handles."""
        return list(self.results)

    async def await_end(self) -> None:
        """Wait until every member has ended, however it did."""
        await asyncio.gather(*(member.await_end() for member in self.results))

    async def aexplain(self) -> str:
        """Say where the first member without a result is likely to be."""
        for member in self.results:
            if not await member.aready():
                return await member.aexplain()
        return "every member has ended"

    async def _label(self) -> str:
        states = await self.astates()
        done = sum(state in TERMINAL_STATES for state in states)
        return f"group {self.id}<br/>{done} of {len(states)} ended"

    def _leaves(self) -> Iterator[AsyncResult[Any]]:
        """Yield the handles on single members, those of groups within included."""
        for member in self.results:
            if isinstance(member, GroupResult):
                yield from member._leaves()  # noqa: SLF001 - its own kind
            else:
                yield member

    def maybe_throw(
        self, callback: Callable[[str, Any], object] | None = None, propagate: bool = True
    ) -> None:
        """Raise the exception of the first member that has failed; waits for none.

        Args:
            callback: Called with (id, value) for each member before it.
            propagate: False: raise nothing.
        """
        self._run(self.amaybe_throw(callback, propagate), "amaybe_throw")

    maybe_reraise = maybe_throw

    async def amaybe_throw(
        self, callback: Callable[[str, Any], object] | None = None, propagate: bool = True
    ) -> None:
        """Async twin of :meth:`maybe_throw`."""
        await self.aoutcomes()
        for member in self.results:
            if isinstance(member, GroupResult):
                await member.amaybe_throw(callback, propagate)
            else:
                await member.amaybe_throw(propagate, callback)

    # -- its members ------------------------------------------------------------------------

    def add(self, result: Member) -> None:
        """Add a handle, where it is not among them, as in Celery; the tasks know nothing of it."""
        if result not in self.results:
            self.results.append(result)

    def update(self, results: Iterable[Member]) -> None:
        """Add several handles."""
        for result in results:
            self.add(result)

    def remove(self, result: Member | str) -> None:
        """Take a handle out, given itself or by its id; its task goes on.

        Raises:
            KeyError: It is not among them.
        """
        if not self._take_out(result):
            raise KeyError(result)

    def discard(self, result: Member | str) -> None:
        """Take a handle out where it is among them."""
        self._take_out(result)

    def clear(self) -> None:
        """Take all handles out."""
        self.results.clear()

    def _take_out(self, result: Member | str) -> bool:
        wanted = result if isinstance(result, str) else result.id
        for place, member in enumerate(self.results):
            if member.id == wanted:
                del self.results[place]
                return True
        return False

    # -- ending -----------------------------------------------------------------------------

    def revoke(self, *, terminate: bool = False, signal: Any = None) -> None:
        """Revoke every member that has not ended; what runs ends too with ``terminate``.

        ``signal``: as :meth:`AsyncResult.revoke` takes it.
        """
        self._run(self.arevoke(terminate=terminate, signal=signal), "arevoke")

    async def arevoke(self, *, terminate: bool = False, signal: Any = None) -> None:
        """Async twin of :meth:`revoke`."""
        check_signal(signal)
        await self._reader.arevoke([leaf.id for leaf in self._leaves()], terminate=terminate)

    def forget(self) -> None:
        """Drop every member's result from the store."""
        self._run(self.aforget(), "aforget")

    async def aforget(self) -> None:
        """Async twin of :meth:`forget`."""
        await self._reader.forget_outcome(self.id)
        await asyncio.gather(*(leaf.aforget() for leaf in self._leaves()))

    # -- keeping ----------------------------------------------------------------------------

    def as_tuple(self) -> tuple[Any, Any]:
        """Return Celery's tuple form: ``((id, parent), [member, …])``."""
        return self._id_and_parent(), [member.as_tuple() for member in self.results]

    def save(self) -> None:
        """Keep the group in the store, so that :meth:`restore` finds it by its id, as in Celery."""
        self._run(self.asave(), "asave")

    async def asave(self) -> None:
        """Async twin of :meth:`save`."""
        await self._reader.save_group(self.id, self.as_tuple())

    def delete(self) -> None:
        """Drop a saved group from the store; its members' results stay."""
        self._run(self.adelete(), "adelete")

    async def adelete(self) -> None:
        """Async twin of :meth:`delete`."""
        await self._reader.save_group(self.id, None)

    @classmethod
    def restore(
        cls,
        id: str,  # noqa: A002 - Celery's name
        app: ResultReader | None = None,
    ) -> GroupResult | None:
        """Return a saved group, also one that Celery saved; None where there is none.

        Args:
            id: The group's id.
            app: The application; None: the one made last.
        """
        app = app or current_reader("GroupResult.restore")
        return app.run(cls.arestore(id, app), twin="arestore")

    @classmethod
    async def arestore(
        cls,
        id: str,  # noqa: A002 - Celery's name
        app: ResultReader | None = None,
    ) -> GroupResult | None:
        """Async twin of :meth:`restore`."""
        # The tuples know both kinds of handles, so they come after this module.
        from amqflow.handles.tuples import handle_from_tuple  # noqa: PLC0415

        app = app or current_reader("GroupResult.restore")
        kept = await app.load_group(id)
        if kept is None:
            return None
        found = handle_from_tuple(kept, app)
        if not isinstance(found, GroupResult):
            raise StoreError(f"what is saved as group {id} is no group")
        return found

    # -- as a sequence ----------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.results)

    def __iter__(self) -> Iterator[Member]:
        """Yield the members' handles in the group's order, ended or not, as in Celery."""
        return iter(self.results)

    def __getitem__(self, index: int) -> Member:
        """Return the handle of the member at a place."""
        return self.results[index]

    def __bool__(self) -> bool:
        """Be true, as an object; of an empty group too."""
        return True

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return self.id == other.id and self.results == other.results
        return NotImplemented

    __hash__ = Handle.__hash__

    def __repr__(self) -> str:
        shown = ", ".join(member.id for member in self.results[:3])
        more = ", …" if len(self.results) > 3 else ""  # noqa: PLR2004 - as shown
        return f"<{type(self).__name__}: {self.id} [{shown}{more}]>"


def has_ended(member: Member) -> bool:
    """Return whether a member's handle has seen its end; of a group within, all of its."""
    if isinstance(member, GroupResult):
        return all(map(has_ended, member.results))
    return member.ended is not None


class _Arrivals:
    """The members of one group as they end, in batches: what ended since the last look."""

    def __init__(self, group: GroupResult, timeout: float | None) -> None:
        """Wait for every member, in the running loop; ``timeout`` seconds for all of them."""
        loop = asyncio.get_running_loop()
        self._group = group
        self._timeout = timeout = seconds_to_wait(timeout)
        self._until = None if timeout is None else loop.time() + timeout
        self._ended: asyncio.Queue[Member | Exception] = asyncio.Queue()
        self._left = len(group.results)
        #: Whether there is no time to wait, and the store is still to be asked once.
        self._looks = timeout == 0
        self._waiting = (
            []
            if self._looks
            else [asyncio.create_task(self._wait(member)) for member in group.results]
        )

    async def _wait(self, member: Member) -> None:
        try:
            await member.await_end()
        except Exception as error:  # noqa: BLE001 - whatever it is, the reader is told
            self._ended.put_nowait(error)
        else:
            self._ended.put_nowait(member)

    async def next(self) -> list[Member]:
        """Return the members that have ended meanwhile, at least one; empty: that was all.

        Raises:
            ResultTimeout: None ended until the deadline.
        """
        if not self._left:
            return []
        if self._looks:
            self._looks = False
            await self._group.aoutcomes()
            for member in filter(has_ended, self._group.results):
                self._ended.put_nowait(member)
        try:
            async with asyncio.timeout_at(self._until):
                batch = [await self._ended.get()]
        except TimeoutError as error:
            raise ResultTimeout(
                f"{self._left} of {len(self._group)} members of group {self._group.id} did not "
                f"end within {self._timeout:g} s: {await self._group.aexplain()}"
            ) from error
        while not self._ended.empty():
            batch.append(self._ended.get_nowait())
        self._left -= len(batch)
        ended: list[Member] = []
        for one in batch:
            if isinstance(one, Exception):
                raise one
            ended.append(one)
        return ended

    async def close(self) -> None:
        """Stop waiting."""
        for one in self._waiting:
            one.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
