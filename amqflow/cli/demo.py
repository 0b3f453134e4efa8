"""``amqflow demo``: index the standard library with tasks, on any broker, and check the sums."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from amqflow.cli.demo_broker import broker_for
from amqflow.cli.demo_report import Dead, show_dead, show_results
from amqflow.cli.demo_tasks import (
    FLAKY,
    PACKAGE_PRIORITY,
    TEST_PRIORITY,
    FileIndex,
    Library,
    Tasks,
    find_library,
    index_app,
    is_test,
    worker_command,
)
from amqflow.errors import AmqflowError, BrokerError, BrokerUnavailable, NotFound
from amqflow.protocol import DeadLetter, decode, new_id
from amqflow.settings import redact
from amqflow.topology import BrokerFacts, dead_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from rich.console import Console

    from amqflow.app import App
    from amqflow.handles import AsyncResult
    from amqflow.tasks import Task
    from amqflow.transport import Delivery
    from amqflow.workflow.catalog import Workflow
    from amqflow.workflow.records import Known

#: Seconds until the broker must answer, and the workers be ready.
START_TIMEOUT: Final = 30.0
#: Seconds without any result after which the demo gives up.
STALL_TIMEOUT: Final = 30.0
#: Seconds for the dead letters to be in their queue once the results say they are.
DEAD_TIMEOUT: Final = 15.0
#: Seconds a worker has to stop in.
STOP_TIMEOUT: Final = 10.0
#: Seconds between two looks at how far the workflow is.
LOOK: Final = 1.0
#: Packages that are drawn at the end.
DRAWN: Final = 4
#: Plain lines of progress, where there is no terminal.
STEPS: Final = 10


class DemoError(AmqflowError):
    """The demo cannot go on; the message says why."""


@click.command()
@click.option(
    "-w",
    "--workers",
    type=click.IntRange(min=1),
    help="Worker processes (default: one per core, at most 4).",
)
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Tasks that run at once in each worker.",
)
@click.option(
    "--path",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Index the Python files of this folder instead.",
)
def demo(workers: int | None, concurrency: int, path: Path | None) -> int:
    """Index Python's standard library: one task per file, retries, dead letters, a balance.

    Runs on an embedded broker of its own, in memory, or on that of AMQFLOW_BROKER with results in
    AMQFLOW_BACKEND (as messages where it is not set). Its queues are its own and are deleted at
    the end. Exits 0 if every file sent is indexed or a dead letter.
    """
    from rich.console import Console

    console = Console(highlight=False)
    workers = workers or min(os.cpu_count() or 1, 4)
    return asyncio.run(_until_told(_demo(console, workers, concurrency, path)))


async def _until_told(work: Any) -> int:
    """Run the demo; SIGTERM ends it as Ctrl-C does, with everything cleaned up."""
    task: asyncio.Task[int] = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise click.Abort from None


async def _demo(console: Console, workers: int, slots: int, path: Path | None) -> int:
    library = find_library(path)
    if not library.files:
        raise DemoError(f"there are no Python files in {library.root}")
    run = new_id()[:8]
    async with broker_for(run):
        return await _run(console, run, workers, slots, library)


async def _run(console: Console, run: str, workers: int, slots: int, library: Library) -> int:
    app, tasks = index_app(run, library.root)
    await _introduce(console, app, library)
    try:
        commands = [worker_command(run, slots, library.root)] * workers
        async with _workers(app, commands) as ended:
            console.print(f"{workers} worker processes with {slots} slots each are ready.\n")
            tally = Tally()
            picture = ""
            if app.runtime().chords is None:
                results = await _send(tasks.index_file, library.files)
                await _collect(console, app, results, tally, ended)
            else:
                picture = await run_workflow(console, app, tasks, library, tally, ended)
            dead = await _look_at_dead(app, expected=len(tally.failed))
    finally:
        await asyncio.shield(_clean_up(app))
    show_results(console, tally.found)
    show_dead(console, dead, dead_queue(app.main))
    if picture:
        console.print(
            f"\nThe workflow, as `amqflow workflow show` draws it:\n\n{picture}\n",
            markup=False,
            soft_wrap=True,
        )
    return _balance(console, tally, sent=set(library.files), dead=dead)


async def _introduce(console: Console, app: App, library: Library) -> None:
    """Say what will be done with what, once the broker has answered."""
    try:
        async with asyncio.timeout(START_TIMEOUT):
            server = await app.runtime().transport.server()
    except TimeoutError:
        raise BrokerUnavailable(f"{redact(app.broker_url)} does not answer") from None
    tests = sum(map(is_test, library.files))
    version = ".".join(map(str, server.version))
    console.print(f"{library.title} {library.root}", markup=False, soft_wrap=True)
    console.print(
        f"{len(library.files):,} files: {len(library.files) - tests:,} of packages at priority "
        f"{PACKAGE_PRIORITY}, {tests:,} of tests at priority {TEST_PRIORITY}"
    )
    if library.lacks_test_tree:
        console.print(
            "This Python was installed without its test tree (on Debian and Ubuntu: the package "
            "libpython3-testsuite), which holds the files that cannot be parsed; indexing what "
            "there is."
        )
    console.print(
        f"{server.product} {version} at {redact(app.broker_url)}, "
        f"results by {redact(app.backend_url or '')}",
        soft_wrap=True,
    )


# -- the workers -------------------------------------------------------------------------------


@asynccontextmanager
async def _workers(app: App, commands: list[Sequence[str]]) -> AsyncIterator[asyncio.Event]:
    """Run worker processes for the time of a block; the event tells that one ended unasked."""
    ended = asyncio.Event()
    # Their lines are shown only when something went wrong.
    with tempfile.TemporaryFile() as lines:
        processes = [await _start(command, lines) for command in commands]
        watches = [asyncio.create_task(_watch(process, ended)) for process in processes]
        try:
            await _await_consumers(app, len(commands), ended)
            yield ended
        except DemoError as error:
            raise DemoError(f"{error}\n{_tail(lines)}") from None
        finally:
            for process in processes:
                if process.returncode is None:
                    process.terminate()
            _, slow = await asyncio.wait(watches, timeout=STOP_TIMEOUT)
            for process in processes:
                if slow and process.returncode is None:
                    process.kill()


async def _start(command: Sequence[str], lines: IO[bytes]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=lines,
        stderr=lines,
        # Ctrl-C is the demo's: it stops its workers itself, once.
        start_new_session=True,
    )


async def _watch(process: asyncio.subprocess.Process, ended: asyncio.Event) -> None:
    await process.wait()
    ended.set()


async def _await_consumers(app: App, count: int, ended: asyncio.Event) -> None:
    """Wait until the workers have made the queue and consume it."""
    transport = app.runtime().transport

    async def consumed() -> bool:
        if ended.is_set():
            raise DemoError("a worker ended before it was ready; its last lines:")
        with suppress(NotFound):
            return (await transport.declare_queue(app.main, passive=True)).consumers >= count
        return False

    await _until(consumed, START_TIMEOUT, "the workers are not ready; their last lines:")


def _tail(lines: IO[bytes]) -> str:
    lines.seek(0)
    return "\n".join(lines.read().decode(errors="replace").splitlines()[-15:])


# -- the tasks ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What came back, and when."""

    found: list[FileIndex] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    #: Seconds from the first call to the last result, of packages and of tests.
    took: dict[bool, float] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """How many tasks have ended."""
        return len(self.found) + len(self.failed)

    def add(self, path: str, outcome: object, at: float) -> None:
        """Take in how one task ended: its result, or the exception it failed with."""
        if isinstance(outcome, FileIndex):
            self.found.append(outcome)
        else:
            self.failed.append(path)
        self.took[is_test(path)] = at


