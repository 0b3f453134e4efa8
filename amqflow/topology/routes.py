"""Where a call goes, decided offline: the call's options, the task's own, the routes, the default.

Nothing here asks a broker. Without a declared topology every queue is reached through the default
exchange by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from importlib import import_module
from typing import Any, Final

from amqflow.errors import TopologyError
from amqflow.topology.model import Route

#: A router as Celery's ``task_routes`` takes one: called with ``(name, args, kwargs, options,
#: task=None)``; answers with route options, a queue's name, or None for "not mine".
Router = Callable[..., "Mapping[str, Any] | str | None"]
#: The forms of ``task_routes`` (Celery docs, "Routing Tasks"): a mapping of patterns to options,
#: a router, its import path, or a list of these and of pairs.
RouteRules = Mapping[Any, Any] | Router | str | Iterable[Any] | None

DEFAULT_QUEUE: Final = "default"
#: AMQP's default exchange, which every queue is bound to by its name.
DEFAULT_EXCHANGE: Final = ""

_PLACE: Final = ("queue", "exchange", "routing_key", "priority")
_PAIR: Final = 2


@dataclass(frozen=True, slots=True)
class Address:
    """What one source (a call, a task, a route) says about where to; None: says nothing."""

    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    priority: int | None = None

    @property
    def names_place(self) -> bool:
        """Whether it says more than a priority."""
        return not (self.queue is None and self.exchange is None and self.routing_key is None)


NOWHERE: Final = Address()


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a call goes. ``queue`` is None where only the broker knows (an exchange was named)."""

    exchange: str
    routing_key: str
    queue: str | None = None
    priority: int | None = None


