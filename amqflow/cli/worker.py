"""``amqflow worker``: consume queues and run their tasks."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import click

from amqflow.cli.finding import import_tasks
from amqflow.clock import LONGEST_LIMIT
from amqflow.errors import ConfigurationError
from amqflow.logs import configure
from amqflow.settings import redact
from amqflow.worker import Worker, WorkerOptions, checked_pool, parse_queues
from amqflow.worker.health import HealthServer
from amqflow.worker.pools import MainThread
from amqflow.worker.supervise import Supervisor, supervised

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amqflow.app import App
    from amqflow.cli.finding import AppSource
    from amqflow.provision import Change
    from amqflow.scheduler import Embedded


#: More whole workers than any machine runs; each holds some 60 MB and three connections.
MOST_PROCESSES: Final = 1024
_LAST_PORT: Final = 65535


def _weights(_context: click.Context, _option: click.Parameter, text: str | None) -> dict[str, int]:
    try:
        return parse_queues(text)
    except ConfigurationError as error:
        raise click.BadParameter(str(error).removeprefix("-Q ")) from error


def _pool(_context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
    try:
        return None if name is None else checked_pool(name)
    except ConfigurationError as error:
        raise click.BadParameter(str(error).partition(": ")[2]) from error


def _limit(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value <= LONGEST_LIMIT:
        message = f"{value:g} is no number of seconds above 0, a year at most"
        raise click.BadParameter(message)
    return value


@click.command()
@click.option(
    "-Q",
    "--queues",
    callback=_weights,
    help="Queues with weights, as in high:3,low:1; default: all.",
)
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
@click.option(
    "-P",
    "--pool",
    callback=_pool,
    help="Where tasks run: auto, asyncio, threads, processes (prefork), solo.",
)
@click.option("--time-limit", type=float, callback=_limit, help="Seconds a task may take.")
@click.option(
    "--soft-time-limit",
    type=float,
    callback=_limit,
    help="Seconds after which a task sees SoftTimeLimitExceeded.",
)
@click.option(
    "--max-tasks-per-child", type=click.IntRange(min=1), help="Replace a pool process after these."
)
@click.option(
    "--max-memory-per-child",
    type=click.IntRange(min=1),
    help="Replace a pool process that holds more KiB than this.",
)
@click.option(
    "--health-port",
    type=click.IntRange(min=0, max=65535),
    help="Answer /live, /ready and /status over HTTP there (0: any free port).",
)
@click.option("--health-host", default="127.0.0.1", help="Where (default: this machine only).")
@click.option(
    "--processes",
    type=click.IntRange(min=1, max=MOST_PROCESSES),
    help="Run so many whole workers, and start again what ends.",
)
@click.option("-B", "--beat", is_flag=True, help="Schedule, too: publish what is due.")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="How lines look.")
@click.pass_obj
def worker(  # noqa: PLR0917 - click hands options by name
    source: AppSource,
    queues: dict[str, int],
    concurrency: int | None,
    loglevel: str | None,
    prefetch_multiplier: int | None,
    hostname: str | None,
    pool: str | None,
    time_limit: float | None,
    soft_time_limit: float | None,
    max_tasks_per_child: int | None,
    max_memory_per_child: int | None,
    health_port: int | None,
    health_host: str,
    processes: int | None,
    beat: bool,
    log_format: Literal["console", "json"] | None,
) -> None:
    """Consume queues and run their tasks until told to stop.

    SIGTERM or Ctrl-C stops gracefully: running tasks end, the rest goes back to its queue. A
    second one leaves at once; what ran is delivered again.
    """
    _check_together(soft_time_limit, time_limit, health_port, processes)
    one_of = supervised()
    # Until the worker can stop gracefully there is nothing to stop: it just leaves.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app = source.load()
    settings = app.conf.settings
    configure(
        loglevel.upper() if loglevel else settings.log_level, log_format or settings.log_format
    )
    if loglevel != "debug":
        # Each failed attempt to connect is told once, by us.
        logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
    import_tasks(app)
    _check_work(app, queues)
    if one_of is None:
        children = {
            "--max-tasks-per-child": max_tasks_per_child,
            "--max-memory-per-child": max_memory_per_child,
        }
        _remark_children(app, pool, [name for name, value in children.items() if value])
    embedded = _scheduler(app) if beat else None
    options = WorkerOptions(
        queues=queues,
        concurrency=concurrency,
        prefetch_multiplier=prefetch_multiplier,
        hostname=_name(hostname, one_of),
        on_topology=_print_topology,
        pool=pool,
        time_limit=time_limit,
        soft_time_limit=soft_time_limit,
        max_tasks_per_child=max_tasks_per_child,
        max_memory_per_child=max_memory_per_child,
    )
    if processes is not None and one_of is None:
        Worker(app, options)  # what is wrong with the options is said once, here
        sys.exit(Supervisor(processes).run())
    if health_port and one_of is not None:
        health_port += one_of[0]
    click.echo(f"amqflow worker of {app.main!r} on {redact(app.broker_url)}", err=True)
    program = _Program(app, options, embedded, health_port, health_host, one_of)
    if checked_pool(pool or settings.worker_pool) == "solo":
        program.run_beside()
    else:
        program.run()


def _name(hostname: str | None, one_of: tuple[int, int] | None) -> str | None:
    """Return the worker's name; each of several has a number in it."""
    if hostname is None and one_of is None:
        return None
    name = (hostname or "amqflow@%h").replace("%h", socket.gethostname())
    if one_of is None:
        return name
    first, at, rest = name.partition("@")
    return f"{first}-{one_of[0] + 1}{at}{rest}"