async def _send(
    task: Task[[str], FileIndex], files: tuple[str, ...]
) -> dict[str, AsyncResult[FileIndex]]:
    """Send a task per file, pipelined; returns once the broker has confirmed them all."""
    sent = await asyncio.gather(
        *(
            task.aapply_async(
                (path,), priority=TEST_PRIORITY if is_test(path) else PACKAGE_PRIORITY
            )
            for path in files
        )
    )
    return dict(zip(files, sent, strict=True))


async def run_workflow(
    console: Console,
    app: App,
    tasks: Tasks,
    library: Library,
    tally: Tally,
    ended: asyncio.Event,
) -> str:
    """Run scan, the packages' chords and the report, show how far they are, and draw them."""
    loop = asyncio.get_running_loop()
    start = last = loop.time()
    handle = await tasks.scan.aapply_async()
    waiting = asyncio.ensure_future(handle.aget(disable_sync_subtasks=False))
    done = 0
    with _progress(console, len(library.files)) as show:
        while not waiting.done():
            await asyncio.wait([waiting], timeout=LOOK)
            known = [one for one in await _packages(app, handle.id) if one.size]
            now_done = sum(one.size or 0 if one.state == "fired" else one.ended for one in known)
            if now_done != done:
                done, last = now_done, loop.time()
            show(min(done, len(library.files)))
            if ended.is_set():
                waiting.cancel()
                raise DemoError("a worker ended before its work was done; its last lines:")
            if loop.time() - last > STALL_TIMEOUT:
                waiting.cancel()
                why = await app.explain(handle.id, app.main)
                raise DemoError(f"the report does not come: {why}")
        show(len(library.files))
    for package in waiting.result():
        for file in package.files:
            outcome = ValueError(file.path) if file.broken else file
            tally.add(file.path, outcome, loop.time() - start)
    return await _drawn(app, handle.id)


