"""`amqflow worker` as a process: found, told what to consume, logging, stopping."""

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from amqflow import AmqFlow
from tests.servers.process import free_port
from tests.servers.wait import until_sync

# Word for word as Celery's users write it, but for the import and the URL.
NOTE = """
# app.py
from amqflow import AmqFlow as Celery

celery_app = Celery(
  'demo',
  broker={broker!r},
  backend={backend!r}
)

@celery_app.task(bind=True, acks_late=True, autoretry_for=(Exception,), retry_backoff=2, max_retries=5)
def add(self, a: int, b: int):
  return a + b

if __name__ == '__main__':
  celery_app.worker_main(['worker', '-l', 'info'])
"""

CALL = """
from app import add
res = add.delay(2, 3)
print(res.id, res.ready(), res.get(timeout=30))
"""


@pytest.fixture
def note(folder, amqp_url, redis_url):
    folder.write(app=NOTE.format(broker=amqp_url, backend=redis_url), call=CALL)
    return folder


@pytest.mark.parametrize(
    ("python", "options"),
    [
        (("-m", "amqflow"), ("-A", "app", "worker")),
        (
            ("-m", "amqflow"),
            ("-A", "app.celery_app", "worker", "-l", "info", "-Q", "default", "-c", "4"),
        ),
        (("-m", "amqflow"), ("-A", "app:celery_app", "worker")),
        (("app.py",), ()),
    ],
    ids=["module", "dotted", "colon", "worker_main"],
)
def test_celerys_first_steps_run_unchanged(note, python, options):
    with note.started(*options, python=python) as worker:
        worker.wait_for("ready")
        call = note.run(python=["call.py"])
        assert worker.stop() == 0
    assert (call.returncode, call.stderr) == (0, "")
    task_id, _ready, value = call.stdout.split()
    assert len(task_id) == 36
    assert value == "5"
    assert "created on the broker:\n" in worker.printed()
    assert "default.dead" in worker.printed()
    assert "success=1" in worker.printed()
    assert "guest:guest" not in worker.printed()


def test_an_application_is_found_in_another_folder_and_in_a_package(folder, amqp_url):
    folder.write(shop__app=NOTE.format(broker=amqp_url, backend=None))
    for options in (["--workdir", "shop", "-A", "app"], ["-A", "shop.app"]):
        with folder.started(*options, "worker", "-l", "INFO") as worker:
            worker.wait_for("ready")
            assert worker.stop(signal.SIGINT) == 0


def test_celerys_project_layout_is_found_by_its_packages_name(folder, amqp_url, redis_url):
    # docs.celeryq.dev, "Next Steps": proj/celery.py and proj/tasks.py, celery -A proj worker.
    folder.write(
        proj__tools="",
        proj__celery=f"""
            from amqflow import AmqFlow as Celery

            app = Celery('proj', broker={amqp_url!r}, backend={redis_url!r},
                         include=['proj.tasks'])
            app.conf.update(result_expires=3600)

            if __name__ == '__main__':
                app.start()
        """,
        proj__tasks="""
            from .celery import app

            @app.task
            def add(x, y):
                return x + y
        """,
        call="from proj.tasks import add\nprint(add.delay(4, 4).get(timeout=30))\n",
    )
    with folder.started("-A", "proj", "worker", "-l", "INFO", "-n", "worker1@%h") as worker:
        worker.wait_for("ready")
        call = folder.run(python=["call.py"])
        assert worker.stop() == 0
    assert (call.returncode, call.stdout, call.stderr) == (0, "8\n", "")
    assert "worker=worker1@" in worker.printed()
    assert "queues=['default']" in worker.printed()  # the user's, not the application's own


# -- options ------------------------------------------------------------------------------------

QUEUES = """
    import threading
    import time
    from pathlib import Path
    from amqflow import AmqFlow

    app = AmqFlow("queues")
    lock, running = threading.Lock(), 0

    def note(word):
        with lock, open("ran.txt", "a") as file:
            file.write(f"{word}\\n")

    @app.task(name="high", queue="high")
    def high():
        note("high")

    @app.task(name="low", queue="low")
    def low():
        note("low")

    together = threading.Barrier(3)

    @app.task(name="meet")
    def meet():
        global running
        with lock:
            running += 1
            now = running
        together.wait(20)  # three at once, or the task fails
        note(now)
        together.wait(20)
        with lock:
            running -= 1

    @app.task(name="hold")
    def hold():
        note("held")
        while not Path("let-go").exists():
            time.sleep(0.01)
"""


