"""The application as its users hold it: built, configured, called from plain code and from loops."""

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from amqflow import AmqFlow, AsyncResult, ResultTimeout, SyncInLoop, Unroutable, shared_task
from amqflow.errors import (
    AppClosed,
    BrokerError,
    ConfigurationError,
    NoResultStore,
    StoreUnavailable,
    UnknownTask,
)
from amqflow.tasks import shared
from amqflow.topology import BrokerFacts, Delays
from amqflow.topology.model import Queue, Topology
from amqflow.worker import Worker, WorkerOptions
from tests.servers.process import free_port
from tests.servers.wait import until_sync

ROOT = Path(__file__).parents[1]
SECRET = "hunter2-s3cret"
#: Seconds in which an error comes that is due within one; another wait would take at least 30.
SOON = 15


def shop(broker, backend, name="shop"):
    """Return a small application; tests make one for the caller and one for the worker."""
    app = AmqFlow(name, broker=broker, backend=backend)

    @app.task(name=f"{name}.add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name=f"{name}.mail", queue="email")
    def mail(to: str) -> str:
        return f"sent to {to}"

    return app


@contextmanager
def serving(app, *queues):
    """Run a worker in a thread, as another process would, while the test thread blocks."""
    started = threading.Event()
    held = {}

    async def work():
        held["loop"] = asyncio.get_running_loop()
        held["worker"] = Worker(app, WorkerOptions(queues=dict.fromkeys(queues, 1), concurrency=2))
        started.set()
        await held["worker"].run()

    thread = threading.Thread(target=asyncio.run, args=(work(),), daemon=True)
    thread.start()
    try:
        assert started.wait(10)
        until_sync(held["worker"].ready.is_set, deadline=60)
        yield held["worker"]
    finally:
        held["loop"].call_soon_threadsafe(held["worker"].stop)
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def caller(amqp_url, redis_url):
    """An application whose worker runs, to be called from plain code."""
    app = shop(amqp_url, redis_url)
    with serving(shop(amqp_url, redis_url)):
        yield app
        app.close()


def run_script(source, tmp_path, *, deadline=60, **environment):
    """Run a script in a process of its own and return what it printed; it must stay silent else."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(source))
    done = subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


# -- construction -------------------------------------------------------------------------------


def test_an_application_without_arguments_has_a_name_and_the_usual_broker(monkeypatch):
    monkeypatch.delenv("AMQFLOW_BROKER", raising=False)
    app = AmqFlow()
    assert app.main == "amqflow"
    assert app.broker_url == "amqp://guest:guest@localhost:5672/"


def test_settings_are_keywords_and_a_typo_is_refused_at_once():
    assert AmqFlow("shop", task_time_limit="1m").conf.task_time_limit == 60
    with pytest.raises(ConfigurationError, match="did you mean 'task_time_limit'"):
        AmqFlow("shop", task_tme_limit=5)


def test_a_repr_shows_no_password():
    app = AmqFlow("shop", broker=f"amqp://me:{SECRET}@example.invalid/")
    assert "me:***@example.invalid" in repr(app)
    assert SECRET not in repr(app) + repr(app.conf) + app.conf.humanize()


def test_tasks_are_known_by_name_and_near_misses_are_named():
    app = shop("amqp://localhost/", None)
    assert set(app.tasks) == {"shop.add", "shop.mail"}
    assert app.tasks["shop.add"](1, 2) == 3
    with pytest.raises(UnknownTask, match=r"did you mean 'shop\.add'"):
        app.tasks["shop.ad"]


def test_the_queues_of_the_tasks_are_derived():
    topology = shop("amqp://localhost/", None).derived_topology(BrokerFacts((3, 10, 8)))
    assert {"default", "default.dead", "email", "email.dead"} <= set(topology.queues_by_name)


# -- settings -----------------------------------------------------------------------------------


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder to import from: call it with file names and sources; forgotten after the test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def write(**sources):
        for name, source in sources.items():
            path = tmp_path.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.parent != tmp_path:
                (path.parent / "__init__.py").touch()
            path.write_text(textwrap.dedent(source))

    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


class Celeryconfig:
    task_default_queue = "from-class"
    task_soft_time_limit = 7
    helper = "no setting, and nothing like one"


def test_config_from_object_takes_a_module_a_class_and_a_dict(modules):
    modules(shopconfig="task_default_queue = 'from-module'\ntask_soft_time_limit = 5\n")
    for source, queue in (
        ("shopconfig", "from-module"),
        (Celeryconfig, "from-class"),
        ({"task_default_queue": "from-dict"}, "from-dict"),
    ):
        app = AmqFlow("shop")
        app.config_from_object(source)
        assert app.conf.task_default_queue == queue
        assert app.routes.resolve("any").queue == queue


def test_config_from_object_refuses_names_it_cannot_honour(modules):
    modules(typo="task_deafult_queue = 'x'\n", old="CELERY_ALWAYS_EAGER = True\n")
    for source, words in (
        ({"nonsense": 1}, "unknown setting 'nonsense'"),
        ("typo", "did you mean 'task_default_queue'"),
        ("old", "task_always_eager"),
        ("nosuchmodule", "cannot load 'nosuchmodule'"),
        ({"task_serializer": "pickle"}, "pickle"),
    ):
        app = AmqFlow("shop")
        app.config_from_object(source)
        with pytest.raises(ConfigurationError, match=words):
            _ = app.conf.task_default_queue


async def test_the_strongest_source_decides_where_a_call_goes(amqp_url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = AmqFlow("shop", broker=amqp_url)
    layers = ["default", "toml", "object", "code", "environment", "own", "call"]
    for queue in layers:
        await app.runtime().transport.declare_queue(queue)

    @app.task(name="shop.plain")
    def plain():
        pass

    @app.task(name="shop.own", queue="own")
    def own():
        pass

    sent = [await plain.adelay()]
    (tmp_path / "amqflow.toml").write_text('task_default_queue = "toml"\n')
    app.config_from_object({})  # files are read again with the objects
    sent.append(await plain.adelay())
    app.config_from_object({"task_default_queue": "object"})
    sent.append(await plain.adelay())
    app.conf.task_default_queue = "code"
    sent.append(await plain.adelay())
    monkeypatch.setenv("AMQFLOW_TASK_DEFAULT_QUEUE", "environment")
    app.config_from_object({"task_default_queue": "object"})  # and so is the environment
    sent.append(await plain.adelay())
    sent.append(await own.adelay())
    sent.append(await own.aapply_async(queue="call"))
    assert [result.queue for result in sent] == layers
    for queue in layers:
        counted = await app.runtime().transport.declare_queue(queue, passive=True)
        assert (queue, counted.messages) == (queue, 1)
    await app.aclose()


# -- tasks from elsewhere -------------------------------------------------------------------------


def test_include_imports_its_modules_when_a_worker_starts(modules):
    app = AmqFlow("shop", include=["pkg.jobs"])
    modules(pkg__jobs="done = True\n")
    assert "pkg.jobs" not in sys.modules
    app.import_modules()
    assert "pkg.jobs" in sys.modules


def test_include_names_a_module_that_does_not_exist_and_not_one_it_needs(modules):
    with pytest.raises(ConfigurationError, match=r"include: cannot import 'no\.such'"):
        AmqFlow("shop", include=["no.such"]).import_modules()
    modules(needy="import no_such_library\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        AmqFlow("shop", include=["needy"]).import_modules()


def test_autodiscover_tasks_waits_for_the_worker_and_passes_over_packages_without_tasks(modules):
    modules(
        shopproj__app="""
            from amqflow import AmqFlow
            app = AmqFlow("shopproj")
            app.autodiscover_tasks(["shopproj", "bare"])
            app.autodiscover_tasks(lambda: ["later"], related_name="jobs")
        """,
        shopproj__tasks="""
            from shopproj.app import app
            @app.task
            def add(x, y): return x + y
        """,
        bare__other="",
        later__jobs="from shopproj.app import app\n@app.task\ndef late(): pass\n",
    )
    from shopproj.app import app

    assert set(app.tasks) == set()
    app.import_modules()
    assert set(app.tasks) == {"shopproj.tasks.add", "later.jobs.late"}


def test_autodiscover_tasks_with_force_is_now_and_names_a_missing_package():
    app = AmqFlow("shop")
    with pytest.raises(ConfigurationError, match="cannot import 'no_such_package'"):
        app.autodiscover_tasks(["no_such_package"], force=True)
    with pytest.raises(ConfigurationError, match="name the packages"):
        app.autodiscover_tasks()


def test_a_shared_task_is_a_task_of_every_application(caller, amqp_url, redis_url, monkeypatch):
    monkeypatch.setattr(shared, "_pending", [])

    @shared_task(name="lib.double")
    def double(x: int) -> int:
        return 2 * x

    later = AmqFlow("later", broker=amqp_url, backend=redis_url)
    assert {"lib.double"} <= set(caller.tasks)
    assert set(later.tasks) == {"lib.double"}
    # The worker's application was made first, and has it too; the last one made sends.
    assert double.delay(4).get(timeout=30) == 8
    later.close()


# -- calls from plain code ------------------------------------------------------------------------


def test_plain_code_calls_and_waits(caller):
    result = caller.tasks["shop.add"].delay(2, 3)
    assert result.get(timeout=30) == 5
    assert result.ready()
    assert result.successful()
    assert caller.AsyncResult(result.id).get(timeout=30) == 5


def test_a_task_is_sent_by_name_whether_known_here_or_not(caller, amqp_url, redis_url):
    stranger = AmqFlow("stranger", broker=amqp_url, backend=redis_url)
    assert stranger.send_task("shop.add", (1, 2)).get(timeout=30) == 3
    assert stranger.send_task("shop.add", kwargs={"x": 1, "y": 5}).get(timeout=30) == 6
    # Known here: its own queue is found without being named.
    assert caller.send_task("shop.mail", ["a@b.c"]).queue == "email"
    stranger.close()


def test_a_signature_is_a_call_that_waits(caller):
    call = caller.signature("shop.add", (2,), {"y": 3}, countdown=0.3)
    began = time.monotonic()
    assert call.delay().get(timeout=30) == 5
    assert time.monotonic() - began >= 0.25
    assert caller.tasks["shop.add"].s(4).apply_async((3,)).get(timeout=30) == 7


def test_an_application_closes_and_serves_again_without_leaving_threads_or_sockets(caller):
    def threads():
        return [one.name for one in threading.enumerate() if one.name == "amqflow-loop"]

    def files():
        folder = Path("/proc/self/fd")
        return len(list(folder.iterdir())) if folder.exists() else 0

    add = caller.tasks["shop.add"]
    assert add.delay(1, 1).get(timeout=30) == 2
    assert threads() == ["amqflow-loop"]
    caller.close()
    opened = files()
    for _ in range(3):
        assert add.delay(1, 1).get(timeout=30) == 2
        caller.close()
    assert not threads()
    until_sync(lambda: files() <= opened, deadline=30, message="file descriptors given back")
    caller.close()  # a second time, with nothing open
    with caller as app:
        assert app is caller
        assert add.delay(1, 1).get(timeout=30) == 2
    assert not threads()


def test_a_call_that_waits_while_another_thread_closes_the_application_is_told(caller):
    caught = []

    def wait():
        try:
            caller.AsyncResult("nobody-ever").get(timeout=60)
        except BaseException as error:
            caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    loop = caller._thread.loop
    until_sync(lambda: any("_ended_within" in str(task) for task in asyncio.all_tasks(loop)))
    caller.close()
    waiting.join(10)
    # Of the application, or of its store, whichever was closed first.
    assert len(caught) == 1
    assert isinstance(caught[0], AppClosed | StoreUnavailable)


def test_threads_share_one_application(caller):
    results = {}

    def call(number):
        results[number] = caller.tasks["shop.add"].delay(number, 1).get(timeout=60)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: number + 1 for number in range(16)}


def test_two_applications_on_two_virtual_hosts_keep_apart(rabbitmq, amqp_url, redis_url, vhost):
    other_url = rabbitmq.add_vhost(f"{vhost}-other")
    try:
        here, there = shop(amqp_url, redis_url), shop(other_url, redis_url, name="other")
        with serving(shop(amqp_url, redis_url)), serving(shop(other_url, redis_url, name="other")):
            assert here.tasks["shop.add"].delay(1, 2).get(timeout=30) == 3
            assert there.tasks["other.add"].delay(3, 4).get(timeout=30) == 7
            # Unknown over there: parked, and the caller hears of it.
            with pytest.raises(Exception, match=r"shop\.add"):
                there.send_task("shop.add", (1, 2)).get(timeout=30)
        here.close()
        there.close()
    finally:
        rabbitmq.delete_vhost(f"{vhost}-other")


# -- inside a running loop --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "twin"),
    [
        (lambda app: app.tasks["shop.add"].delay(1, 2), "adelay"),
        (lambda app: app.tasks["shop.add"].apply_async((1, 2)), "aapply_async"),
        (lambda app: app.tasks["shop.add"].s(1, 2).delay(), "aapply_async"),
        (lambda app: app.send_task("shop.add", (1, 2)), "asend_task"),
        (lambda app: AsyncResult("id", app).get(timeout=1), "aget"),
        (lambda app: AsyncResult("id", app).ready(), "aoutcome"),
        (lambda app: AsyncResult("id", app).forget(), "aforget"),
        (lambda app: app.close(), "aclose"),
    ],
    ids=["delay", "apply_async", "signature", "send_task", "get", "ready", "forget", "close"],
)
async def test_a_blocking_verb_in_a_loop_names_its_twin(verb, twin, recwarn):
    app = shop("amqp://localhost:1/", "redis://localhost:1/0")
    with pytest.raises(SyncInLoop, match=rf"await {twin}\("):
        verb(app)
    assert not recwarn.list, "a coroutine was never awaited"


async def test_blocking_in_a_loop_is_possible_where_it_is_meant(caller, monkeypatch):
    monkeypatch.setenv("AMQFLOW_ALLOW_SYNC_IN_LOOP", "1")
    assert caller.tasks["shop.add"].delay(2, 2).get(timeout=30) == 4
    monkeypatch.setenv("AMQFLOW_ALLOW_SYNC_IN_LOOP", "0")
    with pytest.raises(SyncInLoop):
        caller.tasks["shop.add"].delay(2, 2)
    monkeypatch.setenv("AMQFLOW_ALLOW_SYNC_IN_LOOP", "1")
    caller.close()


def test_each_run_of_asyncio_has_connections_of_its_own(caller):
    async def call(number):
        result = await caller.tasks["shop.add"].adelay(number, 1)
        try:
            return await result.aget(timeout=30)
        finally:
            await caller.aclose()

    assert [asyncio.run(call(number)) for number in range(3)] == [1, 2, 3]


# -- forks ------------------------------------------------------------------------------------------

FORKING = """
    import gc, multiprocessing, os, sys
    from amqflow import AmqFlow

    app = AmqFlow("shop")

    @app.task(name="shop.add")
    def add(x: int, y: int) -> int: ...

    def child(number):
        for step in range(3):
            assert add.delay(number, step).get(timeout=60) == number + step
        gc.collect()  # what the child drops of its parent's must not close anything there
        sys.stdout.write(f"child {number}\\n")
        sys.stdout.flush()

    assert add.delay(1, 1).get(timeout=60) == 2
    pid = os.fork()
    if not pid:
        child(10)
        os._exit(0)
    # The parent goes on meanwhile.
    for step in range(5):
        assert add.delay(step, step).get(timeout=60) == 2 * step
    assert os.waitpid(pid, 0)[1] == 0

    pid = os.fork()
    if not pid:
        child(20)
        sys.exit(0)  # with the interpreter's whole end
    assert os.waitpid(pid, 0)[1] == 0

    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=child, args=(30,))
    process.start()
    process.join()
    assert process.exitcode == 0
    with fork.Pool(2) as pool:
        pool.map(child, [40, 50])
    assert add.delay(2, 2).get(timeout=60) == 4
    print("parent")
