"""`app.running()`: broker, results and worker in the caller's own process."""

import asyncio
import threading
import time

import pytest

from amqflow import AmqFlow, NoEmbeddedBroker, SyncInLoop, TaskFailed
from amqflow.errors import AmqflowError, ConfigurationError
from tests.servers.wait import until_sync


@pytest.fixture
def app(runtime):
    made = AmqFlow("shop", broker="embedded://")
    yield made
    made.close()


def test_a_script_gets_its_results(app):
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with app.running():
        assert add.delay(2, 3).get(timeout=30) == 5
        assert [result.get(timeout=30) for result in [add.delay(n, n) for n in range(20)]] == [
            2 * n for n in range(20)
        ]


def test_an_application_with_no_broker_configured_runs_too(runtime):
    app = AmqFlow("plain")

    @app.task
    async def greet(name: str) -> str:
        return f"hello {name}"

    with app.running():
        assert greet.delay("you").get(timeout=30) == "hello you"
    app.close()


def test_retries_delays_and_priorities_are_real(app):
    runs = []

    @app.task(bind=True, autoretry_for=(OSError,), retry_backoff=0.1, max_retries=3, priority=3)
    def flaky(self) -> int:
        runs.append(time.monotonic())
        if len(runs) < 3:
            raise OSError("not yet")
        return self.request.retries

    with app.running():
        begun = time.monotonic()
        assert flaky.apply_async(countdown=0.3).get(timeout=15) == 2
        assert runs[0] - begun >= 0.3


def test_a_failure_comes_back_as_itself(app):
    @app.task
    def fail() -> None:
        raise KeyError("gone")

    with app.running(), pytest.raises(KeyError, match="gone"):
        fail.delay().get(timeout=30)


def test_a_task_may_call_tasks(app):
    @app.task
    def inner(n: int) -> int:
        return n + 1

    @app.task
    def outer(n: int) -> int:
        return inner.delay(n).get(timeout=10, disable_sync_subtasks=False) * 10

    with app.running(concurrency=2):
        assert outer.delay(1).get(timeout=15) == 20


def test_several_applications_have_a_broker_each(runtime):
    apps = [AmqFlow(name, broker="embedded://") for name in ("one", "two")]
    for app in apps:

        @app.task(name="which")
        def which(name: str = app.main) -> str:
            return name

    with apps[0].running(), apps[1].running():
        assert [app.tasks["which"].delay().get(timeout=30) for app in apps] == ["one", "two"]
    for app in apps:
        app.close()


def test_it_can_be_run_again_and_is_over_in_between(app):
    @app.task
    def one() -> int:
        return 1

    for _ in range(2):
        with app.running():
            assert one.delay().get(timeout=30) == 1
        with pytest.raises(NoEmbeddedBroker, match=r"amqflow dev -A app.*app\.running\(\)"):
            one.delay()


def test_running_tasks_end_before_the_block_does(app):
    ended = threading.Event()
    begun = threading.Event()

    @app.task
    def slow() -> None:
        begun.set()
        time.sleep(0.3)
        ended.set()

    with app.running():
        slow.delay()
        assert begun.wait(10)
    assert ended.is_set()


def test_a_block_that_raises_stops_everything(app):
    @app.task
    def one() -> int:
        return 1

    with pytest.raises(ZeroDivisionError), app.running():
        raise ZeroDivisionError
    assert app.hosted is None
    with app.running():
        assert one.delay().get(timeout=30) == 1


def test_a_worker_that_cannot_start_leaves_nothing_behind(app, tmp_path):
    app.conf.topology = str(tmp_path / "missing.yaml")
    with pytest.raises(ConfigurationError), app.running():
        pytest.fail("it cannot run")
    assert app.hosted is None


def test_only_the_queues_asked_for_are_consumed(app):
    @app.task(queue="here")
    def here() -> int:
        return 1

    @app.task(queue="there")
    def there() -> int:
        return 2

    with app.running(queues="here"):
        assert here.delay().get(timeout=30) == 1
        with pytest.raises(AmqflowError, match="there"):
            there.delay()


async def test_a_blocking_start_in_a_loop_names_the_twin(app):
    with pytest.raises(SyncInLoop, match=r"app\.arunning"), app.running():
        pytest.fail("it would block the loop")


async def test_in_a_running_loop(app):
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    async def twice(n: int) -> int:
        result = await add.adelay(n, n)
        return await result.aget(timeout=10, disable_sync_subtasks=False)

    async with app.arunning(concurrency=10):
        results = await asyncio.gather(*(twice.adelay(n) for n in range(5)))
        assert [await result.aget(timeout=30) for result in results] == [0, 2, 4, 6, 8]
    await app.aclose()


async def test_in_a_notebook_blocking_calls_can_be_allowed(app, monkeypatch):
    monkeypatch.setenv("AMQFLOW_ALLOW_SYNC_IN_LOOP", "1")

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with app.running():
        assert add.delay(2, 2).get(timeout=30) == 4


def test_with_a_real_broker_there_is_only_a_worker(amqp_url, redis_url):
    app = AmqFlow("real", broker=amqp_url, backend=redis_url)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with app.running():
        assert app.hosted is None
        assert app.broker_url == amqp_url
        assert add.delay(1, 2).get(timeout=60) == 3
    app.close()


def test_results_may_be_kept_elsewhere_or_not_at_all(runtime, redis_url):
    kept = AmqFlow("kept", broker="embedded://", backend=redis_url)
    unkept = AmqFlow("unkept", broker="embedded://", backend="disabled://")
    runs = []
    for app in (kept, unkept):

        @app.task(name="note")
        def note(name: str = app.main) -> str:
            runs.append(name)
            return name

    with kept.running():
        result = kept.tasks["note"].delay()
        assert result.get(timeout=30) == "kept"
        task_id = result.id
    with kept:
        assert kept.AsyncResult(task_id).get(timeout=30) == "kept"
    with unkept.running():
        unkept.tasks["note"].delay()
        until_sync(lambda: runs == ["kept", "unkept"])
        with pytest.raises(AmqflowError, match="keeps no results"):
            unkept.AsyncResult("x").get(timeout=1)


def test_an_error_type_that_is_not_known_here_is_named(app):
    @app.task
    def fail() -> None:
        raise type("Odd", (Exception,), {"__module__": "elsewhere"})("strange")

    with app.running(), pytest.raises(TaskFailed, match=r"elsewhere\.Odd: strange"):
        fail.delay().get(timeout=30)