@pytest.fixture
def queues(served, amqp_url, redis_url):
    """A folder whose queues a worker has declared, and a caller for them."""
    served.write(app=QUEUES)
    with served.started("-A", "app", "worker") as worker:
        worker.wait_for("ready")
        assert worker.stop() == 0
    with AmqFlow("queues", broker=amqp_url, backend=redis_url) as caller:
        yield served, caller


def ran(folder):
    path = folder.path / "ran.txt"
    return path.read_text().split() if path.exists() else []


def test_weights_say_how_queues_share_a_worker(queues):
    folder, caller = queues
    calls = [caller.send_task("hold", queue=queue) for queue in ["high", "low"] * 60]

    async def waiting():
        transport = caller.runtime().transport
        counts = [await transport.declare_queue(name, passive=True) for name in ("high", "low")]
        return [found.messages for found in counts]

    with folder.started("-A", "app", "worker", "-Q", "high:3,low:1", "-c", "1"):
        # Four held for the one slot, three to one, while the first of them runs.
        until_sync(lambda: caller.run(waiting(), twin="waiting") == [57, 59], deadline=60)
        (folder.path / "let-go").touch()
        for call in calls:
            call.get(timeout=90)


def test_only_the_queues_named_are_consumed(queues):
    folder, caller = queues
    low = caller.send_task("low", queue="low")
    high = caller.send_task("high", queue="high")
    with folder.started("-A", "app", "worker", "-Q", "low"):
        low.get(timeout=60)
    assert not high.ready()
    assert ran(folder) == ["low"]


def test_a_queue_no_task_names_is_consumed_and_remarked(queues):
    folder, caller = queues
    with folder.started("-A", "app", "worker", "-Q", "other") as worker:
        worker.wait_for("ready")
        caller.send_task("high", queue="other").get(timeout=60)
    assert "note: -Q other: not among the queues of 'queues': default, high, low" in (
        worker.printed()
    )


def test_concurrency_is_how_many_run_at_once(queues):
    folder, caller = queues
    calls = [caller.send_task("meet", queue="default") for _ in range(6)]
    with folder.started("-A", "app", "worker", "-c", "3"):
        for call in calls:
            call.get(timeout=30)
    assert max(map(int, ran(folder))) == 3


def test_prefetch_is_slots_times_the_multiplier(queues):
    folder, caller = queues
    calls = [caller.send_task("hold", queue="default") for _ in range(10)]

    async def ready():
        found = await caller.runtime().transport.declare_queue("default", passive=True)
        return found.messages

    options = ["-Q", "default", "-c", "2", "--prefetch-multiplier", "3"]
    with folder.started("-A", "app", "worker", *options) as worker:
        until_sync(lambda: len(ran(folder)) == 2, deadline=60)
        until_sync(lambda: caller.run(ready(), twin="ready") == 4, deadline=30, every=0.1)
        (folder.path / "let-go").touch()
        for call in calls:
            call.get(timeout=60)
        assert worker.stop() == 0


# -- lines --------------------------------------------------------------------------------------

LOGGING = """
    import logging
    import structlog
    from amqflow import AmqFlow, get_logger, get_task_logger

    app = AmqFlow("logging")

    def lines(word):
        get_task_logger(__name__).info("task logger %s", word)
        logging.getLogger("library").warning("stdlib %s", word)
        get_logger("own").info("own", word=word)
        structlog.get_logger("structlog").info("structlog", word=word)

    @app.task(name="child", queue="children")
    def child():
        lines("child")

    @app.task(name="work", bind=True, max_retries=1, queue="work")
    def work(self):
        lines("work")
        if not self.request.retries:
            raise self.retry(countdown=0)
        child.apply_async(task_id="the-child")

    @app.task(name="awork")
    async def awork():
        lines("awork")

    logging.getLogger("library").warning("outside %s", "any task")
"""


def test_each_json_line_of_a_task_says_which_run_wrote_it(served, amqp_url, redis_url):
    served.write(app=LOGGING)
    with (
        served.started("-A", "app", "worker", "--log-format", "json", "-l", "info") as worker,
        AmqFlow("logging", broker=amqp_url, backend=redis_url) as caller,
    ):
        worker.wait_for('"ready"')
        caller.send_task("work", task_id="the-work", queue="work").get(timeout=60)
        caller.send_task("awork", task_id="the-async", queue="default").get(timeout=60)
        caller.AsyncResult("the-child").get(timeout=60)
        assert worker.stop() == 0
    lines = [json.loads(line) for line in worker.printed().splitlines() if line[:1] == "{"]
    runs = Counter(
        (line["task"], line["task_id"], line["root_id"], line["queue"], line["attempt"])
        for line in lines
        if line["event"].startswith(("task logger", "stdlib", "own", "structlog"))
    )
    assert runs == {
        ("work", "the-work", "the-work", "work", 0): 4,
        ("work", "the-work", "the-work", "work", 1): 4,
        ("child", "the-child", "the-work", "children", 0): 4,
        ("awork", "the-async", "the-async", "default", 0): 4,
    }
    assert all({"timestamp", "level", "logger"} <= line.keys() for line in lines)
    assert all("task_id" not in line for line in lines if line["event"] in {"ready", "stopped"})


