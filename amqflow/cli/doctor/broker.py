"""Checks of the broker: reached, new enough, allowed, holding what it should."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from amqflow.cli.doctor.findings import Finding, error, ok, warning
from amqflow.errors import (
    AccessRefused,
    BrokerError,
    ManagementUnavailable,
    NotFound,
    TopologyError,
)
from amqflow.management import Management
from amqflow.protocol import Envelope, new_id
from amqflow.provision.live import by_declares, by_management
from amqflow.settings import redact
from amqflow.topology import BrokerFacts, dead_queue
from amqflow.topology.diff import diff
from amqflow.topology.names import UNDELIVERED
from amqflow.topology.plan import Action, Replace, Update, kind_of, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amqflow.app import App
    from amqflow.topology import Topology
    from amqflow.topology.live import Live
    from amqflow.topology.plan import Change
    from amqflow.transport import QueueCounts, ServerInfo, Transport

#: Seconds the broker may take to answer a connection before the doctor says that it is away.
PATIENCE = 10.0


async def reached(app: App, door: Transport) -> ServerInfo | Finding:
    """Connect; return what the broker says of itself, or why it cannot be had."""
    shown = redact(app.broker_url)
    try:
        async with asyncio.timeout(PATIENCE):
            return await door.server()
    except (BrokerError, TimeoutError) as problem:
        text = str(problem) or f"no answer within {PATIENCE:g} s"
        mend = "start RabbitMQ, or correct broker= (or AMQFLOW_BROKER), user and virtual host"
        return error("broker", f"{shown} cannot be used: {text}", mend)


def version(info: ServerInfo) -> Finding:
    """Say what the broker's version means for what is promised."""
    try:
        facts = BrokerFacts(info.version)
    except TopologyError as problem:
        return error("broker", str(problem), "upgrade RabbitMQ to 3.10 or later")
    known = "strict" if facts.quorum_priorities else "on classic queues only"
    lanes = "two lanes of the ladder" if facts.expires_by_priority else "one lane of the ladder"
    return ok("broker", f"{info.product} {facts}: priorities {known}, {lanes}")


async def permissions(app: App, door: Transport) -> Finding:
    """Declare, publish to and delete a queue of a name of amqflow's own."""
    name = f"amqflow.doctor.{new_id()}"
    parts = urlsplit(app.broker_url)
    vhost = unquote(parts.path[1:]) or "/"
    try:
        await door.declare_queue(name, durable=True, arguments={"x-expires": 60_000})
        await door.publish(Envelope(b"{}", message_id=new_id()), "", name, timeout=PATIENCE)
        await door.purge_queue(name)
        await door.delete_queue(name)
    except AccessRefused as problem:
        mend = f"rabbitmqctl set_permissions -p {vhost} {parts.username or 'guest'} '.*' '.*' '.*'"
        return error("permissions", f"the broker's user may not do all it must: {problem}", mend)
    return ok("permissions", f"may configure, write and read in virtual host {vhost!r}")


async def drift(app: App, topology: Topology, door: Transport, mend: str) -> list[Finding]:
    """Compare what the broker holds with what it should, and look for dead-letter exchanges."""
    live = await _looked(app, topology, door)
    declaration = app.declaration if app.topology_file is not None else None
    found = diff(topology, live, declaration=declaration)
    findings: list[Finding] = []
    missing = [_label(change) for change in found.changes if change.action is Action.CREATE]
    if missing:
        text = f"{len(missing)} missing on the broker: {_some(missing)}"
        findings.append(error("topology", text, mend))
    for change in (*found.replaces, *found.of(Action.UPDATE, "policy")):
        assert isinstance(change, Replace | Update), "the others have no differences"
        findings.append(_different(change))
    if found.kept:
        text = f"{len(found.kept)} owned and not declared: {_some(list(map(_label, found.kept)))}"
        findings.append(warning("topology", text, "amqflow topology plan --prune shows them"))
    if not findings:
        count = len(topology.exchanges) + len(topology.queues)
        bindings = "" if live.complete else "; bindings cannot be seen without the management API"
        text = f"{count} exchanges and queues are as they should be{bindings}"
        findings.append(ok("topology", text))
    return [*findings, *await _dead_letter_exchanges(topology, door)]


async def _looked(app: App, topology: Topology, door: Transport) -> Live:
    management = Management.of(*app.located())
    try:
        return await by_management(management)
    except (ManagementUnavailable, AccessRefused) as problem:
        return await by_declares(topology, door, str(problem))


def _label(change: Change) -> str:
    return f"{kind_of(change)} {name_of(change)!r}"


def _different(change: Replace | Update) -> Finding:
    if isinstance(change, Replace) and change.begun:
        text = f"{_label(change)}: {change.reason}"
        return error("topology", text, "amqflow topology apply --migrate goes on with it")
    said = "; ".join(
        f"{one.argument} is declared {_value(one.declared)}, the broker has {_value(one.live)}"
        for one in change.differences
    )
    text = f"{_label(change)} exists with other arguments: {said}"
    mend = "amqflow topology plan shows the difference, apply --migrate replaces a queue"
    return error("topology", text, mend)


def _value(value: object) -> str:
    return "not set" if value is None else repr(value)


async def _dead_letter_exchanges(topology: Topology, door: Transport) -> list[Finding]:
    """Find queues whose dead letters go to an exchange that is not there: they are dropped."""
    users: dict[str, list[str]] = {}
    for queue in topology.queues:
        letter = queue.dead_letter
        if letter is not None and letter.exchange not in topology.exchanges_by_name:
            users.setdefault(letter.exchange, []).append(queue.name)
    findings = []
    for exchange, queues in users.items():
        if not exchange:
            continue
        try:
            await door.declare_exchange(exchange, passive=True)
        except NotFound:
            text = (
                f"exchange {exchange!r} does not exist: the broker drops the dead letters of "
                f"{_some(queues)}"
            )
            mend = "declare it in the topology file, then amqflow topology apply"
            findings.append(error("dead-letter-exchange", text, mend))
    return findings


async def queues(
    topology: Topology, consumed: Sequence[str], door: Transport, alarms: Mapping[str, int]
) -> list[Finding]:
    """Look for work nobody takes, dead letters, and messages nobody could take.

    ``alarms``: how many dead letters of a work queue are too many; where it says nothing, one is.
    """

    async def counts(name: str) -> QueueCounts | None:
        try:
            return await door.declare_queue(name, passive=True)
        except NotFound:
            return None  # said by the topology check

    findings = []
    # Each home with the command that shows what lies in it.
    homes = {dead_queue(name): (f"--queue {name}", alarms.get(name, 1)) for name in consumed} | {
        UNDELIVERED: (f"--dead-queue {UNDELIVERED}", 1)
    }
    kept = [name for name in homes if name in topology.queues_by_name]
    for found in await asyncio.gather(*map(counts, consumed)):
        if found is not None and found.messages and not found.consumers:
            text = f"queue {found.name!r}: {found.messages} ready, 0 consumers"
            findings.append(warning("consumers", text, f"amqflow worker -Q {found.name}"))
    for found in await asyncio.gather(*map(counts, kept)):
        if found is None:
            continue
        where, most = homes[found.name]
        if found.messages >= most:
            said = f" (its alarm is {most})" if most > 1 else ""
            text = f"queue {found.name!r} holds {found.messages} dead letters{said}"
            mend = f"amqflow dlq groups {where}"
            findings.append(warning("dead-letters", text, mend))
    text = f"{len(consumed)} work queues: none waits, none has dead letters to look at"
    return findings or [ok("queues", text)]


def _some(names: Sequence[str]) -> str:
    shown = 5
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
