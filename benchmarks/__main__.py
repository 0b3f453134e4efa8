"""`python -m benchmarks`: run the measures and write RESULTS.md.

AMQFLOW_BROKER and AMQFLOW_BACKEND say where; `make bench` sets them to private servers.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.broker import Broker
from benchmarks.contestants import ALL
from benchmarks.environment import describe, load
from benchmarks.measures import (
    chords,
    delays,
    embedded,
    limits,
    pools,
    priorities,
    roundtrip,
    scheduling,
    startup,
    throughput,
    topology,
)
from benchmarks.process import BenchmarkError
from benchmarks.report import page
from benchmarks.results import Results
from benchmarks.scale import FULL, QUICK
from benchmarks.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = Path(__file__).parent / "RESULTS.md"
MEASURES = (
    "startup",
    "publish",
    "drain",
    "roundtrip",
    "chords",
    "delays",
    "priorities",
    "topology",
    "pools",
    "embedded",
    "scheduling",
    "limits",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 0 done, 1 failed, 2 usage."""
    options = _options(argv)
    broker_url, backend = os.environ.get("AMQFLOW_BROKER"), os.environ.get("AMQFLOW_BACKEND")
    if not broker_url or not backend:
        print(
            "error: set AMQFLOW_BROKER and AMQFLOW_BACKEND to servers of your own, or run "
            "`make bench`, which starts some",
            file=sys.stderr,
        )
        return 2
    # As an exception, so that every block on the way ends its children.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        _run(options, broker_url, backend)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny counts, one round: a smoke test")
    parser.add_argument(
        "--only", action="append", choices=MEASURES, help="this measure only; may be repeated"
    )
    parser.add_argument(
        "--contestant",
        action="append",
        choices=[one.key for one in ALL],
        help="publish and drain with this one only; may be repeated",
    )
    parser.add_argument("--rounds", type=int, help="rounds to take the median of (default 3)")
    parser.add_argument("--messages", type=int, help="messages per publish and drain run")
    parser.add_argument("--pending", type=int, help="delayed messages pending at once")
    parser.add_argument("--json", action="store_true", help="print every sample as JSON")
    parser.add_argument(
        "--output",
        type=Path,
        help="where the page goes (default: benchmarks/RESULTS.md, for a full run only)",
    )
    return parser.parse_args(argv)


def _run(options: argparse.Namespace, broker_url: str, backend: str) -> None:
    scale = QUICK if options.quick else FULL
    scale = scale.but(rounds=options.rounds, messages=options.messages, pending=options.pending)
    wanted = options.only or MEASURES
    results = Results()
    began = load()
    with tempfile.TemporaryDirectory(prefix="amqflow-bench-") as folder:
        session = Session(Broker(broker_url), backend, scale, results, Path(folder))
        described = describe(session.broker)
        contestants = [
            one for one in ALL if not options.contestant or one.key in options.contestant
        ]
        for title, chosen, measure in (
            ("starting", "startup" in wanted, startup.run),
            (
                "publish and drain",
                not {"publish", "drain"}.isdisjoint(wanted),
                lambda session: throughput.run(session, contestants, drain="drain" in wanted),
            ),
            ("round trip", "roundtrip" in wanted, roundtrip.run),
            ("chords", "chords" in wanted, chords.run),
            ("delays", "delays" in wanted, delays.run),
            ("priorities", "priorities" in wanted, priorities.run),
            ("pools", "pools" in wanted, pools.run),
            ("limits", "limits" in wanted, limits.run),
            ("topology", "topology" in wanted, topology.run),
            ("embedded broker", "embedded" in wanted, embedded.run),
            ("scheduling", "scheduling" in wanted, scheduling.run),
        ):
            if chosen:
                session.say(f"{title}:")
                measure(session)
    text = page(results, scale, described, (_words(began), _words(load())))
    full = not (options.quick or options.only or options.contestant)
    output = options.output or (PAGE if full else None)
    if output is not None:
        output.write_text(text)
        print(f"wrote {output}", file=sys.stderr)
    if options.json:
        print(json.dumps({"on": described, "samples": results.as_json()}, indent=1))
    elif output is None:
        print(text)


def _words(loads: tuple[float, float, float]) -> str:
    return f"{loads[0]:.1f}"


if __name__ == "__main__":
    sys.exit(main())
