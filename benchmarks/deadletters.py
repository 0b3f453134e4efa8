"""`python -m benchmarks.deadletters`: replays a second, and what a list of dead letters takes.

AMQFLOW_BROKER says where. Each figure is of a process of its own, its peak memory as the system
counts it; the queue is the benchmark's own and is deleted at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import secrets
import subprocess
import sys
import time

from amqflow.abc import DeadReason, ExceptionInfo
from amqflow.app import App
from amqflow.deadletters import DeadLetterDesk, Filters
from amqflow.protocol import Envelope, TaskMessage, dead_headers, encode, new_id
from amqflow.provision import apply
from amqflow.topology import BrokerFacts
from benchmarks.broker import Broker
from benchmarks.process import ROOT, python

#: Dead letters published at one time while the queue is filled.
BATCH = 1000
#: What the issue asks for.
WANTED_REPLAYS = 3000
TRACEBACK = "Traceback (most recent call last):\n" + '  File "/app/shop.py", line 7, in pay\n' * 60


def main() -> int:
    """Run what the command line asks for; 0 done, 2 usage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deadletters", description=__doc__)
    parser.add_argument("--letters", type=int, default=50_000, help="dead letters (default 50,000)")
    parser.add_argument("--body", type=int, default=200, help="bytes of an argument (default 200)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--queue", help=argparse.SUPPRESS)
    options = parser.parse_args()
    url = os.environ.get("AMQFLOW_BROKER")
    if not url:
        print("error: set AMQFLOW_BROKER to a broker of your own", file=sys.stderr)
        return 2
    if options.child:
        print(json.dumps(asyncio.run(_child(url, options))))
        return 0
    queue = f"bench-dead-{secrets.token_hex(3)}"
    try:
        figures = _measured(options, queue)
    finally:
        Broker(url).delete_application(queue)
    print(json.dumps(figures, indent=1) if options.json else _words(figures))
    return 0


def _measured(options: argparse.Namespace, queue: str) -> dict[str, float]:
    """Fill the queue to a tenth and list it, to the end and list it again, then replay it."""
    few = options.letters // 10
    _run(options, queue, "fill", few)
    small = _run(options, queue, "list", few)
    _run(options, queue, "fill", options.letters - few)
    large = _run(options, queue, "list", options.letters)
    grouped = _run(options, queue, "groups", options.letters)
    replayed = _run(options, queue, "replay", options.letters)
    return {
        "letters": options.letters,
        "few": few,
        "list_few_rss": small["rss"],
        "list_all_rss": large["rss"],
        "list_rows_s": options.letters / large["seconds"],
        "list_first_s": large["first"],
        "groups_seconds": grouped["seconds"],
        "replay_s": options.letters / replayed["seconds"],
        "replay_rss": replayed["rss"],
    }


def _words(figures: dict[str, float]) -> str:
    few_mib, all_mib, replay_mib = (
        figures[name] / 2**20 for name in ("list_few_rss", "list_all_rss", "replay_rss")
    )
    reached = "reached" if figures["replay_s"] >= WANTED_REPLAYS else "missed"
    return f"""\
list:   {figures["list_rows_s"]:,.0f} a second, the first after {figures["list_first_s"]:.3f} s
        peak memory for {figures["letters"]:,}: {all_mib:.0f} MiB, for a tenth: {few_mib:.0f} MiB
groups: {figures["groups_seconds"]:.1f} s
replay: {figures["replay_s"]:,.0f} a second (wanted {WANTED_REPLAYS:,}: {reached})
        peak memory {replay_mib:.0f} MiB"""


def _run(options: argparse.Namespace, queue: str, verb: str, count: int) -> dict[str, float]:
    done = subprocess.run(
        python(
            "benchmarks.deadletters",
            f"--child={verb}",
            f"--queue={queue}",
            f"--letters={count}",
            f"--body={options.body}",
        ),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


async def _child(url: str, options: argparse.Namespace) -> dict[str, float]:
    """Do one thing, and say how long it took and what memory."""
    app = App(options.queue, broker=url, task_default_queue=options.queue)
    first = 0.0
    try:
        desk = await DeadLetterDesk.of(app)
        start = time.perf_counter()
        filters = Filters(queues=(options.queue,))
        if options.child == "fill":
            await _fill(app, options)
        elif options.child == "list":
            count = 0
            async for _ in desk.rows(filters):
                first = first or time.perf_counter() - start
                count += 1
            _expect(count, options.letters)
        elif options.child == "groups":
            _expect((await desk.groups(filters)).total, options.letters)
        else:
            _expect((await desk.replay(filters)).done, options.letters)
        seconds = time.perf_counter() - start
    finally:
        await app.aclose()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "first": first, "rss": rss}


async def _fill(app: App, options: argparse.Namespace) -> None:
    transport = app.runtime().transport
    server = await transport.server()
    await apply(app.derived_topology(BrokerFacts(server.version), [options.queue]), transport)
    left = options.letters
    while left > 0:
        await asyncio.gather(
            *(
                transport.publish(_letter(options, number), "", f"{options.queue}.dead", timeout=60)
                for number in range(min(BATCH, left))
            )
        )
        left -= BATCH


def _letter(options: argparse.Namespace, number: int) -> Envelope:
    envelope = encode(TaskMessage(id=new_id(), task="shop.pay", args=[number, "x" * options.body]))
    envelope.headers |= dead_headers(
        DeadReason.FAILED,
        time=time.time(),
        worker="bench",
        queue=options.queue,
        routing_key=options.queue,
        attempts=3,
        task="shop.pay",
        exception=ExceptionInfo("ValueError", "builtins", (), f"no {number}"),
        traceback=TRACEBACK,
    )
    return envelope


def _expect(count: int, wanted: int) -> None:
    if count != wanted:
        message = f"{count} dead letters seen, expected {wanted}"
        raise SystemExit(message)


if __name__ == "__main__":
    sys.exit(main())
