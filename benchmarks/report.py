"""Writes what was seen as a page: ratios first, then the numbers, then how they were taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contestants import ALL, Contestant
from benchmarks.measures.chords import CHORDS, TWICE
from benchmarks.measures.delays import LATENESS, PENDING
from benchmarks.measures.embedded import (
    EMBEDDED,
    EMBEDDED_DELIVER,
    EMBEDDED_PUBLISH,
    EMBEDDED_START,
    RABBITMQ,
)
from benchmarks.measures.limits import CONTESTANTS as LIMIT_CONTESTANTS
from benchmarks.measures.limits import LIMIT, OVERRUNS, SLOTS
from benchmarks.measures.pools import CONTESTANTS as POOL_CONTESTANTS
from benchmarks.measures.pools import POOLS
from benchmarks.measures.priorities import PREFETCH, PRIORITIES
from benchmarks.measures.roundtrip import ROUND_TRIP
from benchmarks.measures.scheduling import IDLE, SCHEDULING, SPREAD, TOGETHER
from benchmarks.measures.startup import IMPORT, READY
from benchmarks.measures.throughput import DRAIN, PUBLISH
from benchmarks.measures.topology import TOPOLOGY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.results import Results
    from benchmarks.scale import Scale

#: Seconds below which a duration is shown with a decimal.
FINE = 0.1
#: Delayed publishes a second that are wanted.
DELAYED_RATE = 2000
#: What the embedded broker is to give aio-pika, a second: (title, measure, least).
EMBEDDED_RATES = (
    ("Embedded broker: confirmed publishes", EMBEDDED_PUBLISH, 3000),
    ("Embedded broker: deliveries", EMBEDDED_DELIVER, 5000),
)


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < FINE else f"{seconds * 1000:,.0f} ms"


def _share(part: float) -> str:
    return f"{part:.2%}"


#: (title, measure, time, ours, theirs): theirs over ours, above 1 where ours is shorter
SOONER = (
    (
        "Round trip: Celery's p50 over ours, each by its defaults (classic; quorum, acks late)",
        ROUND_TRIP,
        "p50",
        "amqflow",
        "celery",
    ),
    (
        "Round trip: both on a quorum queue, acks late",
        ROUND_TRIP,
        "p50",
        "amqflow",
        "celery-quorum",
    ),
    ("Round trip: both on a classic queue", ROUND_TRIP, "p50", "amqflow-classic", "celery"),
)

#: (title, measure, ours, theirs, the least ratio we want; None: for information)
RATIOS = (
    ("Drain: amqflow, threads, over Celery, threads", DRAIN, "amqflow", "celery", 2.0),
    ("Drain: amqflow, threads, over Dramatiq, threads", DRAIN, "amqflow", "dramatiq", 2.0),
    ("Drain: amqflow, threads, over Taskiq, threads", DRAIN, "amqflow", "taskiq", None),
    ("Drain: the same on a classic queue, over Celery", DRAIN, "amqflow-classic", "celery", None),
    (
        "Drain: the same on a classic queue, over Dramatiq",
        DRAIN,
        "amqflow-classic",
        "dramatiq",
        None,
    ),
    (
        "Pool of 2 processes: amqflow over Celery's prefork",
        POOLS,
        "amqflow-processes",
        "celery-prefork",
        2.0,
    ),
    ("Drain: amqflow over Taskiq, both `async def`", DRAIN, "amqflow-async", "taskiq-async", None),
    ("Drain: amqflow, threads, over aio-pika alone", DRAIN, "amqflow", "aio-pika", None),
    ("Publish: amqflow `gather(adelay())` over Taskiq", PUBLISH, "amqflow", "taskiq", 1.3),
    (
        "Publish: the same on a classic queue, over Taskiq",
        PUBLISH,
        "amqflow-classic",
        "taskiq",
        None,
    ),
    (
        "Publish: amqflow `gather(adelay())` over aio-pika alone",
        PUBLISH,
        "amqflow",
        "aio-pika",
        None,
    ),
    ("Chords: amqflow over Celery", CHORDS, "amqflow", "celery", 5.0),
    (
        "Publish, blocking: amqflow `delay()` over Celery's",
        PUBLISH,
        "amqflow-blocking",
        "celery",
        None,
    ),
    (
        "Publish, blocking: the same on a classic queue, over Celery's",
        PUBLISH,
        "amqflow-blocking-classic",
        "celery",
        None,
    ),
)

#: (title, measure, contestant, metric, limit, shown as)
LIMITS: tuple[tuple[str, str, str, str, float, Callable[[float], str]], ...] = (
    ("Delays: p99 lateness at most", LATENESS, "amqflow", "p99", 0.150, _ms),
    ("Import: our own share at most", IMPORT, "amqflow", "above", 0.060, _ms),
    (
        "Worker ready, topology in place, at most",
        READY,
        "amqflow",
        "seconds",
        1.0,
        _ms,
    ),
    (
        "Worker ready, empty broker, at most",
        READY,
        "amqflow-empty",
        "seconds",
        1.0,
        _ms,
    ),
    ("Embedded broker started in at most", EMBEDDED_START, EMBEDDED, "seconds", 0.1, _ms),
    *(
        (f"{title}, {pool}, at most", OVERRUNS, f"limits-{pool}", metric, limit, _ms)
        for pool in ("processes", "asyncio")
        for title, metric, limit in (
            ("Soft time limit: seen late", "soft", 0.05),
            ("Hard time limit: slot free after", "hard", 0.2),
        )
    ),
    ("Plan of 500 queues, applied, at most", TOPOLOGY, "amqflow", "full", 2.0, _ms),
    ("Apply of 500 queues at most", TOPOLOGY, "amqflow", "applied", 15.0, _ms),
    (
        "Priorities: tasks out of order at most",
        PRIORITIES,
        "amqflow",
        "violations",
        0,
        lambda v: f"{v:g}",
    ),
    ("Scheduler, due at one instant: p99 late at most", SCHEDULING, TOGETHER, "p99", 0.050, _ms),
    ("Scheduler, due over a second: p99 late at most", SCHEDULING, SPREAD, "p99", 0.050, _ms),
    ("Scheduler, idle: of a core at most", SCHEDULING, IDLE, "cpu", 0.01, _share),
)


def page(
    results: Results, scale: Scale, described: Mapping[str, str], loads: tuple[str, str]
) -> str:
    """Return the page."""
    parts = ["# Benchmarks", "", _summary(scale), ""]
    parts += _section("Ratios", _ratios(results))
    parts += _section("Limits", _limits(results))
    parts += _section("Draining, one worker process", _drain(results, scale))
    parts += _section("Draining, two pool processes", _pools(results, scale))
    parts += _section("Time limits", _overruns(results, scale))
    parts += _section("Publishing, confirmed", _publish(results, scale))
    parts += _section("Round trip, results in Redis", _round_trips(results, scale))
    parts += _section("Chords, results in Redis", _chords(results, scale))
    parts += _section("Delays", _delays(results, scale))
    parts += _section("Priorities", _priorities(results))
    parts += _section("Topology", _topology(results))
    parts += _section("Embedded broker", _embedded(results, scale))
    parts += _section("Scheduling", _scheduling(results))
    parts += _section("Starting", _starting(results))
    parts += ["## Measured on", "", *_described(described, loads), ""]
    return "\n".join(parts)


def _summary(scale: Scale) -> str:
    return (
        f"Written by `make bench`. Every number was seen in that one run; medians of "
        f"{scale.rounds} rounds, in brackets the lowest and highest round. Contestants take turns "
        "on one private broker, each in processes of its own. Broker, publisher and worker share "
        "the machine's cores, so the numbers tell about this machine; compare the ratios, and "
        "read a spread as the noise it is. CPU µs a task is the worker process's own time and "
        "moves less than the rates do."
    )


def _section(title: str, lines: Iterator[str]) -> list[str]:
    body = list(lines)
    return [f"## {title}", "", *body, ""] if body else []


def _table(*titles: str) -> list[str]:
    rule = [":--" if number == 0 else "--:" for number in range(len(titles))]
    return [_row(*titles), _row(*rule)]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _ratios(results: Results) -> Iterator[str]:
    lines = []
    for title, measure, ours, theirs, least in RATIOS:
        ratio = results.ratio(measure, "rate", ours, theirs)
        if ratio is None:
            continue
        verdict = "" if least is None else ("reached" if ratio >= least else "**missed**")
        wanted = "" if least is None else f"≥ {least:g}"
        lines.append(_row(title, f"**{ratio:.2f}**", wanted, verdict))
    for title, measure, metric, ours, theirs in SOONER:
        ratio = results.ratio(measure, metric, theirs, ours)
        if ratio is not None:
            verdict = "reached" if ratio > 1 else "**missed**"
            lines.append(_row(title, f"**{ratio:.2f}**", "> 1", verdict))
    if lines:
        yield from _table("rates, and round trips the other way about", "ratio", "wanted", "")
        yield from lines
        yield ""
        yield "A ratio is the median of the rounds' own ratios."


def _limits(results: Results) -> Iterator[str]:
    lines = []
    for title, measure, contestant, metric, limit, show in LIMITS:
        seen = results.median(measure, contestant, metric)
        if seen is not None:
            verdict = "reached" if seen <= limit else "**missed**"
            lines.append(_row(f"{title} {show(limit)}", f"**{show(seen)}**", verdict))
    earliest = results.samples(LATENESS, "amqflow", "earliest")
    if earliest:
        verdict = "reached" if min(earliest) >= 0 else "**missed**"
        lines.append(
            _row("Delays: never early", f"earliest {_ms(min(earliest))} after due", verdict)
        )
    rate = results.median(PENDING, "amqflow", "rate")
    if rate is not None:
        verdict = "reached" if rate >= DELAYED_RATE else "**missed**"
        lines.append(
            _row(f"Delayed publishes, {DELAYED_RATE:,}/s at least", f"**{rate:,.0f}/s**", verdict)
        )
    for title, measure, least in EMBEDDED_RATES:
        rate = results.median(measure, EMBEDDED, "rate")
        if rate is not None:
            verdict = "reached" if rate >= least else "**missed**"
            lines.append(_row(f"{title}, {least:,}/s at least", f"**{rate:,.0f}/s**", verdict))
    if lines:
        yield from _table("what", "seen", "")
        yield from lines


def _drain(results: Results, scale: Scale) -> Iterator[str]:
    lines = []
    for contestant in _measured(results, DRAIN):
        key = contestant.key
        lines.append(
            _row(
                contestant.title,
                "`async def`, event loop" if contestant.is_async else "`def`, 8 threads",
                contestant.queue_type,
                _rate(results, DRAIN, key),
                _microseconds(results.median(DRAIN, key, "cpu")),
                _ms(results.median(DRAIN, key, "first")),
            )
        )
    if lines:
        yield from _table("", "task", "queue", "tasks/s", "CPU µs a task", "start to first task")
        yield from lines
        yield ""
        yield (
            f"{scale.messages:,} no-op tasks published beforehand; the time from the first task's "
            "run to the last one's, noted by the same lines of code in each worker process; each "
            "ran exactly once and the queue was empty after the worker had stopped. Eight tasks at "
            "once and 32 messages held (four per thread, ours and Celery's default; Dramatiq and "
            "Taskiq were set to it; of a quorum queue amqflow by itself holds up to 128 while its "
            "tasks are this short), results ignored, log level warning. Celery acks before it "
            "runs, its default; Dramatiq, Taskiq and amqflow ack after. amqflow's own default is "
            "a quorum queue, which costs the broker more. The baselines do nothing but note a "
            "number and ack: aio-pika each message, the channel below it all of a loop turn at "
            "once."
        )


def _pools(results: Results, scale: Scale) -> Iterator[str]:
    measured = [one for one in POOL_CONTESTANTS if results.samples(POOLS, one.key, "rate")]
    if measured:
        yield from _table("", "queue", "tasks/s")
        for one in measured:
            yield _row(one.title, one.queue_type, _rate(results, POOLS, one.key))
        yield ""
        yield (
            f"{scale.messages:,} no-op tasks published beforehand by amqflow; two child processes "
            "each, four messages held per child; runs and their moments are noted in a file that "
            "the children share."
        )


def _overruns(results: Results, scale: Scale) -> Iterator[str]:
    measured = [one for one in LIMIT_CONTESTANTS if results.samples(OVERRUNS, one.key, "hard")]
    if measured:
        yield from _table("pool, task", "soft limit seen late", "slot free after the hard limit")
        for one in measured:
            yield _row(
                one.title,
                _spread(results, OVERRUNS, one.key, "soft", _ms),
                _spread(results, OVERRUNS, one.key, "hard", _ms),
            )
        yield ""
        yield (
            f"The worst of {scale.overruns} tasks with a limit of {LIMIT:g} s that all run into "
            f"it, {SLOTS} at a time: the time from the limit to the exception in the task, and "
            "to the start of the next task in that slot. A process is killed, a coroutine is "
            "cancelled."
        )


def _publish(results: Results, scale: Scale) -> Iterator[str]:
    lines = []
    for contestant in _measured(results, PUBLISH):
        key = contestant.key
        lines.append(
            _row(
                contestant.title,
                f"`{contestant.call}`",
                contestant.queue_type,
                _rate(results, PUBLISH, key),
                _microseconds(results.median(PUBLISH, key, "cpu")),
            )
        )
    if lines:
        yield from _table("", "call", "queue", "confirmed/s", "CPU µs a publish")
        yield from lines
        yield ""
        yield (
            f"{scale.messages:,} persistent messages a run ({scale.slow_messages:,} where our "
            f"blocking calls are measured), the first {scale.warm_up} not timed. `gather` awaits "
            "1,000 calls at a time, on uvloop; the others are one thread that waits for each "
            "confirm, Celery with `confirm_publish`, Dramatiq with `confirm_delivery`. The queue "
            "held exactly what was confirmed."
        )


def _round_trips(results: Results, scale: Scale) -> Iterator[str]:
    rows = (
        ("Celery", "`delay().get()`", "classic", "celery"),
        ("Celery, acks late", "`delay().get()`", "quorum", "celery-quorum"),
        ("amqflow", "`delay().get()`", "quorum", "amqflow"),
        ("amqflow", "`delay().get()`", "classic", "amqflow-classic"),
        ("amqflow", "`await (await adelay()).aget()`", "quorum", "amqflow-await"),
    )
    lines = [
        _row(
            title,
            call,
            queue,
            _spread(results, ROUND_TRIP, key, "p50", _ms),
            _spread(results, ROUND_TRIP, key, "p99", _ms),
        )
        for title, call, queue, key in rows
        if results.samples(ROUND_TRIP, key, "p50")
    ]
    if lines:
        yield from _table("", "call", "queue", "p50", "p99")
        yield from lines
        yield ""
        yield (
            f"{scale.calls} calls a run, one after another, an idle worker of eight threads. "
            "amqflow claims each attempt in Redis before it runs and stores the outcome before it "
            "acks: two round trips to Redis where Celery makes one."
        )


def _chords(results: Results, scale: Scale) -> Iterator[str]:
    rows = (
        ("Celery", "classic", "celery", scale.members),
        ("amqflow", "quorum", "amqflow", scale.members),
        ("amqflow", "quorum", f"amqflow{TWICE}", 2 * scale.members),
    )
    lines = [
        _row(
            title,
            queue,
            f"{members:,}",
            _spread(results, CHORDS, key, "rate", lambda rate: f"{rate:,.0f}"),
            _spread(results, CHORDS, key, "sent", _ms),
        )
        for title, queue, key, members in rows
        if results.samples(CHORDS, key, "rate")
    ]
    if lines:
        yield from _table("", "queue", "members", "members/s", "sent in")
        yield from lines
        yield ""
        yield (
            "A chord of no-op members in a header given as a list, and a body that counts their "
            "results; one worker of eight threads, idle before. The time runs from the call to "
            "the body's result, sending included."
        )


def _delays(results: Results, scale: Scale) -> Iterator[str]:
    if results.measured(LATENESS):
        yield from _table("", "earliest", "p50", "p99", "max", "delayed publishes/s")
        yield _row(
            f"{scale.delayed:,} pending, due over {scale.spread:g} s",
            *(
                _spread(results, LATENESS, "amqflow", metric, _ms)
                for metric in ("earliest", "p50", "p99", "max")
            ),
            _rate(results, LATENESS, "amqflow"),
        )
        yield ""
        yield "How long after its due moment a task ran. Ladder of 100 ms ticks, quorum queues."
    if results.measured(PENDING):
        before = results.median(PENDING, "amqflow", "before")
        after = results.median(PENDING, "amqflow", "after")
        rate = results.median(PENDING, "amqflow", "rate")
        count = results.median(PENDING, "amqflow", "count") or 0
        yield ""
        line = f"{count:,.0f} pending, published at {rate:,.0f}/s"
        if before is not None and after is not None:
            line += (
                f": the worker's resident memory was {before / 2**20:.1f} MiB before and "
                f"{after / 2**20:.1f} MiB after"
            )
        yield line + ". All of them counted in the ladder's queues."


def _priorities(results: Results) -> Iterator[str]:
    if results.measured(PRIORITIES):
        count = results.median(PRIORITIES, "amqflow", "count") or 0
        violations = results.median(PRIORITIES, "amqflow", "violations") or 0
        injected = results.median(PRIORITIES, "amqflow", "injected") or 0
        waited = results.median(PRIORITIES, "amqflow", "waited") or 0
        yield (
            f"{count:,.0f} messages of priorities 0 to 9, mixed, in one queue, worked off by two "
            f"slow threads: {violations:,.0f} ran more than the prefetch window of {PREFETCH} "
            f"before one of higher priority. {injected:,.0f} messages of priority 9 sent meanwhile "
            f"each started after at most {waited:,.0f} of lower priority."
        )


def _topology(results: Results) -> Iterator[str]:
    if results.measured(TOPOLOGY):
        count = results.median(TOPOLOGY, "amqflow", "count") or 0
        yield from _table(f"{count:,.0f} quorum queues, a binding each", "")
        for title, metric in (
            ("`topology plan`, empty broker", "empty"),
            ("`topology apply`", "applied"),
            ("`topology plan`, applied", "full"),
        ):
            yield _row(title, _spread(results, TOPOLOGY, "amqflow", metric, _ms))
        yield ""
        yield (
            "From the command's start to its end. The delay ladder comes with it where it is not "
            "there; the live side by the management API."
        )


def _embedded(results: Results, scale: Scale) -> Iterator[str]:
    if not results.measured(EMBEDDED_PUBLISH):
        return
    yield from _table(
        "aio-pika on", "confirmed/s", "delivered/s", "CPU µs a publish", "CPU µs a delivery"
    )
    for title, key in (("the embedded broker", EMBEDDED), ("RabbitMQ, beside it", RABBITMQ)):
        yield _row(
            title,
            _rate(results, EMBEDDED_PUBLISH, key),
            _rate(results, EMBEDDED_DELIVER, key),
            _microseconds(results.median(EMBEDDED_PUBLISH, key, "cpu")),
            _microseconds(results.median(EMBEDDED_DELIVER, key, "cpu")),
        )
    yield ""
    yield (
        f"{scale.messages:,} persistent messages to one classic queue and back, `amqflow broker` "
        "in a process of its own; 1,000 publishes gathered at a time, each delivery acknowledged "
        "on its own. The CPU time is the client's own and bounds both rates. "
        f"Broker, HTTP API and store start in "
        f"{_spread(results, EMBEDDED_START, EMBEDDED, 'seconds', _ms)} where they are imported; "
        f"`amqflow broker` prints its address "
        f"{_spread(results, EMBEDDED_START, EMBEDDED, 'process', _ms)} after its process began."
    )


def _scheduling(results: Results) -> Iterator[str]:
    rows = (
        ("due at one instant, each second", TOGETHER),
        ("due one after the other, each second", SPREAD),
    )
    lines = [
        _row(
            f"{results.median(SCHEDULING, key, 'count') or 0:,.0f} {title}",
            *(
                _spread(results, SCHEDULING, key, metric, _ms)
                for metric in ("earliest", "p50", "p99", "max")
            ),
            _spread(results, SCHEDULING, key, "cpu", _share),
        )
        for title, key in rows
        if results.samples(SCHEDULING, key, "p99")
    ]
    if lines:
        yield from _table("entries", "earliest", "p50", "p99", "max", "of a core")
        yield from lines
        yield ""
        yield (
            "From the instant a slot is due to the broker's confirm, one `amqflow beat`, a quorum "
            "queue, slots claimed in Redis and marked there."
        )
    cpu = results.median(SCHEDULING, IDLE, "cpu")
    if cpu is not None:
        count = results.median(SCHEDULING, IDLE, "count") or 0
        yield ""
        yield f"With {count:,.0f} entries and nothing due it takes {_share(cpu)} of a core."


def _starting(results: Results) -> Iterator[str]:
    if results.measured(IMPORT):
        yield (
            f"`import amqflow`: {_spread(results, IMPORT, 'amqflow', 'above', _ms)} above its "
            "dependencies (everything it imports was imported first). `python -X importtime`, "
            f"which slows imports down: {_ms(results.median(IMPORT, 'amqflow', 'own'))} in our own "
            f"modules of {_ms(results.median(IMPORT, 'amqflow', 'total'))} in all; `from celery "
            f"import Celery` {_ms(results.median(IMPORT, 'celery', 'total'))}."
        )
        yield ""
    if results.measured(READY):
        yield from _table("process start to ready", "")
        for title, key in (
            ("amqflow worker, its topology in place", "amqflow"),
            (
                "amqflow worker, empty broker (it declares queues and the delay ladder)",
                "amqflow-empty",
            ),
            ("Celery worker, threads, its queue in place", "celery"),
        ):
            yield _row(title, _spread(results, READY, key, "seconds", _ms))


def _described(described: Mapping[str, str], loads: tuple[str, str]) -> Iterator[str]:
    machine = ("date", "cores", "processor", "system")
    versions = [f"{name} {value}" for name, value in described.items() if name not in machine]
    yield (
        f"{described['date']}; {described['cores']} cores ({described['processor']}), "
        f"{described['system']}; {', '.join(versions)}."
    )
    yield ""
    yield (
        f"Load average when it began {loads[0]}, when it ended {loads[1]} (broker and contestants "
        "count in the latter)."
    )


def _measured(results: Results, measure: str) -> list[Contestant]:
    """Return the contestants that have numbers: fastest first, the baselines at the end."""
    found = [one for one in ALL if results.samples(measure, one.key, "rate")]
    return sorted(
        found, key=lambda one: (one.baseline, -(results.median(measure, one.key, "rate") or 0))
    )


def _rate(results: Results, measure: str, key: str) -> str:
    return _spread(results, measure, key, "rate", lambda value: f"{value:,.0f}")


def _spread(
    results: Results, measure: str, key: str, metric: str, show: Callable[[float], str]
) -> str:
    values = results.samples(measure, key, metric)
    middle = results.median(measure, key, metric)
    if middle is None:
        return "-"
    if len(values) == 1:
        return show(middle)
    return f"{show(middle)} ({show(min(values))} to {show(max(values))})"


def _microseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e6:,.0f}"