class Routes:
    """Celery's ``task_routes`` and the routes of a topology file; the first match wins.

    A matching rule of several words is a glob. Within one mapping, exact names go before globs,
    as in Celery.

    Args:
        rules: Celery's forms, or :class:`~amqflow.topology.model.Route` values.
        default_queue: Where a task goes that no source says anything about.

    Raises:
        TopologyError: A rule cannot be read; the message shows it.
    """

    def __init__(self, rules: RouteRules = None, *, default_queue: str = DEFAULT_QUEUE) -> None:
        """Read the rules once."""
        self.default_queue = default_queue
        self._matchers = [_matcher(rule) for rule in _flatten(rules)]
        self._static = not any(isinstance(matcher, _Asked) for matcher in self._matchers)
        self._found: dict[str, Address] = {}

    def resolve(
        self,
        task: str,
        call: Address = NOWHERE,
        own: Address = NOWHERE,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Destination:
        """Return where one call goes.

        Each of exchange, routing key and priority is the first one given, in the order call,
        task, routes; a source that names a queue ends the search for a place.

        Args:
            task: The task's name.
            call: The call's own options.
            own: The options of the task's declaration.
            args: The call's arguments, for routers that look at them.
            kwargs: The same by name.

        Raises:
            TopologyError: A router answered with something that is no route.
        """
        rule = self._rule(task, call, args, kwargs)
        priority = call.priority
        if priority is None:
            priority = own.priority if own.priority is not None else rule.priority
        exchange = routing_key = queue = None
        for source in (call, own, rule):
            if exchange is None:
                exchange = source.exchange
            if routing_key is None:
                routing_key = source.routing_key
            if source.queue is not None:
                queue = source.queue
            if queue is not None or exchange is not None:
                break
        if exchange:
            return Destination(exchange, routing_key or queue or "", None, priority)
        queue = queue or routing_key or self.default_queue
        return Destination(DEFAULT_EXCHANGE, queue, queue, priority)

    def queue_of(self, task: str, own: Address = NOWHERE) -> str | None:
        """Return the queue a task goes to when its call says nothing; None: not known offline."""
        return self.resolve(task, NOWHERE, own).queue

    def _rule(
        self, task: str, call: Address, args: Sequence[Any], kwargs: Mapping[str, Any] | None
    ) -> Address:
        found = self._found.get(task)
        if found is None:
            found = NOWHERE
            for matcher in self._matchers:
                answer = matcher(task, call, args, kwargs)
                if answer is not None:
                    found = answer
                    break
            # Names come from calls: bound what is remembered. Routers may answer differently.
            if self._static and len(self._found) < 4096:  # noqa: PLR2004
                self._found[task] = found
        return found


def topic_matches(pattern: str, key: str) -> bool:
    """Return whether a topic binding's pattern takes a routing key.

    Words are separated by dots; ``*`` stands for one word, ``#`` for any number of words, none
    included (RabbitMQ docs, "AMQP 0-9-1 Model", topic exchange). An empty key is one empty word.
    """
    # The positions of the key that the pattern read so far can have reached.
    words = key.split(".")
    reached = {0}
    for want in pattern.split("."):
        if want == "#":
            reached = set(range(min(reached), len(words) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(words) and want in {"*", words[at]}}
        if not reached:
            return False
    return len(words) in reached


# -- reading rules -------------------------------------------------------------------------


class _Static:
    """A table of exact names and globs."""

    def __init__(self, table: Iterable[tuple[Any, Any]]) -> None:
        self._exact: dict[str, Address] = {}
        self._patterns: list[tuple[re.Pattern[str], Address]] = []
        for pattern, options in table:
            address = _address(options, f"route {pattern!r}")
            if isinstance(pattern, re.Pattern):
                self._patterns.append((pattern, address))
            elif not isinstance(pattern, str):
                raise TopologyError(f"route {pattern!r}: the task is a name, a glob or a regex")
            elif re.search(r"[*?\[]", pattern):
                self._patterns.append((re.compile(translate(pattern)), address))
            else:
                self._exact[pattern] = address

    def __call__(self, task: str, *_: object) -> Address | None:
        """Return the address of the first match."""
        exact = self._exact.get(task)
        if exact is not None:
            return exact
        return next((a for pattern, a in self._patterns if pattern.match(task)), None)


class _Asked:
    """A router function, asked at every call."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def __call__(
        self, task: str, call: Address, args: Sequence[Any], kwargs: Mapping[str, Any] | None
    ) -> Address | None:
        """Return what the router answers."""
        options = {name: getattr(call, name) for name in _PLACE if getattr(call, name) is not None}
        answer = self._router(task, args, kwargs or {}, options, task=None)
        # Celery takes an empty answer for "not mine".
        return _address(answer, f"router {self._router!r} for {task!r}") if answer else None


def _flatten(rules: RouteRules) -> list[Any]:
    if rules is None:
        return []
    if isinstance(rules, Mapping | str | Route) or callable(rules):
        return [rules]
    rules = list(rules)
    # One pair that was not put into a list. Two texts are two import paths, as in Celery.
    if _is_pair(tuple(rules)) and not isinstance(rules[1], str):
        return [tuple(rules)]
    return rules


def _is_pair(rule: object) -> bool:
    """Whether this is one ``(pattern, options)`` pair; the options may be a queue's name."""
    return (
        isinstance(rule, tuple)
        and len(rule) == _PAIR
        and isinstance(rule[0], str | re.Pattern)
        and isinstance(rule[1], Mapping | str)
    )


def _matcher(rule: Any) -> _Static | _Asked:
    if isinstance(rule, str):
        rule = _load(rule)
    # Celery's older form of a router: an object with a method.
    router = getattr(rule, "route_for_task", rule)
    table = _table(rule)
    if table is not None:
        return _Static(table)
    if callable(router):
        return _Asked(router)
    raise TopologyError(
        f"route {rule!r} cannot be read; write {{'pattern': {{'queue': 'name'}}}}, a "
        "('pattern', {'queue': 'name'}) pair, or a router function"
    )


def _table(rule: Any) -> Iterable[tuple[Any, Any]] | None:
    """Return a rule's patterns and options, or None for what is no table."""
    if isinstance(rule, Route):
        return [(rule.task, {name: getattr(rule, name) for name in _PLACE})]
    if isinstance(rule, Mapping):
        return rule.items()
    if isinstance(rule, tuple | list):
        if _is_pair(tuple(rule)):
            return [(rule[0], rule[1])]
        pairs = [tuple(item) if isinstance(item, tuple | list) else () for item in rule]
        if pairs and all(_is_pair(pair) for pair in pairs):
            return [(pattern, options) for pattern, options in pairs]
    return None


def _load(path: str) -> Any:
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise TopologyError(
            f"route {path!r} names no importable router ('package.module.function'): {error}"
        ) from error
    return found() if isinstance(found, type) else found


def _address(options: Any, where: str) -> Address:
    if isinstance(options, str):
        return Address(queue=options)
    if not isinstance(options, Mapping):
        raise TopologyError(f"{where} leads to {options!r}; expected a queue's name or options")
    unknown = sorted(set(options) - set(_PLACE), key=str)
    if unknown:
        raise TopologyError(
            f"{where} has unknown option {unknown[0]!r}; it takes {', '.join(_PLACE)}"
        )
    for name in ("queue", "exchange", "routing_key"):
        if not isinstance(options.get(name), str | None):
            raise TopologyError(f"{where}: {name} is {options[name]!r}; expected a name")
    priority = options.get("priority")
    if priority is not None and not (
        isinstance(priority, int) and not isinstance(priority, bool) and 0 <= priority <= 255  # noqa: PLR2004 - an AMQP octet
    ):
        raise TopologyError(f"{where}: priority is {priority!r}; expected 0 to 255")
    return Address(**{name: options.get(name) for name in _PLACE})
