"""``amqflow dev`` and ``amqflow broker``: the commands."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from amqflow import rendezvous
from amqflow.app.loopthread import new_loop
from amqflow.errors import ConfigurationError, NoEmbeddedBroker

if TYPE_CHECKING:
    from amqflow.dev.hosting import HostOptions
    from amqflow.rendezvous import Rendezvous


class Named(Protocol):
    """What ``-A`` and ``--workdir`` said."""

    @property
    def name(self) -> str | None:
        """``-A``, or the environment's ``AMQFLOW_APP``."""
        ...

    @property
    def workdir(self) -> str | None:
        """``--workdir``."""
        ...


def _say(line: str) -> None:
    click.echo(line, err=True)


def _checked(_context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
    try:
        return None if name is None else rendezvous.checked_name(name)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from error


_NAME = click.option(
    "--name", callback=_checked, help="Serve embedded://NAME instead of plain embedded://."
)


@click.command()
@_NAME
@click.option("--broker", help="Use this broker, amqp://…, instead of an embedded one.")
@click.option("--backend", help="Keep results here instead of where the application says.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="AMQP port (default: a free one)."
)
@click.option(
    "--management-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of the HTTP management API (default: a free one).",
)
@click.option("-Q", "--queues", help="Queues with weights, as in high:3,low:1; default: all.")
@click.option("-c", "--concurrency", type=click.IntRange(min=1), help="Tasks that run at once.")
@click.option(
    "-l",
    "--loglevel",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    help="Least level of the worker's log lines (default: info).",
)
@click.option(
    "--watch",
    "watched",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A folder or file to watch (default: the current folder); may be given again.",
)
@click.option("--reload/--no-reload", default=True, help="Start again when files change.")
@click.option("--beat/--no-beat", default=True, help="Publish what the schedule says, too.")
@click.argument("worker_options", nargs=-1, metavar="[-- WORKER OPTIONS]")
@click.pass_obj
def dev(  # noqa: PLR0917 - click hands options by name
    source: Named,
    name: str | None,
    broker: str | None,
    backend: str | None,
    port: int,
    management_port: int,
    queues: str | None,
    concurrency: int | None,
    loglevel: str | None,
    watched: tuple[Path, ...],
    worker_options: tuple[str, ...],
    *,
    reload: bool,
    beat: bool,
) -> int:
    """Run broker, result store, worker and scheduler in one; start again on every change.

    Nothing needs to be installed: the broker is in memory and for development only. Programs with
    broker="embedded://" join it. Ctrl-C stops after running tasks; a second one leaves at once.
    What follows "--" is handed to "amqflow worker".
    """
    from amqflow.dev.hosting import HostOptions
    from amqflow.dev.serve import Dev, DevOptions, environment_name

    if not source.name:
        raise click.UsageError("name the application: amqflow -A module[:attribute] dev")
    if source.workdir:
        os.chdir(source.workdir)
    options = DevOptions(
        commands=_commands(
            source.name,
            {"-Q": queues, "-c": concurrency, "-l": loglevel},
            (*(("-B",) if beat else ()), *worker_options),
        ),
        name=name or environment_name(),
        broker=broker,
        backend=backend,
        host=HostOptions(port=port, management_port=management_port),
        watched=(watched or (Path.cwd(),)) if reload else (),
    )

    async def run() -> int:
        return await Dev(options, _say).run()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(run())


def _commands(app: str, flags: dict[str, Any], more: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the children's command lines by label."""
    given = [part for flag, value in flags.items() if value is not None for part in (flag, value)]
    return {"worker": ["-A", app, "worker", *map(str, given), *more]}


@click.command()
@_NAME
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=5672,
    show_default=True,
    help="AMQP port; 0: a free one.",
)
@click.option(
    "--management-port",
    type=click.IntRange(0, 65535),
    default=15672,
    show_default=True,
    help="Port of the HTTP management API; 0: a free one.",
)
@click.option("--vhost", "vhosts", multiple=True, help="A further virtual host; may be repeated.")
def broker(
    name: str | None, host: str, port: int, management_port: int, vhosts: tuple[str, ...]
) -> None:
    """Run an AMQP 0-9-1 broker in memory: for development and tests, never for production.

    Any AMQP client can use it; amqflow's programs also join it with broker="embedded://", and
    keep their results here. SIGTERM or Ctrl-C ends it, and with it everything it holds.
    """
    from amqflow.dev.hosting import HostOptions

    options = HostOptions(host, port, management_port, ("/", *vhosts))
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_until_told(name, options))


async def _until_told(name: str | None, options: HostOptions) -> None:
    from amqflow.dev.hosting import Host
    from amqflow.dev.serve import environment_name

    taken = None if name is not None else _served(environment_name())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    async with Host(None if taken else name or environment_name(), options) as host:
        entry = host.entry
        click.echo("amqflow broker: in memory, for development and tests, never for production")
        click.echo(f"  broker      {entry.broker}")
        if entry.management is not None:
            click.echo(f"  management  {entry.management}")
        if taken is None:
            click.echo(f'  join it     AmqFlow(broker="{entry.url}") or AMQFLOW_BROKER={entry.url}')
        else:
            click.echo(
                f"  no name     process {taken.pid} serves {taken.url}; take one with --name"
            )
        if not _is_local(options.host):
            click.echo(f"  warning     {options.host} is open to others, as guest:guest")
        await stop.wait()


def _served(name: str) -> Rendezvous | None:
    """Return who serves a name, if anybody does."""
    try:
        return rendezvous.find(name)
    except NoEmbeddedBroker:
        return None


def _is_local(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")