"""


def test_a_forked_child_sends_and_gets_results_and_so_does_its_parent(
    amqp_url, redis_url, tmp_path
):
    with serving(shop(amqp_url, redis_url)):
        lines = run_script(
            FORKING,
            tmp_path,
            AMQFLOW_BROKER=amqp_url,
            AMQFLOW_BACKEND=redis_url,
            PYTHONWARNINGS="ignore::DeprecationWarning",  # 3.12 warns of forks with threads
        )
    assert lines[:3] == ["child 10", "child 20", "child 30"]
    assert sorted(lines[3:]) == ["child 40", "child 50", "parent"]


FORKED_WORKER = """
    import asyncio, os
    from amqflow import AmqFlow
    from amqflow.worker import Worker

    app = AmqFlow("shop")

    @app.task(name="shop.add")
    def add(x: int, y: int) -> int:
        return x + y

    async def work():
        worker = Worker(app)
        running = asyncio.create_task(worker.run())
        await worker.ready.wait()
        assert await (await add.adelay(1, 2)).aget(timeout=60) == 3
        worker.stop()
        await running

    asyncio.run(work())
    add.delay(1, 1)  # starts the background loop, which no child inherits
    pid = os.fork()
    if not pid:
        asyncio.run(work())
        print(add.delay(4, 4).queue, flush=True)
        os._exit(0)
    print(os.waitpid(pid, 0)[1])
