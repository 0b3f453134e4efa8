"""``amqflow worker``: consume queues and run their tasks."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING, Literal

import click

from amqflow.logs import configure
from amqflow.settings import redact
from amqflow.worker import Worker, WorkerOptions, parse_queues

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.app import App
    from amqflow.cli.finding import AppSource
    from amqflow.provision import Change


@click.command()
@click.option("-Q", "--queues", help="Queues with weights, as in high:3,low:1; default: all.")
@click.option("-c", "--concurrency", type=click.IntRange(min=1), help="Tasks that run at once.")
@click.option(
    "-l",
    "--loglevel",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    help="Least level of log lines (default: info).",
)
@click.option(
    "--prefetch-multiplier",
    type=click.IntRange(min=1),
    help="Messages held per slot (default: 4).",
)
@click.option("-n", "--hostname", help="This worker's name; %h is the host.")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="How lines look.")
@click.pass_obj
def worker(  # noqa: PLR0917 - click hands options by name
    source: AppSource,
    queues: str | None,
    concurrency: int | None,
    loglevel: str | None,
    prefetch_multiplier: int | None,
    hostname: str | None,
    log_format: Literal["console", "json"] | None,
) -> None:
    """Consume queues and run their tasks until told to stop.

    SIGTERM or Ctrl-C stops gracefully: running tasks end, the rest goes back to its queue. A
    second one leaves at once; what ran is delivered again.
    """
    app = source.load()
    settings = app.conf.settings
    configure(
        loglevel.upper() if loglevel else settings.log_level, log_format or settings.log_format
    )
    options = WorkerOptions(
        queues=parse_queues(queues),
        concurrency=concurrency,
        prefetch_multiplier=prefetch_multiplier,
        hostname=hostname.replace("%h", _host()) if hostname else None,
        on_topology=_print_topology,
    )
    click.echo(f"amqflow worker of {app.main!r} on {redact(app.broker_url)}", err=True)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(app, options))


async def _serve(app: App, options: WorkerOptions) -> None:
    worker = Worker(app, options)
    loop = asyncio.get_running_loop()
    starting = loop.create_task(worker.run())

    def stop() -> None:
        if not worker.ready.is_set():
            starting.cancel()
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await starting
    except asyncio.CancelledError:
        if worker.ready.is_set():
            raise


def _print_topology(created: list[Change]) -> None:
    if not created:
        return
    click.echo("created on the broker:", err=True)
    ladder = [change for change in created if change.name.startswith("amqflow.delay.")]
    for change in created:
        if change.kind != "binding" and change not in ladder:
            click.echo(f"  + {change.kind:<9}{change.name:<40} {change.why}", err=True)
    if ladder:
        click.echo(f"  + {len(ladder)} parts of the delay ladder amqflow.delay.*", err=True)


def _host() -> str:
    return socket.gethostname()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # exists on CPython outside Windows only
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
