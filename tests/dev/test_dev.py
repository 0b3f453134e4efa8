"""`amqflow dev` and `amqflow broker` as users run them: real processes in real terminals' stead."""

import json
import os
import signal
import subprocess
import sys

import pytest

from amqflow import rendezvous
from tests.servers.wait import until_sync

SHOP = """
    from amqflow import AmqFlow

    app = AmqFlow("shop", broker="embedded://")

    @app.task
    def add(x: int, y: int) -> int:
        return x + y
"""

CALL = """
    from shop import add
    print("got", add.delay(2, 3).get(timeout=60))
"""


ANY_PORT = ("--port", "0", "--management-port", "0")


@pytest.fixture
def shop(folder):
    folder.write(shop=SHOP, call=CALL)
    return folder


def called(folder, script="call.py", **environment):
    return folder.run(python=(script,), **environment)


def entry_of(folder, name="default"):
    """Read what is served, as another process would."""
    return rendezvous.find(name)


def test_two_terminals(shop):
    with shop.started("-A", "shop", "dev") as dev:
        dev.wait_for("ready, queues default; tasks shop.add")
        printed = dev.printed()
        entry = entry_of(shop)
        assert "in memory, for development only" in printed
        assert f"  broker      {entry.broker}" in printed
        assert f"  management  {entry.management}" in printed
        assert 'AmqFlow(broker="embedded://") or AMQFLOW_BROKER=embedded://' in printed
        done = called(shop)
        assert (done.stdout, done.stderr, done.returncode) == ("got 5\n", "", 0)
        # The command line joins as well.
        one = shop.run("-A", "shop", "call", "shop.add", "--args", "[1, 1]", "--wait")
        assert one.returncode == 0, one.stderr
        assert "2" in one.stdout
        doctor = shop.run("-A", "shop", "doctor")
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr
        assert "amqflow embedded broker" in doctor.stdout
        assert "embedded://: in memory, for development only" in doctor.stdout
        assert dev.stop(signal.SIGINT) == 0
    assert rendezvous.running() == []


def test_without_a_dev_server_one_sentence_says_what_to_do(shop):
    done = called(shop)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "amqflow.errors.NoEmbeddedBroker: no embedded broker answers for embedded://: run 'amqflow "
        "dev -A app' in another terminal, or use app.running()"
    )
    worker = shop.run("-A", "shop", "worker")
    assert worker.returncode == 1
    assert worker.stderr.splitlines()[-1].startswith("error: no embedded broker answers")


def test_a_saved_file_starts_the_worker_again_with_its_messages(shop):
    with shop.started("-A", "shop", "dev") as dev:
        dev.wait_for("ready, queues default")
        before = entry_of(shop)
        shop.write(shop=SHOP.replace("x + y", "x * y"))
        dev.wait_for("shop.py changed, starting again")
        until_sync(lambda: dev.printed().count("ready, queues default") == 2, deadline=30)
        assert called(shop).stdout == "got 6\n"
        assert entry_of(shop) == before
        assert dev.stop(signal.SIGINT) == 0


def test_a_syntax_error_waits_for_the_next_change_and_keeps_the_messages(shop):
    with shop.started("-A", "shop", "dev") as dev:
        dev.wait_for("ready, queues default")
        broken = SHOP.replace("def add(x", "def add((x")
        shop.write(
            shop=broken,
            late="""
                from amqflow import AmqFlow
                app = AmqFlow("late", broker="embedded://")
                result = app.send_task("shop.add", [20, 22])
                print(result.id)
            """,
            read="""
                import sys
                from amqflow import AmqFlow
                app = AmqFlow("late", broker="embedded://")
                print("got", app.AsyncResult(sys.argv[1]).get(timeout=60))
            """,
        )
        dev.wait_for("the worker cannot run")
        assert "SyntaxError" in dev.printed()
        assert f"at {shop.path / 'shop.py'}:" in dev.printed()
        sent = called(shop, "late.py")
        assert sent.returncode == 0, sent.stderr
        shop.write(shop=SHOP)
        until_sync(lambda: dev.printed().count("ready, queues default") == 2, deadline=30)
        got = shop.run(sent.stdout.strip(), python=("read.py",))
        assert (got.stdout, got.stderr) == ("got 42\n", "")
        assert dev.stop(signal.SIGINT) == 0


