"""What one event loop uses of an application: its transport, producer, stores and workflows."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from amqflow.app.replies import Replies
from amqflow.errors import AppClosed, NoResultStore
from amqflow.guards.blobs import Blobs, ClaimCheck
from amqflow.guards.rates import open_rates
from amqflow.guards.revocations import open_revocations
from amqflow.guards.shelves import default_shelf, open_shelf
from amqflow.producer import Producer
from amqflow.protocol import new_id
from amqflow.results.blobbed import BlobbedStore
from amqflow.results.open import open_store
from amqflow.tasks.context import parent_request
from amqflow.tasks.inherit import Inheritance
from amqflow.topology import AppNames
from amqflow.transport import Transport, open_transport
from amqflow.workflow import Place, Unfolder
from amqflow.workflow.add import add_member
from amqflow.workflow.launch import Launcher
from amqflow.workflow.send import child_of, sending
from amqflow.workflow.stores import Lifetimes, open_chords

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from amqflow.abc import BlobStore, Call, Outcome, ResultStore, Sent, SentNode
    from amqflow.app.application import App
    from amqflow.canvas import Node
    from amqflow.guards.rates import Rates
    from amqflow.guards.revocations import Revocations
    from amqflow.settings import Settings
    from amqflow.tasks import Request
    from amqflow.workflow.stores import ChordStore


class Runtime:
    """What one event loop uses of an application: its transport, producer and store."""

    def __init__(self, app: App) -> None:
        """Make the parts; nothing connects before it is needed."""
        settings = app.conf.settings
        self._app = app
        self.pid = os.getpid()
        self.hosted = app.hosted
        self.transport: Transport = open_transport(app.broker_url, name=f"amqflow {app.main}")
        self._replies = Replies(self.transport, settings.publish_timeout)
        self.blobs: BlobStore | None = None
        self.claims: ClaimCheck | None = None
        self._open_blobs(settings)
        self.store: ResultStore | None = self._blobbed(
            open_store(
                app.backend_url,
                app_name=app.main,
                result_expires=settings.result_expires or 0.0,
                replies=self._replies,
            ),
            settings,
        )
        self.chords: ChordStore | None = open_chords(
            app.backend_url,
            app_name=app.main,
            lifetimes=Lifetimes.of(settings.workflow_deadline, settings.result_expires),
        )
        self.unfolder = Unfolder(
            app.main,
            "" if self.chords is None else self.chords.kind,
            app.backend_url,
            Inheritance.of(settings),
        )
        self.revocations: Revocations | None = open_revocations(
            app.backend_url, app_name=app.main, clock=app.clock
        )
        self.rates: Rates | None = open_rates(app.backend_url, app_name=app.main, clock=app.clock)
        #: Told of the outcomes of tasks that a revoke has ended before they began.
        self.after_revoke: list[Callable[[list[Outcome]], Awaitable[None]]] = []
        self._opened: asyncio.Task[None] | None = None
        self._reply_to: str | None = None
        self._producer: tuple[object, Producer] | None = None
        #: Replies need a queue before the first call is sent; other stores open when first read.
        self.replies_needed = self.store is not None and not self.store.capabilities.fences

    def _open_blobs(self, settings: Settings) -> None:
        """Make the claim check, where there is a place for what is large."""
        url = settings.blob_store or default_shelf(self._app.backend_url)
        if url is None or settings.blob_threshold is None:
            return
        most = settings.blob_max_size
        shelf = open_shelf(url, app_name=self._app.main, most=16 * most)
        self.blobs = Blobs(shelf, expires=settings.blob_expires, most=most)
        # What the broker would refuse is kept elsewhere, whatever the threshold says.
        threshold = min(settings.blob_threshold, settings.max_message_size)
        self.claims = ClaimCheck(self.blobs, threshold=threshold, clock=self._app.clock)

    def _blobbed(self, store: ResultStore | None, settings: Settings) -> ResultStore | None:
        if store is None or self.blobs is None or settings.blob_threshold is None:
            return store
        return BlobbedStore(
            store,
            self.blobs,
            threshold=settings.blob_threshold,
            keep=settings.result_expires or 0.0,
        )

    @property
    def producer(self) -> Producer:
        """The producer by the settings in force: what is set after the first call counts too."""
        app, settings = self._app, self._app.conf.settings
        if self._producer is None or self._producer[0] is not settings:
            producer = Producer(
                self.transport,
                app_name=app.main,
                settings=settings,
                options_of=app.options_of,
                routes=app.routes,
                middleware=app.middleware,
                clock=app.clock,
                reply_to=lambda: self._reply_to,
                delays=app.delays,
                reached=app.reached,
                topology_file=app.topology_file,
                claims=self.claims,
            )
            self._producer = (settings, producer)
        return self._producer[1]

    @property
    def launcher(self) -> Launcher:
        """What starts compositions here."""
        settings = self._app.conf.settings
        return Launcher(
            self.producer,
            self.chords,
            self.store,
            AppNames(self._app.main),
            self._app.backend_url,
            settings.workflow_deadline,
        )

    async def send_call(self, call: Call) -> Sent:
        """Send one call; its end may be waited for already when it goes out."""
        if self.replies_needed:
            await self.opened_store()
        if self.store is None or not self._keeps_fresh(call):
            return await self.producer.send(call)
        task_id = new_id()
        expected = self.store.expect(task_id)
        # A copy: a call that is sent again is another one.
        sent = await self.producer.send(replace(call, task_id=task_id) if expected else call)
        return replace(sent, expected=expected) if expected else sent

    def _keeps_fresh(self, call: Call) -> bool:
        """Whether a call goes out now, under an id of its own, and its result is kept."""
        if call.task_id is not None or call.eta is not None:
            return False
        ignore = call.ignore_result
        if ignore is None and (options := self._app.options_of(call.task)) is not None:
            ignore = options.ignore_result
        return not (self._app.conf.settings.task_ignore_result if ignore is None else ignore)

    async def opened_store(self) -> ResultStore:
        """Return the store, connected.

        Raises:
            NoResultStore: the application keeps no results.
            StoreUnavailable: it cannot be reached now; ask again.
            AppClosed: the application was closed meanwhile.
        """
        store = self.store
        if store is None:
            message = (
                "this application keeps no results: give AmqFlow(backend=…) a store such as "
                "redis://localhost:6379/0, or do not ask for the result"
            )
            raise NoResultStore(message)
        if self._opened is None or (
            self._opened.done() and (self._opened.cancelled() or self._opened.exception())
        ):
            self._opened = asyncio.get_running_loop().create_task(store.open())
        opening = self._opened
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not opening.cancelled() or (task is not None and task.cancelling()):
                raise
            message = f"the application {self._app.main!r} was closed while this call was under way"
            raise AppClosed(message) from None
        self._reply_to = store.reply_to
        return store

    async def send_composition(
        self,
        node: SentNode,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Any:
        """Send a chain, group or chord (see :class:`amqflow.abc.Dispatcher`)."""
        if self.replies_needed:
            await self.opened_store()
        parent = parent_request()
        place = Place()
        if parent is not None:
            heritage = self.unfolder.inherits.from_request(parent)
            place = Place(parent.root_id or parent.id, parent.id, heritage=heritage)
        sent = sending(
            cast("Node[Any]", node),
            args,
            kwargs,
            options,
            unfolder=self.unfolder,
            place=place,
            reader=self._app,
        )
        await self.launcher.send(sent.launches)
        if parent is not None:
            parent.add_child(child_of(sent.handle))
        return sent.handle

    async def send_member(self, node: Node[Any], request: Request) -> Any:
        """Send one more member of the chord that a running task is in (``self.add_to_chord``).

        Raises:
            ValueError: It is in none.
            ConfigurationError: The chord is over, or kept elsewhere.
        """
        return await add_member(
            node, request, launcher=self.launcher, unfolder=self.unfolder, reader=self._app
        )

    async def close(self) -> None:
        """Close store and transport."""
        if self.store is not None and self._opened is not None:
            # Still opening, it would connect after it was closed.
            self._opened.cancel()
            await asyncio.wait([self._opened])
            await self.store.close()
        if self.chords is not None:
            await self.chords.close()
        if self.blobs is not None:
            await self.blobs.close()
        if self.revocations is not None:
            await self.revocations.close()
        if self.rates is not None:
            await self.rates.close()
        await self._replies.close()
        await self.transport.close()