class _Program:
    """A worker as a program: signals, the health port, the thread its loop runs in."""

    def __init__(
        self,
        app: App,
        options: WorkerOptions,
        beat: Embedded | None,
        health_port: int | None,
        health_host: str,
        one_of: tuple[int, int] | None,
    ) -> None:
        self._app = app
        self._options = options
        self._beat = beat
        self._health_port = health_port
        self._health_host = health_host
        self._one_of = one_of

    def run(self) -> None:
        """Run in this thread."""
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            serving = runner.get_loop().create_task(self._serve())
            while True:
                try:
                    return runner.run(_ended(serving))
                except Exception:
                    if serving.done():
                        raise
                    logging.getLogger("amqflow.worker").exception(
                        "an error outside any task, such as from a signal handler that a task "
                        "left behind: the worker goes on"
                    )

    def run_beside(self) -> None:
        """Run the loop in a thread of its own; tasks get this one, the main thread."""
        main = MainThread()
        self._options = replace(self._options, main_thread=main)
        ended: list[BaseException | None] = []

        def beside() -> None:
            try:
                self.run()
            except BaseException as error:  # noqa: BLE001 - raised below, in the main thread
                ended.append(error)
            else:
                ended.append(None)
            if main.busy:  # told twice: the task that has the main thread ends with the process
                logging.shutdown()
                os._exit(int(ended[0] is not None))
            main.release()

        # A daemon: told to leave before the worker listens, the main thread just leaves.
        thread = threading.Thread(target=beside, name="amqflow-worker", daemon=True)
        thread.start()
        main.serve()
        thread.join()
        if ended[0] is not None:
            raise ended[0]

    def _listen(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
        """Stop when told, or when the supervisor is gone."""
        main = self._options.main_thread
        for number in (signal.SIGTERM, signal.SIGINT):
            if main is None:
                loop.add_signal_handler(number, stop)
            else:
                main.on_signal(number, lambda: loop.call_soon_threadsafe(stop))
        if self._one_of is None:
            return
        lifeline = self._one_of[1]

        def orphaned() -> None:
            loop.remove_reader(lifeline)
            logging.getLogger("amqflow.worker").error("the supervisor is gone: stopping")
            stop()

        loop.add_reader(lifeline, orphaned)

    async def _serve(self) -> None:
        worker = Worker(self._app, self._options)
        loop = asyncio.get_running_loop()
        starting = loop.create_task(worker.run())
        beat = self._beat

        def stop() -> None:
            if beat is not None and beat.stop(then=stop):
                return  # what it has claimed goes out first, by the worker's connections
            if not worker.consuming:
                starting.cancel()  # nothing is in its hands yet
            worker.stop()

        if beat is not None:
            beat.start(worker.ready, on_broken=stop)
        self._listen(loop, stop)
        try:
            if self._health_port is None:
                await starting
            else:
                async with HealthServer(worker, self._health_port, self._health_host):
                    await starting
        except asyncio.CancelledError:
            if worker.ready.is_set():
                raise
        finally:
            # Done already after a stop; a worker that could not start has connections to close.
            starting.cancel()
            await self._app.aclose()


async def _ended(work: asyncio.Task[None]) -> None:
    await work


def _scheduler(app: App) -> Embedded:
    from amqflow.scheduler import Embedded

    return Embedded(app)


def _check_work(app: App, queues: Mapping[str, int]) -> None:
    """Refuse to start a worker that can only do harm; say what looks like a mistyped queue.

    Raises:
        ConfigurationError: no tasks are known, or a queue is not in the declared topology.
    """
    if not app.tasks:
        message = (
            f"the application {app.main!r} has no tasks, every message would be parked as unknown: "
            'name the modules that declare them, as in AmqFlow(include=["shop.tasks"])'
        )
        raise ConfigurationError(message)
    declared = app.declaration
    known = set(app.work_queues() if declared is None else declared.consumed)
    strangers = [name for name in queues if name not in known]
    if not strangers:
        return
    message = f"-Q {','.join(strangers)}: not among the queues of {app.main!r}: " + ", ".join(
        sorted(known)
    )
    if declared is not None or not app.conf.settings.task_create_missing_queues:
        raise ConfigurationError(message)
    click.echo(f"note: {message}; consumed all the same", err=True)


def _check_together(
    soft: float | None, hard: float | None, health_port: int | None, processes: int | None
) -> None:
    """Refuse options that contradict each other, as each alone is refused."""
    if soft is not None and hard is not None and soft > hard:
        message = (
            f"'--soft-time-limit': {soft:g} is above --time-limit ({hard:g}): a task would never "
            "see it"
        )
        raise click.UsageError(message)
    last = (health_port or 0) + (processes or 1) - 1
    if health_port and last > _LAST_PORT:
        message = (
            f"'--health-port': each of --processes {processes} takes the next port, and the last "
            f"would be {last}: give {_LAST_PORT + 1 - (processes or 1)} at most"
        )
        raise click.UsageError(message)


def _remark_children(app: App, pool: str | None, given: list[str]) -> None:
    """Say so where options are for children that no pool of this worker has."""
    if given and checked_pool(pool or app.conf.settings.worker_pool) != "processes":
        click.echo(
            f"note: {' and '.join(given)} change nothing here: only -P processes has children",
            err=True,
        )


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


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # exists on CPython outside Windows only
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