SLOW = """
    import time
    from amqflow import AmqFlow

    app = AmqFlow("shop", broker="embedded://")

    @app.task
    def slow(seconds: float) -> str:
        print("begun", flush=True)
        time.sleep(seconds)
        print("ended", flush=True)
        return "done"
"""


def send_slow(folder, seconds):
    folder.write(send=f"from shop import slow\nprint(slow.delay({seconds}).id)\n")
    return called(folder, "send.py").stdout.strip()


def test_ctrl_c_lets_running_tasks_end(folder):
    folder.write(shop=SLOW)
    with folder.started("-A", "shop", "dev", "--no-reload") as dev:
        dev.wait_for("ready, queues default")
        send_slow(folder, 1.0)
        dev.wait_for("begun")
        assert dev.stop(signal.SIGINT) == 0
        assert "stopping; once more" in dev.printed()
        assert "ended" in dev.printed()


def test_a_second_ctrl_c_leaves_at_once(folder):
    folder.write(shop=SLOW)
    with folder.started("-A", "shop", "dev", "--no-reload") as dev:
        dev.wait_for("ready, queues default")
        send_slow(folder, 60)
        dev.wait_for("begun")
        dev.send(signal.SIGINT)
        dev.wait_for("stopping; once more")
        assert dev.stop(signal.SIGINT) == 0
        assert "ended" not in dev.printed()


CRASH = """
    import os
    from pathlib import Path
    from amqflow import AmqFlow

    app = AmqFlow("shop", broker="embedded://")

    @app.task
    def crash_once(path: str) -> str:
        if not Path(path).exists():
            Path(path).touch()
            os._exit(70)
        return "survived"
"""


def test_a_worker_that_crashes_is_started_again_and_its_task_runs_again(folder, tmp_path):
    folder.write(shop=CRASH)
    folder.write(
        call=f"""
            from shop import crash_once
            print("got", crash_once.delay({str(tmp_path / "marker")!r}).get(timeout=30))
        """
    )
    with folder.started("-A", "shop", "dev") as dev:
        dev.wait_for("ready, queues default")
        assert called(folder).stdout == "got survived\n"
        assert "the worker has ended (exit code 70), starting again" in dev.printed()
        assert dev.stop(signal.SIGINT) == 0


def test_without_reloading_the_end_of_the_worker_is_the_end(folder):
    folder.write(shop="import missing_module\n")
    with folder.started("-A", "shop", "dev", "--no-reload") as dev:
        dev.wait_for("the worker has ended (exit code 1)")
        assert dev.wait() == 1
    assert "No module named 'missing_module'" in dev.printed()


def test_an_application_that_is_not_there_is_a_wrong_command_line(folder):
    done = folder.run("-A", "nowhere", "dev", deadline=30)
    assert done.returncode == 2
    assert "no module named 'nowhere'" in done.stderr
    unnamed = folder.run("dev")
    assert unnamed.returncode == 2
    assert "name the application" in unnamed.stderr


def test_a_worker_ends_with_a_dev_server_that_was_killed(shop):
    with shop.started("-A", "shop", "dev") as dev:
        dev.wait_for("ready, queues default")
        (child,) = children_of(dev.pid)
        assert dev.stop(signal.SIGKILL) == -signal.SIGKILL
        until_sync(lambda: not is_alive(child), deadline=60)


def test_dev_joins_a_broker_that_runs_and_ends_with_it(shop):
    with shop.started("broker", "--name", "shop", *ANY_PORT) as broker:
        broker.wait_for("join it")
        before = entry_of(shop, "shop")
        with shop.started("-A", "shop", "dev", "--name", "shop") as dev:
            dev.wait_for("ready, queues default")
            assert f"joined the broker of process {before.pid}" in dev.printed()
            assert 'AmqFlow(broker="embedded://shop")' in dev.printed()
            done = called(shop)
            assert "no embedded broker answers for embedded://: " in done.stderr
            assert "running: embedded://shop" in done.stderr
            assert called(shop, AMQFLOW_BROKER="embedded://shop").stdout == "got 5\n"
            assert broker.stop(signal.SIGTERM) == 0
            dev.wait_for(f"the embedded broker of process {before.pid} has ended")
            assert dev.wait() == 1