"""


def test_a_forked_child_may_be_a_worker_and_then_a_caller(amqp_url, redis_url, tmp_path):
    lines = run_script(
        FORKED_WORKER,
        tmp_path,
        AMQFLOW_BROKER=amqp_url,
        AMQFLOW_BACKEND=redis_url,
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )
    assert lines == ["default", "0"]


# -- what goes wrong ----------------------------------------------------------------------------------


def told(error):
    """Return everything a traceback of this error would show."""
    return "".join(traceback.format_exception(error))


def test_a_broker_that_is_away_is_named_within_the_deadline():
    port = free_port()
    app = shop(f"amqp://me:{SECRET}@127.0.0.1:{port}/shop", None)
    app.conf.publish_timeout = 1
    began = time.monotonic()
    with pytest.raises(BrokerError, match=rf"127\.0\.0\.1:{port}/shop") as caught:
        app.tasks["shop.add"].delay(1, 2)
    assert time.monotonic() - began < SOON
    assert "Connection refused" in str(caught.value)
    assert SECRET not in told(caught.value)
    app.close()


def test_a_broker_that_never_answers_is_named_within_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        app = shop(f"amqp://me:{SECRET}@127.0.0.1:{port}/", None)
        app.conf.publish_timeout = 1
        began = time.monotonic()
        with pytest.raises(BrokerError, match=f"127.0.0.1:{port}") as caught:
            app.tasks["shop.add"].delay(1, 2)
        assert time.monotonic() - began < SOON
        assert SECRET not in told(caught.value)
        app.close()


def test_a_refused_login_is_told_at_once(amqp_url):
    host = amqp_url.partition("@")[2]
    app = shop(f"amqp://guest:{SECRET}@{host}", None)
    began = time.monotonic()
    with pytest.raises(BrokerError, match="refused the login") as caught:
        app.tasks["shop.add"].delay(1, 2)
    assert time.monotonic() - began < SOON
    assert SECRET not in told(caught.value)
    app.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"redis://:{SECRET}@localhost/0", "amqflow speaks to RabbitMQ"),
        ("localhost", "amqflow speaks to RabbitMQ"),
        (f"amqp://guest:{SECRET}/x@localhost/", "port that is no number"),
        ("amqp://guest:guest@localhost:99999/", "port that is no number"),
    ],
)
def test_an_impossible_broker_url_is_one_error_without_its_secrets(url, words):
    app = shop(url, None)
    with pytest.raises(ConfigurationError, match=words) as caught:
        app.tasks["shop.add"].delay(1, 2)
    assert SECRET not in told(caught.value)
    app.close()


def test_a_store_that_is_away_is_named_without_its_password(amqp_url):
    port = free_port()
    app = shop(amqp_url, f"redis://:{SECRET}@127.0.0.1:{port}/0")
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port}") as caught:
        app.AsyncResult("some-id").get(timeout=5)
    assert SECRET not in told(caught.value)
    app.close()


def test_asking_for_a_result_that_nobody_keeps_says_what_to_give():
    app = shop("amqp://localhost/", None)
    with pytest.raises(NoResultStore, match=r"AmqFlow\(backend=…\)"):
        app.AsyncResult("some-id").get(timeout=1)
    app.close()


def test_a_queue_nobody_has_declared_takes_no_call(amqp_url):
    app = shop(amqp_url, None)
    with pytest.raises(Unroutable, match=r"shop\.mail was not sent, queue 'email'.*worker"):
        app.tasks["shop.mail"].delay("a@b.c")
    app.close()


def test_a_result_that_does_not_come_says_why(amqp_url, redis_url):
    app = shop(amqp_url, redis_url)
    with serving(shop(amqp_url, redis_url)):
        pass  # declares the queues
    results = [app.tasks["shop.mail"].delay(f"{number}@b.c") for number in range(12)]
    with pytest.raises(ResultTimeout, match="queue email: 12 ready, 0 consumers") as caught:
        results[0].get(timeout=0.5)
    assert str(caught.value).startswith(f"shop.mail[{results[0].id}] gave no result within 0.5 s")
    with serving(shop(amqp_url, redis_url)):
        assert results[0].get(timeout=30) == "sent to 0@b.c"
    app.close()


async def test_a_result_of_a_delayed_call_waits_in_no_work_queue(bench):
    @bench.app.task(queue="email")
    def mail():
        pass

    async with bench.working():
        result = await mail.aapply_async(countdown=timedelta(minutes=5).total_seconds())
        with pytest.raises(ResultTimeout, match="queue email: 0 ready, 1 consumers"):
            await result.aget(timeout=0.3)


INTERRUPTED = """
    import os, signal, threading
    from amqflow import AmqFlow

    # A shell lets what it starts in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app = AmqFlow("shop")

    @app.task(name="shop.add")
    def add(x: int, y: int) -> int: ...

    add.delay(1, 1).get(timeout=60)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        app.AsyncResult("nobody-ever").get(timeout=30)
    except KeyboardInterrupt:
        print("interrupted")
    print(add.delay(1, 2).get(timeout=60))
"""


def test_ctrl_c_ends_a_wait_and_nothing_else(amqp_url, redis_url, tmp_path):
    with serving(shop(amqp_url, redis_url)):
        lines = run_script(
            INTERRUPTED, tmp_path, AMQFLOW_BROKER=amqp_url, AMQFLOW_BACKEND=redis_url
        )
    assert lines == ["interrupted", "3"]


def test_the_ladder_is_the_same_for_worker_and_producer_where_a_topology_is_given_as_a_value(
    monkeypatch,
):
    monkeypatch.delenv("AMQFLOW_DELAY_LEVELS")
    app = AmqFlow("t", topology=Topology(queues=(Queue("default"),)), delay_resolution=0.05)
    assert app.delays == Delays(0.05, 28)
    topology = app.derived_topology(BrokerFacts((3, 10)))
    assert topology.queue("amqflow.delay.0").message_ttl == 0.05
    app.conf.delay_resolution = 0.2
    assert app.declaration.delays == app.delays == Delays(0.2, 28)
