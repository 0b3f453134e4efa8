"""A virtual host: its exchanges, queues, bindings and policies, and the way of a message."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from amqflow.broker.deadletter import letter, without_cycles
from amqflow.broker.exchange import Exchange
from amqflow.broker.exchanges import PREDECLARED
from amqflow.broker.policies import Policy, strongest
from amqflow.broker.queues import Queue, Stream
from amqflow.broker.queues.arguments import STREAM
from amqflow.broker.queues.settings import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.broker.bindings import Binding
    from amqflow.broker.connection import Connection
    from amqflow.broker.deadletter import Reason
    from amqflow.broker.message import Message
    from amqflow.broker.node import Node
    from amqflow.broker.tables import Table


class VirtualHost:
    """One virtual host of a broker."""

    def __init__(self, node: Node, name: str) -> None:
        """Begin with RabbitMQ's predeclared exchanges."""
        self.node = node
        self.name = name
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {
            exchange: Exchange(
                exchange,
                kind,
                durable=True,
                auto_delete=False,
                internal=exchange == "amq.rabbitmq.trace",
                arguments={},
            )
            for exchange, kind in PREDECLARED.items()
        }
        self.policies: dict[str, Policy] = {}
        #: The most connections a client may hold here, -1: any number.
        self.max_connections = -1
        self._incoming: dict[tuple[bool, str], dict[Binding, None]] = {}
        self._later: deque[Callable[[], None]] = deque()
        self._working = False

    # -- the way of a message --------------------------------------------------------------

    def route_name(self, exchange: str, message: Message) -> list[Queue] | None:
        """Return the queues a message reaches from an exchange; None where there is none."""
        found = self.exchanges.get(exchange)
        return None if found is None else self.route(found, message)

    def route(self, exchange: Exchange, message: Message) -> list[Queue]:
        """Return the queues a message reaches, each once.

        An exchange whose bindings take it nowhere hands it to its alternate exchange; one that is
        met again is not walked twice.
        """
        queues: dict[Queue, None] = {}
        todo = [exchange]
        seen = {exchange.name}
        while todo:
            source = todo.pop()
            taken = False
            onward: list[str] = []
            for binding in source.kind.route(message):
                taken = True
                if not binding.to_queue:
                    onward.append(binding.destination)
                elif (queue := self.queues.get(binding.destination)) is not None:
                    queues[queue] = None
            if not taken and source.alternate is not None:
                onward.append(source.alternate)
            for name in onward:
                if name not in seen and (further := self.exchanges.get(name)) is not None:
                    seen.add(name)
                    todo.append(further)
        return list(queues)

    def dead_letter(self, queue: Queue, message: Message, reason: Reason) -> None:
        """Publish a dead letter once, after what is being done now."""
        settings = queue.settings
        exchange = settings.dead_letter_exchange or ""
        source = queue.name

        def publish() -> None:
            found = self.exchanges.get(exchange)
            if found is None:
                return
            now = self.node.clock.now()
            dead = letter(message, reason, source, exchange, settings.dead_letter_key, now)
            for target in without_cycles(reason, dead, self.route(found, dead)):
                target.publish(dead)

        self.later(publish)

    def later(self, action: Callable[[], None]) -> None:
        """Do something when the dead letter being published is done: chains do not nest."""
        self._later.append(action)
        if self._working:
            return
        self._working = True
        try:
            while self._later:
                self._later.popleft()()
        finally:
            self._working = False

    # -- what there is ---------------------------------------------------------------------

    def add_exchange(self, exchange: Exchange) -> None:
        """Take an exchange in."""
        self.exchanges[exchange.name] = exchange
        self._apply_to_exchange(exchange)

    def add_queue(
        self,
        name: str,
        kind: str,
        *,
        durable: bool,
        auto_delete: bool,
        owner: Connection | None,
        arguments: Table,
    ) -> Queue:
        """Create a queue."""
        policy = self.policy_of_queue(name, kind)
        queue = (Stream if kind == STREAM else Queue)(
            self,
            name,
            kind=kind,
            durable=durable,
            auto_delete=auto_delete,
            owner=owner,
            arguments=arguments,
            settings=resolve(kind, arguments, policy.definition if policy else {}),
        )
        queue.policy = policy.name if policy else None
        self.queues[name] = queue
        if owner is not None:
            owner.exclusive_queues[queue] = None
        return queue

    def delete_queue(self, queue: Queue) -> int:
        """Delete a queue with its bindings; its consumers are told. Returns its ready messages."""
        if queue.deleted:
            return 0
        count = queue.length
        queue.close()
        if self.queues.get(queue.name) is queue:
            del self.queues[queue.name]
        if queue.owner is not None:
            queue.owner.exclusive_queues.pop(queue, None)
        for consumer in list(queue.consumers):
            consumer.channel.consumer_lost(consumer)
        self._forget_destination(to_queue=True, name=queue.name)
        return count

    def delete_exchange(self, exchange: Exchange) -> None:
        """Delete an exchange with the bindings that begin and end there."""
        doomed = [exchange]
        while doomed:  # not by recursion: auto-delete exchanges may hang on one another by hundreds
            gone = doomed.pop()
            if self.exchanges.pop(gone.name, None) is None:
                continue
            for binding in list(gone.bindings):
                self._forget_incoming(binding)
            gone.bindings.clear()
            doomed += self._take_off_all(to_queue=False, name=gone.name)

    # -- bindings --------------------------------------------------------------------------

    def bind(self, binding: Binding) -> None:
        """Add a binding between two ends that exist; nothing where it is there.

        Raises:
            Refusal: its arguments mean nothing to the exchange's kind.
        """
        if self.exchanges[binding.source].bind(binding):
            place = (binding.to_queue, binding.destination)
            self._incoming.setdefault(place, {})[binding] = None

    def unbind(self, binding: Binding) -> bool:
        """Remove a binding; False where there is none. An auto-delete source may go with it."""
        source = self._take_off(binding)
        if source is None:
            return False
        if source.auto_delete and not source.bindings:
            self.delete_exchange(source)
        return True

    def bindings_to(self, name: str, *, to_queue: bool) -> list[Binding]:
        """Return the bindings that end at a queue or exchange."""
        return list(self._incoming.get((to_queue, name), ()))

    def _forget_destination(self, *, to_queue: bool, name: str) -> None:
        for unused in self._take_off_all(to_queue=to_queue, name=name):
            self.delete_exchange(unused)

    def _take_off_all(self, *, to_queue: bool, name: str) -> list[Exchange]:
        """Remove the bindings that end somewhere; return the exchanges that live by those."""
        unused = []
        for binding in self.bindings_to(name, to_queue=to_queue):
            source = self._take_off(binding)
            if source is not None and source.auto_delete and not source.bindings:
                unused.append(source)
        return unused

    def _take_off(self, binding: Binding) -> Exchange | None:
        """Remove a binding; return the exchange it began at, None where there is none."""
        source = self.exchanges.get(binding.source)
        if source is None or not source.unbind(binding):
            return None
        self._forget_incoming(binding)
        return source

    def _forget_incoming(self, binding: Binding) -> None:
        place = (binding.to_queue, binding.destination)
        same = self._incoming.get(place)
        if same is not None:
            same.pop(binding, None)
            if not same:
                del self._incoming[place]

    # -- policies --------------------------------------------------------------------------

    def policy_of_queue(self, name: str, kind: str) -> Policy | None:
        """Return the policy that holds for a queue."""
        return strongest([one for one in self.policies.values() if one.covers_queue(name, kind)])

    def set_policy(self, policy: Policy) -> None:
        """Add or replace a policy; what it covers changes at once."""
        self.policies[policy.name] = policy
        self._apply_policies()

    def delete_policy(self, name: str) -> bool:
        """Remove a policy; False where there is none."""
        if self.policies.pop(name, None) is None:
            return False
        self._apply_policies()
        return True

    def _apply_policies(self) -> None:
        for queue in list(self.queues.values()):
            policy = self.policy_of_queue(queue.name, queue.kind)
            definition: dict[str, Any] = policy.definition if policy else {}
            settings = resolve(queue.kind, queue.arguments, definition)
            queue.apply(settings, policy.name if policy else None)
        for exchange in self.exchanges.values():
            self._apply_to_exchange(exchange)

    def _apply_to_exchange(self, exchange: Exchange) -> None:
        if not exchange.name:
            return
        policy = strongest(
            [one for one in self.policies.values() if one.covers_exchange(exchange.name)]
        )
        exchange.policy = policy.name if policy else None
        named = policy.definition.get("alternate-exchange") if policy else None
        exchange.alternate = exchange.own_alternate or named

    # -- ending ----------------------------------------------------------------------------

    def forget_transient(self) -> None:
        """Keep what a restart keeps: durable things, and persistent messages in them."""
        for queue in list(self.queues.values()):
            if queue.exclusive or not queue.durable:
                self.delete_queue(queue)
            else:
                queue.survive()
        for exchange in list(self.exchanges.values()):
            if not exchange.durable:
                self.delete_exchange(exchange)
        for queue in list(self.queues.values()):
            queue.resume()

    def close(self) -> None:
        """Forget everything."""
        for queue in list(self.queues.values()):
            self.delete_queue(queue)
        self.exchanges.clear()