def test_a_worker_of_its_own_joins_a_broker(shop):
    """Three terminals: nothing but the rendezvous file ties them together."""
    with shop.started("broker", "--name", "shop", *ANY_PORT) as broker:
        broker.wait_for("join it")
        environment = {"AMQFLOW_BROKER": "embedded://shop"}
        with shop.started("-A", "shop", "worker", **environment) as worker:
            worker.wait_for("ready")
            assert called(shop, **environment).stdout == "got 5\n"
            assert worker.stop() == 0
        second = shop.run("broker", "--name", "shop", *ANY_PORT)
        assert second.returncode == 1
        assert "embedded://shop is served already by process" in second.stderr
        assert broker.stop(signal.SIGINT) == 0


def test_a_worker_goes_on_when_its_broker_comes_back_empty(shop):
    """It declares again what went with the broker's process."""
    environment = {"AMQFLOW_BROKER": "embedded://shop"}
    command = ("broker", "--name", "shop", *ANY_PORT)
    with shop.started(*command) as first:
        first.wait_for("join it")
        with shop.started("-A", "shop", "worker", **environment) as worker:
            worker.wait_for("ready")
            assert first.stop() == 0
            with shop.started(*command) as second:
                worker.wait_for("declared again")
                assert called(shop, **environment).stdout == "got 5\n"
                assert worker.stop() == 0
                assert second.stop() == 0


def test_on_a_real_broker(shop, amqp_url, redis_url):
    environment = {"AMQFLOW_BROKER": amqp_url, "AMQFLOW_BACKEND": redis_url}
    options = ("--broker", amqp_url, "--backend", redis_url)
    with shop.started("-A", "shop", "dev", *options, "--", "-n", "me@%h") as dev:
        dev.wait_for("ready, queues default")
        assert rendezvous.running() == []
        assert "guest:guest" not in dev.printed()
        assert "worker=me@" in dev.printed()
        assert called(shop, **environment).stdout == "got 5\n"
        assert dev.stop(signal.SIGINT) == 0


def test_any_amqp_client_can_use_the_broker(folder):
    pika = """
        import sys
        import pika
        connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
        channel = connection.channel()
        channel.queue_declare("q")
        channel.basic_publish("", "q", b"hello")
        print(channel.basic_get("q", auto_ack=True)[2].decode())
        connection.close()
    """
    folder.write(client=pika)
    with folder.started("broker", *ANY_PORT) as broker:
        broker.wait_for("join it")
        done = folder.run(entry_of(folder).broker, python=("client.py",))
        assert (done.stdout, done.returncode) == ("hello\n", 0), done.stderr
        with folder.started("broker", *ANY_PORT) as second:
            second.wait_for("no name     process")
            assert second.stop() == 0
        assert rendezvous.find("default").pid == broker.pid
        assert broker.stop() == 0


def children_of(pid):
    """Return the processes a process has started, from the kernel."""
    text = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return [int(word) for word in text.split()]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_nothing_heavy_is_imported_for_a_broker_url(folder):
    """A producer that joins pays for no broker, no watcher, no test plugin."""
    code = (
        "import sys, json, amqflow; app = amqflow.AmqFlow('x', broker='embedded://');"
        "print(json.dumps([m for m in sys.modules if m.startswith(('amqflow.broker', 'amqflow.dev',"
        " 'amqflow.testing', 'watchfiles', 'pytest'))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=folder.environment(), capture_output=True, check=True
    )
    assert json.loads(done.stdout) == []


TICK = """
    from amqflow import AmqFlow

    app = AmqFlow(
        "shop",
        broker="embedded://",
        beat_schedule={"often": {"task": "shop.tick", "schedule": 0.5}},
    )

    @app.task
    def tick() -> None:
        print("tick", flush=True)
"""


def test_the_schedule_is_kept_and_seen_by_others(folder):
    folder.write(shop=TICK)
    with folder.started("-A", "shop", "dev", "--no-reload") as dev:
        until_sync(lambda: dev.printed().count("tick\n") > 2, deadline=30)
        assert "single instance" not in dev.printed()
        listed = folder.run("-A", "shop", "beat", "list")
        assert listed.returncode == 0, listed.stderr
        assert "often" in listed.stdout
        assert "single instance" not in listed.stdout + listed.stderr
        assert dev.stop(signal.SIGINT) == 0
    with folder.started("-A", "shop", "dev", "--no-reload", "--no-beat") as dev:
        dev.wait_for("ready, queues default")
        assert dev.stop(signal.SIGINT) == 0
        assert "amqflow.scheduler" not in dev.printed()
