"""Rate limits: for all workers together, waited for in the ladder, and nothing lost on the way.

A start is never before the moment it was given, and these are an interval apart: so the n-th start
of all comes n intervals after the first call at the earliest, on the slowest machine too. How late
a start may be is bounded where it is given (`GRACE`), not where it runs.
"""

import asyncio
import heapq
import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import pytest

from amqflow import AmqFlow, TaskRevoked
from amqflow.dev.hosting import Host
from amqflow.errors import ConfigurationError
from amqflow.guards.rates import Want
from amqflow.protocol import Envelope, TaskMessage, encode
from amqflow.protocol import headers as h
from amqflow.tasks import RateLimit
from amqflow.worker.pace import FURTHEST, GRACE, Pace, default_rate, mark, mark_of
from tests.applications import Bench
from tests.servers.wait import until

#: Seconds between the clocks that give a start and that write it down.
CLOCKS = 0.01


@pytest.fixture(params=["redis", "embedded"])
async def joined(request, tmp_path, monkeypatch):
    """Return what makes applications of one name, on RabbitMQ and Redis or on one `amqflow dev`."""
    async with AsyncExitStack() as around:
        if request.param == "embedded":
            tmp_path.chmod(0o700)
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
            await around.enter_async_context(Host("suite"))
            broker = backend = "embedded://suite"
        else:
            broker, backend = map(request.getfixturevalue, ("amqp_url", "redis_url"))

        def make():
            app = AmqFlow("spine", broker=broker, backend=backend)
            around.push_async_callback(app.aclose)
            return Bench(app)

        yield make


def limited_in(app, starts, rate, **options):
    """Declare a task that notes when it ran, and with what."""

    @app.task(name="limited", rate_limit=rate, **options)
    async def limited(number):
        starts.append((time.time(), number))

    return limited


def never_too_early(starts, began, rate):
    """Assert that the n-th start came n intervals after the first call, or later."""
    moments = sorted(moment for moment, _ in starts)
    for number, moment in enumerate(moments):
        assert moment >= began + number / rate - CLOCKS, (number, moment - began)


def most_at_once(starts, seconds):
    """Return how many starts any window of so many seconds holds."""
    moments = sorted(moment for moment, _ in starts)
    return max(sum(one <= other < one + seconds for other in moments) for one in moments)


async def test_two_workers_keep_one_limit_together(joined):
    starts, calls, rate = [], 25, 10
    benches = [joined(), joined()]
    tasks = [limited_in(bench.app, starts, "10/s") for bench in benches]
    async with benches[0].working(), benches[1].working():
        began = time.time()
        await asyncio.gather(*(tasks[number % 2].adelay(number) for number in range(calls)))
        await until(lambda: len(starts) >= calls, deadline=60)
    assert sorted(number for _, number in starts) == list(range(calls))
    never_too_early(starts, began, rate)
    # Late by GRACE at most when it is let through, and a moment on the way to its slot.
    assert await benches[0].count("default") == 0


async def test_what_waits_for_its_turn_holds_no_prefetch_and_holds_up_no_other(joined):
    """One slot, one message held: had a single one been kept, the other task would wait."""
    starts, bench = [], joined()
    limited = limited_in(bench.app, starts, "1/h")

    @bench.app.task(name="free")
    async def free():
        return "ran"

    async with bench.working(slots=1, multiplier=1) as worker:
        for number in range(8):
            await limited.adelay(number)
        assert await (await free.adelay()).aget(timeout=60) == "ran"
        await until(lambda: len(starts) == 1 and not worker._settler.busy, deadline=60)
        assert not worker._intake._waiting
        assert not worker._intake._asking
        assert await bench.count("default") == 0
    assert len(starts) == 1


async def test_a_retry_asks_again(bench):
    starts = []

    @bench.app.task(name="again", bind=True, rate_limit="4/s", max_retries=3)
    async def again(self):
        starts.append((time.time(), self.request.retries))
        # By the ladder it came with a moment of its own, else with none.
        mark = self.request.headers.get(h.RATE, {"attempt": self.request.retries})
        assert mark["attempt"] == self.request.retries
        if self.request.retries < 3:
            raise self.retry(countdown=0)

    async with bench.working():
        began = time.time()
        await (await again.adelay()).aget(timeout=60)
    assert [retries for _, retries in starts] == [0, 1, 2, 3]
    never_too_early(starts, began, 4)


