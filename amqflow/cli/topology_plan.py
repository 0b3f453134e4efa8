"""``amqflow topology plan`` and ``apply``: a topology compared with a broker, and made so."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from amqflow.cli.asynchronous import run
from amqflow.cli.finding import import_tasks
from amqflow.cli.plan_output import Steps, plan_json, plan_lines
from amqflow.cli.topology_file import application_name, the_file, the_name
from amqflow.errors import (
    AccessRefused,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    ManagementUnavailable,
    StalePlan,
    TopologyError,
)
from amqflow.topology import BrokerFacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.app import App
    from amqflow.cli.finding import AppSource
    from amqflow.management import Management
    from amqflow.topology import Declaration, Topology
    from amqflow.topology.plan import Plan
    from amqflow.transport import Transport

#: Seconds the broker may take to answer a connection.
PATIENCE = 15.0
#: The exit code of a plan that has changes, where it is asked for.
CHANGES = 3


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what plan and apply have in common."""
    for option in reversed(
        (
            click.argument("file", required=False),
            application_name,
            click.option("--broker", metavar="URL", help="The broker, where no -A names one."),
            click.option("--prune", is_flag=True, help="Delete what the file owns and lacks."),
            click.option(
                "--no-management", is_flag=True, help="Look by AMQP alone, which sees less."
            ),
            click.option("--full", is_flag=True, help="Show every part of the delay ladder."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        )
    ):
        command = option(command)
    return command


@click.command()
@_common
@click.option("--detailed-exitcode", is_flag=True, help="Exit 3 where there are changes.")
@click.option(
    "--out", type=click.Path(dir_okay=False), help="Keep the plan, for apply --plan to hold to."
)
@click.pass_obj
def plan(
    source: AppSource,
    /,
    *,
    file: str | None,
    name: str | None,
    broker: str | None,
    detailed_exitcode: bool,
    out: str | None,
    **options: Any,
) -> int:
    """Compare a topology with the broker and show what would change; changes nothing.

    The topology is FILE's, the application's (-A), or the one in topology/.
    """
    desk = Desk.open(source, file, name, broker, options)
    found = run(desk.app, desk.plan)
    _print(found, options)
    if out is not None:
        text = json.dumps(plan_json(found), ensure_ascii=False, indent=1) + "\n"
        try:
            Path(out).write_text(text)
        except OSError as error:
            message = f"--out {out}: the plan cannot be written: {error.strerror}"
            raise ConfigurationError(message) from error
    return CHANGES if found and detailed_exitcode else 0


@click.command()
@_common
@click.option(
    "--migrate",
    is_flag=True,
    help="Replace queues that cannot be changed in place, messages and all.",
)
@click.option(
    "--plan",
    "kept",
    type=click.Path(exists=True, dir_okay=False),
    help="Apply this plan, or nothing where file or broker have changed since.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def apply(
    source: AppSource,
    /,
    *,
    file: str | None,
    name: str | None,
    broker: str | None,
    migrate: bool,
    kept: str | None,
    yes: bool,
    **options: Any,
) -> int:
    """Change the broker to what a topology says: what `plan` shows, and nothing else.

    Killed half-way, it is finished by running it again. What cannot be changed in place is
    replaced with --migrate only; what is not declared is deleted with --prune only.
    """
    desk = Desk.open(source, file, name, broker, options)
    wanted = None if kept is None else _fingerprint(kept)

    async def work() -> int:
        found = await desk.plan()
        if wanted is not None and wanted != found.fingerprint:
            raise StalePlan(f"{_STALE} {kept} was made; nothing was applied, plan again")
        _print(found, options)
        if not found and not found.unverified:
            return 0
        desk.check(found, migrate=migrate)
        asks = bool(found) and sys.stdin.isatty() and sys.stdout.isatty() and not (yes or kept)
        if asks:
            await asyncio.to_thread(click.confirm, "Apply these changes?", abort=True)
            again = await desk.plan()
            if again.fingerprint != found.fingerprint:
                raise StalePlan(f"{_STALE} this plan was shown; nothing was applied, plan again")
        await desk.apply(found, Steps(len(found.changes), as_json=bool(options["as_json"])))
        return 0

    return run(desk.app, work)


_STALE = "the broker or the topology has changed since the plan"


def _fingerprint(path: str) -> str:
    try:
        found = json.loads(Path(path).read_text())
        return str(found["fingerprint"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        message = f"{path} holds no plan of `amqflow topology plan --out`: {error}"
        raise ConfigurationError(message) from error


def _print(found: Plan, options: dict[str, Any]) -> None:
    if options["as_json"]:
        click.echo(json.dumps(plan_json(found), ensure_ascii=False))
        return
    for line in plan_lines(found, full=options["full"]):
        click.echo(line)


@dataclass
class Desk:
    """One application's topology on one broker."""

    app: App
    declared: Declaration | None
    prune: bool
    blind: bool
    #: Where the management API was used, or could be; None where it cannot.
    management: Management | None = None
    why_blind: str = "--no-management"

    @classmethod
    def open(
        cls,
        source: AppSource,
        file: str | None,
        name: str | None,
        broker: str | None,
        options: dict[str, Any],
    ) -> Desk:
        """Find the application and the file; nothing connects.

        Raises:
            click.UsageError: no file is found, or options contradict each other.
        """
        from amqflow.app import App
        from amqflow.topology.load import load

        prune, blind = options["prune"], options["no_management"]
        if source.named:
            if broker is not None:
                message = "--broker goes without -A: the application names its broker"
                raise click.UsageError(message)
            app = source.load()
            import_tasks(app)
            declared = app.declaration if file is None else load(file)
            if name is not None and name != app.main:
                app.main = app.name = name
        else:
            path = the_file(source, file)
            declared = load(path)
            app = App(the_name(source, name, path), broker=broker)
        if prune and (declared is None or not declared.owns):
            message = "--prune needs a file that says what it owns (owns:)"
            raise click.UsageError(message)
        return cls(app, declared, prune, blind)

    async def plan(self) -> Plan:
        """Look at the broker and compare."""
        from amqflow.topology.diff import diff

        transport = self.app.runtime().transport
        topology = await self._topology(transport)
        live = await self._look(topology, transport)
        return diff(topology, live, declaration=self.declared, prune=self.prune)

    async def _topology(self, transport: Transport) -> Topology:
        try:
            async with asyncio.timeout(PATIENCE):
                facts = BrokerFacts((await transport.server()).version)
        except TimeoutError:
            message = f"the broker does not answer within {PATIENCE:g} s"
            raise BrokerUnavailable(message) from None
        if self.declared is None:
            return self.app.derived_topology(facts)
        limit = self.app.conf.settings.poison_limit
        return self.declared.topology(self.app.main, facts, poison_limit=limit)

    async def _look(self, topology: Topology, transport: Transport) -> Any:
        from amqflow.management import Management
        from amqflow.provision.live import by_declares, by_management

        settings = self.app.conf.settings
        if not self.blind:
            management = Management.of(*self.app.located())
            try:
                found = await by_management(management)
            except (ManagementUnavailable, AccessRefused) as error:
                if settings.management_url is not None:
                    raise  # it was named: that it does not work is an error
                self.why_blind = str(error)
            else:
                self.management = management
                return found
        self._needs_api(policies=bool(self.declared and self.declared.policies), prune=self.prune)
        return await by_declares(topology, transport, self.why_blind)

    def _needs_api(self, **wanted: bool) -> None:
        for what, is_wanted in wanted.items():
            if is_wanted:
                raise TopologyError(f"{what} needs the management API: {self.why_blind}")

    def check(self, found: Plan, *, migrate: bool) -> None:
        """Refuse what was not asked for, or cannot be done.

        Raises:
            ReplaceRefused: it replaces parts, and ``migrate`` is off.
            TopologyError: a migration is wanted and there is no management API.
        """
        from amqflow.errors import ReplaceRefused
        from amqflow.provision.execute import refusal

        if not found.replaces:
            return
        if not migrate:
            raise ReplaceRefused(refusal(found))
        if self.management is None:
            self._needs_api(**{"--migrate": True})

    async def apply(self, found: Plan, steps: Steps) -> None:
        """Carry out a plan that :meth:`check` let pass."""
        from amqflow.provision.execute import execute
        from amqflow.provision.migrate import replacer

        transport = self.app.runtime().transport
        replace = None
        if self.management is not None:
            replace = replacer(transport, self.management, on_step=steps.moving)
        try:
            await execute(
                found,
                transport,
                management=self.management,
                replace=replace,
                on_done=steps.done,
            )
        except (BrokerError, TopologyError) as error:
            steps.end()
            text = f"{error} ({steps.count} of {len(found.changes)} changes are applied)"
            raise type(error)(text) from error
        steps.finish()