async def _packages(app: App, root_id: str) -> list[Known]:
    """Return the chords of the packages: those that are members of another one."""
    workflow = await _workflow(app, root_id)
    chords = () if workflow is None else workflow.chords
    return [one for one in chords if one.spec is not None and one.spec.fate.member is not None]


async def _workflow(app: App, root_id: str) -> Workflow | None:
    from amqflow.workflow.catalog import find

    store = app.runtime().chords
    return None if store is None else await find(store, root_id)


async def _drawn(app: App, root_id: str) -> str:
    """Return the workflow as drawn, its largest packages only: a library has hundreds."""
    from amqflow.workflow.catalog import Workflow, drawn

    workflow = await _workflow(app, root_id)
    if workflow is None:
        return ""
    outer, *inner = workflow.chords
    largest = sorted(inner, key=lambda one: -(one.size or 0))[:DRAWN]
    shown = Workflow(workflow.root_id, (outer, *largest))
    ids = list(dict.fromkeys(shown.ids()))
    outcomes = dict(zip(ids, await app.fetch_outcomes(ids), strict=True))
    rest = len(inner) - len(largest)
    more = f"\n  %% and {rest} more packages" if rest > 0 else ""
    return drawn(shown, outcomes) + more


async def _collect(
    console: Console,
    app: App,
    results: dict[str, AsyncResult[FileIndex]],
    tally: Tally,
    ended: asyncio.Event,
) -> None:
    """Wait for every result and show how far it is."""
    loop = asyncio.get_running_loop()
    start = last = loop.time()

    async def wait_for(path: str, result: AsyncResult[FileIndex]) -> None:
        nonlocal last
        outcome = await result.aget(propagate=False)
        last = loop.time()
        tally.add(path, outcome, last - start)
        await result.aforget()

    waits = {asyncio.create_task(wait_for(*item)): item[1] for item in results.items()}
    pending = set(waits)
    try:
        with _progress(console, len(waits)) as show:
            while pending:
                done, pending = await asyncio.wait(pending, timeout=0.1)
                for wait in done:
                    wait.result()
                show(tally.done)
                if ended.is_set() and pending:
                    raise DemoError("a worker ended before its work was done; its last lines:")
                if loop.time() - last > STALL_TIMEOUT:
                    why = await app.explain(waits[next(iter(pending))].id, app.main)
                    raise DemoError(f"{len(pending)} results do not come: {why}")
    finally:
        for wait in pending:
            wait.cancel()


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """Show a live bar on a terminal, a plain line at every tenth elsewhere."""
    if not console.is_terminal:
        steps = iter(range(STEPS))
        nexts = [next(steps)]

        def line(done: int) -> None:
            while nexts[0] < STEPS and done * STEPS >= total * (nexts[0] + 1):
                nexts[0] += 1
                if done * STEPS < total * (nexts[0] + 1):
                    console.print(f"{done:>7,} of {total:,} files")

        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = ("indexing", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("indexing", total=total)
        yield lambda done: progress.update(bar, completed=done)


# -- dead letters ------------------------------------------------------------------------------


async def _look_at_dead(app: App, *, expected: int) -> list[Dead]:
    """Read the dead letters without consuming them.

    They are taken unacked, and given back by closing the channel: AMQP has no other way to look.
    The queue keeps them and their order.
    """
    transport = app.runtime().transport
    home = dead_queue(app.main)

    async def there() -> bool:
        return (await transport.declare_queue(home, passive=True)).messages >= expected

    # A result is stored before its dead letter is confirmed: the last may be on its way.
    await _until(there, DEAD_TIMEOUT, f"{home} holds fewer dead letters than tasks failed")
    letters: list[Dead] = []
    enough = asyncio.Event()

    def look(delivery: Delivery) -> None:
        letters.append(_dead_letter(delivery))
        if len(letters) >= count:
            enough.set()

    count = (await transport.declare_queue(home, passive=True)).messages
    if count:
        consumer = transport.consume(home, look, prefetch=0)
        try:
            async with asyncio.timeout(DEAD_TIMEOUT):
                await enough.wait()
        finally:
            await consumer.close()
        await _until(there, DEAD_TIMEOUT, f"{home} did not take its dead letters back")
    return letters


def _dead_letter(delivery: Delivery) -> Dead:
    known = DeadLetter.read(delivery.envelope.headers)
    path = str(decode(delivery.envelope).args[0])
    if known is None:
        return Dead(path, "unknown", "", "")
    return Dead(path, known.reason, known.exception or "", known.exception_message or "")


# -- the end -----------------------------------------------------------------------------------


def _balance(console: Console, tally: Tally, *, sent: set[str], dead: list[Dead]) -> int:
    """Print what was sent against what came of it; 0 where it is the same, file by file."""
    seconds = max(tally.took.values(), default=0.0)
    console.print(f"{tally.done:,} files in {seconds:.1f} s ({tally.done / (seconds or 1):,.0f}/s)")
    if tally.took.get(False) != tally.took.get(True):  # a workflow reports on all at once
        console.print(
            f"packages done after {tally.took.get(False, 0.0):.1f} s, "
            f"tests after {tally.took.get(True, 0.0):.1f} s"
        )
    retried = [file for file in tally.found if file.retries]
    console.print(
        f"{sum(file.retries for file in retried):,} retries of {len(retried):,} files: one file in "
        f"{FLAKY} is made to fail at its first attempt"
    )
    found = {file.path for file in tally.found}
    parked = {letter.path for letter in dead}
    good = (
        sent == found | parked
        and not found & parked
        and len(sent) == len(tally.found) + len(dead)
        and parked == set(tally.failed)
    )
    sums = f"{len(sent):,} sent, {len(tally.found):,} indexed + {len(dead):,} dead"
    if good:
        console.print(f"[bold green]Balance: {sums}. Nothing is missing.")
        return 0
    console.print(f"[bold red]Out of balance: {sums}.")
    for label, paths in (
        ("neither indexed nor dead", sent - found - parked),
        ("both indexed and dead", found & parked),
        ("failed, but no dead letter", set(tally.failed) - parked),
    ):
        if paths:
            console.print(f"  {label}: {', '.join(sorted(paths))}", markup=False)
    return 1


async def _clean_up(app: App) -> None:
    """Delete what this run made, by name; the delay ladder is the virtual host's and stays."""
    transport = app.runtime().transport
    store = app.runtime().store
    with suppress(BrokerError, TimeoutError):
        async with asyncio.timeout(STOP_TIMEOUT):
            facts = BrokerFacts((await transport.server()).version)
            made = app.derived_topology(facts, [app.main])
            for queue in made.queues:
                if app.main in queue.name:
                    await transport.delete_queue(queue.name)
            for exchange in made.exchanges:
                if app.main in exchange.name:
                    await transport.delete_exchange(exchange.name)
            if store is not None and store.reply_to is not None:
                # Closed first: a queue deleted under its consumer is something to warn of.
                await app.aclose()
                await app.runtime().transport.delete_queue(store.reply_to)
    await app.aclose()


async def _until(condition: Callable[[], Awaitable[bool]], timeout: float, late: str) -> None:
    """Ask until it is so; raises DemoError with ``late`` after ``timeout`` seconds."""
    try:
        async with asyncio.timeout(timeout):
            while not await condition():  # noqa: ASYNC110 - the broker is asked, it tells nobody
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise DemoError(late) from None