async def test_what_waits_outlives_the_worker(bench):
    starts, calls = [], 8
    limited = limited_in(bench.app, starts, "4/s")
    async with bench.working():
        began = time.time()
        for number in range(calls):
            await limited.adelay(number)
        await until(lambda: starts, deadline=60)
    async with bench.working():
        await until(lambda: len(starts) >= calls, deadline=60)
    assert sorted(number for _, number in starts) == list(range(calls))
    never_too_early(starts, began, 4)


async def test_moments_that_were_slept_through_are_not_made_up_for(bench):
    """Messages that wait while no worker is there ask anew: they start at the task's pace."""
    starts, calls = [], 4
    limited = limited_in(bench.app, starts, "4/s")
    async with bench.working():
        pass
    stale = {"start": "2020-01-01T00:00:00+00:00", "epoch": 0, "attempt": 0}
    transport = bench.app.runtime().transport
    for number in range(calls):
        envelope = bench.app.runtime().producer.encode(
            TaskMessage(f"stale-{number}", limited.name, [number])
        )
        envelope.headers[h.RATE] = stale
        await transport.publish(envelope, "", "default", timeout=30)
    began = time.time()
    async with bench.working():
        await until(lambda: len(starts) >= calls, deadline=60)
    # One of the late beside each of those on time, at most.
    never_too_early(sorted(starts)[1:], began, 2 * 4)


async def test_suspects_keep_their_moment_on_the_way_to_their_own_queue(bench):
    """The ladder leads to the work queue: asked anew from there, they would wait for ever."""
    starts, calls = [], 4
    limited = limited_in(bench.app, starts, "2/s")
    async with bench.working():
        began = time.time()
        for number in range(calls):
            await limited.aapply_async((number,), headers={h.REDELIVERED: 2})
        await until(lambda: len(starts) >= calls, deadline=60)
        assert await bench.count("default.dead") == 0
    never_too_early(starts, began, 2)


async def test_what_expires_before_its_turn_ends_at_once_and_takes_nobodys_place(bench):
    starts = []
    limited = limited_in(bench.app, starts, "1/m")
    async with bench.working() as worker:
        await (await limited.adelay(0)).aget(timeout=60)
        for number in range(1, 4):
            sent = await limited.aapply_async((number,), expires=30)
            with pytest.raises(TaskRevoked, match="expired"):
                await sent.aget(timeout=25)
        assert worker.counts["REVOKED"] == 3
        (wait,) = await bench.app.runtime().rates.reserve([Want("limited", RateLimit(1, 60))])
    assert wait <= 60
    assert len(starts) == 1


async def test_the_default_is_for_tasks_without_a_limit_of_their_own(bench):
    starts, free = [], []
    bench.app.conf.task_default_rate_limit = "1/h"
    limited = limited_in(bench.app, starts, None)

    @bench.app.task(name="free", rate_limit=0)
    async def unlimited():
        free.append(1)

    async with bench.working():
        await limited.adelay(0)
        await limited.adelay(1)
        for _ in range(3):
            await (await unlimited.adelay()).aget(timeout=60)
        await until(lambda: starts, deadline=60)
    assert len(starts) == 1
    assert len(free) == 3


async def test_limits_can_be_switched_off(bench):
    starts = []
    bench.app.conf.worker_disable_rate_limits = True
    limited = limited_in(bench.app, starts, "1/h")
    async with bench.working():
        for number in range(5):
            await (await limited.adelay(number)).aget(timeout=60)
    assert len(starts) == 5


async def test_a_limit_that_is_set_or_taken_away_counts_from_the_next_delivery(bench):
    starts = []
    limited = limited_in(bench.app, starts, None)
    async with bench.working():
        for number in range(3):
            await (await limited.adelay(number)).aget(timeout=60)
        limited.rate_limit = "1/h"
        await (await limited.adelay(3)).aget(timeout=60)
        await limited.adelay("late")
        limited.rate_limit = 0
        await (await limited.adelay(4)).aget(timeout=60)
        with pytest.raises(ConfigurationError, match="rate_limit"):
            limited.rate_limit = "often"
    assert [number for _, number in starts if number != "late"] == [0, 1, 2, 3, 4]


class Heard:
    """A log that remembers."""

    def __init__(self):
        self.lines = []

    def __getattr__(self, level):
        return lambda event, **values: self.lines.append((level, event, values))