def test_a_level_leaves_out_what_is_below_it(served, amqp_url, redis_url):
    served.write(app=LOGGING)
    with (
        served.started("-A", "app", "worker", "-l", "warning") as worker,
        AmqFlow("logging", broker=amqp_url, backend=redis_url) as caller,
    ):
        worker.wait_for("created on the broker")
        until_sync(lambda: sent(caller, "awork"), deadline=60)
        caller.AsyncResult("awork-id").get(timeout=60)
        assert worker.stop() == 0
    assert "stdlib awork" in worker.printed()
    assert "task logger" not in worker.printed()
    assert "ready" not in worker.printed()


def sent(caller, name):
    """Send once the queue is there."""
    from amqflow import Unroutable

    try:
        caller.send_task(name, task_id=f"{name}-id", queue="default")
    except Unroutable:
        return False
    return True


# -- what goes wrong -----------------------------------------------------------------------------


def test_a_broker_that_is_away_is_waited_for_and_named(folder):
    port = free_port()
    folder.write(app=NOTE.format(broker=f"amqp://me:hunter2@127.0.0.1:{port}/", backend=None))
    with folder.started("-A", "app", "worker") as worker:
        worker.wait_for(f"connecting to the broker at 127.0.0.1:{port}/")
        assert worker.stop() == 0
    assert "hunter2" not in worker.printed()
    assert "waiting for the broker" in worker.printed()
    assert "Traceback" not in worker.printed()
    assert "aiormq" not in worker.printed()


def test_a_refused_login_ends_the_worker_with_a_sentence(folder, amqp_url):
    host = amqp_url.partition("@")[2]
    folder.write(app=NOTE.format(broker=f"amqp://guest:hunter2@{host}", backend=None))
    done = folder.run("-A", "app", "worker")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: connecting to the broker at")
    assert "refused the login" in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_queue_of_another_shape_ends_the_worker_with_a_sentence(note):
    with note.started("-A", "app", "worker") as worker:
        worker.wait_for("ready")
        assert worker.stop() == 0
    source = Path(note.path / "app.py").read_text()
    note.write(other=source.replace("'demo'", "'other'"))
    done = note.run("-A", "other", "worker")
    assert done.returncode == 1
    assert "error: 2 parts on the broker differ from what is declared" in done.stderr
    assert "queue 'default' exists with other arguments: x-dead-letter-exchange" in done.stderr
    # Nothing of the connection that is given up shows.
    assert "Traceback" not in done.stderr
    assert "destroyed" not in done.stderr


def test_a_redis_that_forgets_is_told_once_at_the_start_with_the_doctors_command(
    served, private_redis
):
    served.write(
        shop="from amqflow import AmqFlow\napp = AmqFlow('shop')\n@app.task\ndef one(): ...\n"
    )
    redis = private_redis()
    redis.cli("CONFIG", "SET", "appendonly", "no")
    redis.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    told = [
        "Redis keeps no append-only file: a crash forgets results and chord counts",
        "redis-cli CONFIG SET appendonly yes; redis-cli CONFIG REWRITE",
        "maxmemory-policy is allkeys-lru",
        "redis-cli CONFIG SET maxmemory-policy noeviction",
    ]
    with served.started("-A", "shop", "worker", AMQFLOW_BACKEND=redis.url) as worker:
        worker.wait_for("noeviction")
        assert worker.stop() == 0
        assert [worker.printed().count(words) for words in told] == [1] * len(told)
    doctor = served.run("-A", "shop", "doctor", AMQFLOW_BACKEND=redis.url)
    assert all(words in doctor.stdout for words in told)


def test_a_redis_that_does_not_say_how_it_is_set_up_runs_tasks_without_a_warning(
    note, amqp_url, private_redis
):
    redis = private_redis()
    redis.cli("CONFIG", "SET", "appendonly", "no")
    redis.cli("ACL", "SETUSER", "default", "-config", "-info")
    note.write(app=NOTE.format(broker=amqp_url, backend=redis.url))
    with note.started("-A", "app", "worker", "-l", "debug") as worker:
        worker.wait_for("does not say how it is set up")
        called = note.run(python=("call.py",))
        assert called.returncode == 0, called.stderr
        assert worker.stop() == 0
        assert "append-only" not in worker.printed()