@pytest.mark.parametrize("backend", [None, "rpc://"])
async def test_without_a_shared_store_a_worker_counts_alone_and_says_so(
    amqp_url, backend, monkeypatch
):
    heard, starts = Heard(), []
    monkeypatch.setattr("amqflow.worker.worker.log", heard)
    async with aclosing(AmqFlow("alone", broker=amqp_url, backend=backend)) as app:
        limited = limited_in(app, starts, "4/s")
        began = time.time()
        async with Bench(app).working():
            for number in range(5):
                await limited.adelay(number)
            await until(lambda: len(starts) >= 5, deadline=60)
    never_too_early(starts, began, 4)
    said = [values for level, event, values in heard.lines if "this worker alone" in event]
    assert said == [{"tasks": {"limited": "4/s"}}]


async def test_a_worker_without_limits_has_nothing_to_say(amqp_url, monkeypatch):
    heard = Heard()
    monkeypatch.setattr("amqflow.worker.worker.log", heard)
    async with aclosing(AmqFlow("alone", broker=amqp_url)) as app:
        app.task(name="free")(lambda: None)
        async with Bench(app).working():
            pass
    assert not [event for _, event, _ in heard.lines if "rate" in event]


async def test_while_the_store_is_away_limited_tasks_are_held_and_then_run_once(
    amqp_url, private_redis
):
    store, starts, calls = private_redis(), [], 6
    async with aclosing(AmqFlow("spine", broker=amqp_url, backend=f"{store.url}/0")) as app:
        bench = Bench(app)
        limited = limited_in(app, starts, "4/s", ignore_result=True)
        async with bench.working() as worker:
            await asyncio.to_thread(store.stop)
            began = time.time()
            for number in range(calls):
                await limited.adelay(number)
            await until(lambda: held(worker) == calls, deadline=60)
            assert not starts
            await asyncio.to_thread(store.start)
            await until(lambda: len(starts) >= calls, deadline=60)
            await until(lambda: not held(worker), deadline=60)
    assert sorted(number for _, number in starts) == list(range(calls))
    never_too_early(starts, began, 4)


async def test_what_is_held_for_a_store_that_is_away_is_given_back_at_a_stop(
    amqp_url, private_redis
):
    store, starts = private_redis(), []
    async with aclosing(AmqFlow("spine", broker=amqp_url, backend=f"{store.url}/0")) as app:
        bench = Bench(app)
        limited = limited_in(app, starts, "10/s", ignore_result=True)
        async with bench.working() as worker:
            await asyncio.to_thread(store.stop)
            for number in range(3):
                await limited.adelay(number)
            await until(lambda: held(worker) == 3, deadline=60)
        await until(lambda: counted(bench.count("default"), 3), deadline=60)
        await asyncio.to_thread(store.start)
        async with bench.working():
            await until(lambda: len(starts) >= 3, deadline=60)
    assert sorted(number for _, number in starts) == [0, 1, 2]


def held(worker):
    return sum(map(len, worker._intake._asking.values()))


async def counted(asked, expected):
    return await asked == expected


# -- the mark --------------------------------------------------------------------------------


NOW = 1_800_000_000.0


@pytest.fixture
def pace():
    clock = SimpleNamespace(now=lambda: NOW, monotonic=lambda: 0.0)
    return Pace(None, default=None, clock=clock, tick=0.1)


@dataclass(eq=False)
class Asking:
    """What is asked of a job."""

    message: TaskMessage
    delivery: SimpleNamespace


def job_of(message, *, redelivered=False):
    delivery = SimpleNamespace(
        redelivered=redelivered, envelope=Envelope(b"", dict(message.extra)), live=True
    )
    return Asking(message, delivery)


def marked(start, *, retries=0, epoch=0, nesting=0):
    message = TaskMessage("id", "t", retries=retries, replaced_task_nesting=nesting)
    message.extra[h.EPOCH] = epoch
    return mark(message, start)[h.RATE]


@pytest.mark.parametrize(
    ("rate", "late", "counts"),
    [
        (RateLimit(10, 1), -3600.0, True),
        (RateLimit(10, 1), GRACE - 0.1, True),
        (RateLimit(10, 1), GRACE + 0.1, False),
        (RateLimit(1, 60), 59.0, True),
        (RateLimit(1, 60), 61.0, False),
    ],
)
def test_a_moment_counts_for_an_interval_and_a_second_at_least(pace, rate, late, counts):
    message = TaskMessage("id", "t", extra={h.RATE: marked(NOW - late)})
    expected = pytest.approx(NOW - late) if counts else None
    assert pace.reserved(job_of(message), rate) == expected


@pytest.mark.parametrize(
    "message",
    [
        TaskMessage("id", "t", retries=1, extra={h.RATE: marked(NOW)}),
        TaskMessage("id", "t", replaced_task_nesting=1, extra={h.RATE: marked(NOW)}),
        TaskMessage("id", "t", extra={h.RATE: marked(NOW), h.EPOCH: 1}),
        *(
            TaskMessage("id", "t", extra={h.RATE: wrong})
            for wrong in ("soon", 5, [], {}, {**marked(NOW), "start": 1}, {"start": "x"})
        ),
    ],
)
def test_a_moment_counts_for_its_own_attempt_only(pace, message):
    assert pace.reserved(job_of(message), RateLimit(1, 60)) is None


def test_what_comes_again_asks_again(pace):
    message = TaskMessage("id", "t", extra={h.RATE: marked(NOW)})
    assert pace.reserved(job_of(message), RateLimit(1, 60)) == pytest.approx(NOW)
    again = job_of(message, redelivered=True)
    assert pace.reserved(again, RateLimit(1, 60)) is None
    assert mark_of(job_of(message).delivery) == {h.RATE: message.extra[h.RATE]}
    assert mark_of(again.delivery) == {}


async def test_a_moment_too_far_ahead_to_be_written_is_cut(pace):
    jobs = [(job_of(TaskMessage("id", "t")), RateLimit(1, 366 * 86400))] * 200
    starts = await pace.reserve(jobs)
    assert max(starts) == NOW + FURTHEST
    mark(TaskMessage("id", "t"), max(starts))


def test_a_default_that_is_no_rate_is_named():
    assert default_rate(None) is None
    assert default_rate("10/m") == RateLimit(10, 60)
    with pytest.raises(ConfigurationError, match="task_default_rate_limit"):
        default_rate("0.00001/h")


@pytest.mark.parametrize("wait", [0.5, 1.5, 5.0])
async def test_calls_that_come_back_late_each_time_start_all_the_same(wait):
    """Their queue is long: whatever moment they had, they reach a worker ``wait`` seconds later."""
    at = NOW
    clock = SimpleNamespace(now=lambda: at, monotonic=lambda: at)
    pace, limit, starts = Pace(None, default=None, clock=clock, tick=0.1), RateLimit(10, 1), []
    arriving = [(NOW + wait, number, {}) for number in range(200)]
    while arriving:
        at, number, extra = heapq.heappop(arriving)
        message = TaskMessage(f"{number}", "t", extra=dict(extra))
        job = job_of(message)
        start = pace.reserved(job, limit)
        if start is None:
            (start,) = await pace.reserve([(job, limit)])
        if start <= at + 0.1:
            starts.append(max(at, start))
        else:
            heapq.heappush(arriving, (start + wait, number, mark(message, start)))
        assert at < NOW + 300, f"{len(starts)} of 200 have started"
    starts.sort()
    # Twice the rate at most: those on time and those late.
    assert all(later - start >= 1 - 0.2 for start, later in pairwise(starts[::21]))


async def test_what_has_run_to_its_end_is_settled_and_waits_for_no_moment(bench):
    """Its worker died between the outcome and the ack: what follows must not wait an hour."""
    app, starts = bench.app, []
    limited_in(app, starts, "1/h")
    async with bench.working() as worker:
        await app.asend_task("limited", [0], task_id="ended")
        await app.AsyncResult("ended").aget(timeout=60)
        settled, asked = [], []
        redo, reserve = worker._settler.redo, worker._intake._pace.reserve
        worker._settler.redo = lambda job, outcome: (settled.append(job), redo(job, outcome))

        async def reserving(jobs):
            asked.extend(jobs)
            return await reserve(jobs)

        worker._intake._pace.reserve = reserving
        letter = encode(TaskMessage("ended", "limited", [0]))
        letter.headers[h.REDELIVERED] = 1
        await app.runtime().transport.publish(letter, "", "default", timeout=10)
        await until(lambda: settled, deadline=60)
    assert asked == []
    assert len(starts) == 1
