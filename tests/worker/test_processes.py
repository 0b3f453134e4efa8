"""The process pool: a killed child costs one task; children end with their worker."""

import os
import signal
import time
from collections import Counter

import pytest

from amqflow import AmqFlow, ConfigurationError
from amqflow.settings import Settings
from amqflow.worker.pools import Hooks, checked_pool
from amqflow.worker.pools.process import Recipe, how_it_died
from amqflow.worker.pools.processes import ProcessPool
from amqflow.worker.returns import SUSPECT_AFTER
from tests.servers.wait import until, until_sync
from tests.worker.conftest import staged
from tests.worker.test_conformance import alive, failure


@pytest.fixture(scope="module")
def pool(tmp_path_factory, rabbitmq, redis_server, _databases):
    """One worker with two children, which lives through everything its children do."""
    folder = tmp_path_factory.mktemp("processes")
    with staged("processes", folder, rabbitmq, redis_server, _databases) as stage:
        stage.start()
        yield stage
        assert stage.process.poll() is None, stage.log()[-4000:]
        (folder / "go").touch()
        assert stage.stop() == 0, stage.log()[-4000:]


@pytest.fixture
def processes(stage_of):
    def start(*options, slots=2):
        stage = stage_of("processes", *options)
        stage.start(slots=slots)
        return stage

    return start


def test_a_killed_child_costs_the_one_task_it_ran(pool):
    held = pool.send("hold", "victim")
    (pid,) = pool.wait_lines("victim.held")
    load = [pool.send("add", n, 0) for n in range(40)]
    os.kill(int(pid), signal.SIGKILL)
    assert [one.get(timeout=30) for one in load] == list(range(40))
    pool.wait_lines("victim.held", 2)
    (pool.folder / "go").touch()
    assert held.get(timeout=30) != int(pid)
    (pool.folder / "go").unlink()
    assert len(pool.lines("victim.held")) == 2
    (line,) = [
        line
        for line in pool.log().splitlines()
        if "died in the middle of a task" in line and held.id in line
    ]
    assert "SIGKILL" in line
    assert pid in line
    assert "hold" in line


def test_a_task_that_dies_once_runs_again_elsewhere(pool):
    assert pool.get("vanishes_once") in pool.children()


@pytest.mark.parametrize("task", ["segfaults", "vanishes"])
def test_a_task_that_always_kills_its_child_is_parked_as_poison_and_others_go_on(pool, task):
    before = [pool.send("add", n, 0) for n in range(10)]
    killer = pool.send(task)
    after = [pool.send("add", n, 0) for n in range(10)]
    assert [one.get(timeout=60) for one in before + after] == list(range(10)) * 2
    error = killer.get(timeout=60, propagate=False)
    assert "times while this message was in its hands" in str(error)
    runs = SUSPECT_AFTER + Settings().poison_limit
    assert len(pool.lines(f"{task}.ran")) == runs
    assert ("SIGSEGV" if task == "segfaults" else "exit code 7") in pool.log()
    if task == "segfaults":
        assert "Segmentation fault" in pool.log(), "faulthandler shows where"


def test_a_task_that_is_not_to_run_again_has_failed(pool):
    result = pool.send("not_again")
    assert failure(result) == "WorkerLost"
    assert "exit code 7" in str(result.result)
    assert len(pool.lines("not_again.ran")) == 1


def test_a_task_that_eats_all_memory_has_failed(pool):
    assert failure(pool.send("eats")) == "MemoryError"
    # Its child's limit stays; the pool goes on.
    assert [pool.get("add", n, 0) for n in range(4)] == list(range(4))


def test_an_error_from_a_signal_handler_is_the_tasks(pool):
    error = pool.send("handler_raises", 5.0).get(timeout=30, propagate=False)
    assert "from a signal handler" in str(error)


def test_an_alarm_left_behind_harms_nobody(pool):
    assert pool.get("handler_raises", 0.0) in pool.children()
    until_sync(lambda: "outside any task" in pool.log(), deadline=60)
    assert [pool.get("add", n, 0) for n in range(6)] == list(range(6))


def test_what_a_task_started_dies_with_it_at_the_hard_limit(pool):
    result = pool.send("starts_a_process", time_limit=1.0)
    (started,) = pool.wait_lines("started")
    assert failure(result) == "TimeLimitExceeded"
    until_sync(lambda: not alive(int(started)), deadline=30)


def test_a_killed_slot_is_free_again_at_once(processes):
    """A spare child is warm: the next task starts in it, within 200 ms on an idle machine."""
    stage = processes(slots=1)
    assert stage.get("add", 1, 1, time_limit=30) == 2  # from now on a spare one is kept
    until_sync(lambda: len(stage.lines("born")) == 2, deadline=30)
    warm = stage.lines("born")
    stage.send("late", time_limit=0.5)
    following = stage.send("hold", "next")
    (began,) = stage.wait_lines("late")
    (pid,) = stage.wait_lines("next.held")
    print(f"free again {(time.time() - float(began) - 0.5) * 1000:.0f} ms after the limit")
    assert pid in warm, "a child that was warm before the limit, not one that started then"
    (stage.folder / "go").touch()
    following.get(timeout=30)


@pytest.mark.slow
def test_children_retire_after_their_tasks_and_none_is_lost(processes):
    stage = processes("--max-tasks-per-child", "5")
    pids = [one.get(timeout=60) for one in [stage.send("pid") for _ in range(40)]]
    runs = Counter(pids)
    assert runs.total() == 40
    assert max(runs.values()) <= 5
    assert len(runs) >= 8
    until_sync(lambda: len(stage.lines("gone")) >= len(runs) - 2, deadline=30)
    assert set(map(str, runs)) <= set(stage.lines("born")), "each child was initialised"
    assert "retires" in stage.log()


@pytest.mark.slow
def test_a_child_that_holds_too_much_memory_is_replaced(processes):
    stage = processes("--max-memory-per-child", str(150 * 1024), slots=1)
    first = stage.get("hoards", 200)
    until_sync(lambda: "KiB, more than" in stage.log(), deadline=60)
    assert stage.get("pid") != first


def test_children_and_what_they_started_end_with_their_worker_however_it_dies(processes):
    stage = processes()
    stage.send("starts_a_process")
    (started,) = stage.wait_lines("started")
    children = stage.children()
    assert len(children) == 2
    stage.process.kill()
    stage.process.wait(10)
    until_sync(lambda: not any(map(alive, [*children, int(started)])), deadline=30)


def test_told_once_children_finish_and_leave(processes):
    stage = processes()
    held = [stage.send("hold", "held"), stage.send("ahold", "held")]
    stage.wait_lines("held.held", 2)
    waiting = [stage.send("add", n, 0) for n in range(4)]
    children = stage.children()
    os.killpg(os.getpgid(children[0]), signal.SIGTERM)  # as systemd tells a whole group
    stage.process.send_signal(signal.SIGTERM)
    until_sync(lambda: "stopping" in stage.log(), deadline=30)
    assert stage.process.poll() is None
    (stage.folder / "go").touch()
    assert stage.process.wait(20) == 0, stage.log()
    assert [one.get(timeout=30) for one in held]
    assert not any(map(alive, children))
    assert len(stage.lines("gone")) == 2, "they said goodbye"
    stage.start()
    assert [one.get(timeout=30) for one in waiting] == list(range(4))


@pytest.mark.slow
def test_told_twice_children_are_killed_and_their_tasks_run_elsewhere(processes):
    stage = processes()
    held = [stage.send("hold", "held"), stage.send("ahold", "held")]
    stage.wait_lines("held.held", 2)
    children = stage.children()
    stage.process.send_signal(signal.SIGTERM)
    until_sync(lambda: "stopping" in stage.log(), deadline=30)
    stage.process.send_signal(signal.SIGTERM)
    assert stage.process.wait(10) == 0, stage.log()
    assert not any(map(alive, children))
    (stage.folder / "go").touch()
    stage.start()
    assert all(one.get(timeout=30) for one in held)
    assert len(stage.lines("held.held")) == 4


def test_short_tasks_behind_a_long_one_run_elsewhere(pool):
    """Short tasks are handed out a few ahead; one that turns long does not hold them up."""
    (pool.folder / "go").unlink(missing_ok=True)
    for n in range(30):  # known to be short from now on
        pool.get("add", n, 0)
    calls = [pool.send("add", n, 0) for n in range(20)]
    held = pool.send("sometimes", 0)
    for n in range(1, 8):  # as many short runs of the same name: it counts as short
        pool.get("sometimes", n)
    held.get(timeout=30)
    held = pool.send("sometimes", -1)
    calls += [pool.send("sometimes", n) for n in range(1, 20)]
    calls += [pool.send("add", n, 0) for n in range(20)]
    assert [one.get(timeout=30) for one in calls] == [*range(20), *range(1, 20), *range(20)]
    assert not held.ready()
    (pool.folder / "go").touch()
    assert held.get(timeout=30) == -1


def test_children_killed_under_load_cost_one_task_each(pool):
    """Every task ends once; what ran twice was in a killed child's hands, one per kill."""
    before = len(pool.lines("counted"))
    calls = [pool.send("counted", n) for n in range(600)]
    killed = 0
    for share in (0.2, 0.4, 0.6):
        until_sync(lambda s=share: len(pool.lines("counted")) - before >= 600 * s, deadline=60)
        os.kill(pool.children()[0], signal.SIGKILL)
        killed += 1
    assert [one.get(timeout=60) for one in calls] == list(range(600))
    runs = Counter(pool.lines("counted")[before:])
    assert len(runs) == 600
    assert runs.total() - 600 <= killed


def test_a_soft_limit_reaches_a_task_that_its_child_was_late_to_begin(pool):
    """The signal comes while the job is on its way: it must not be lost."""
    children = pool.children()
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    try:
        results = [pool.send("late", f"belated{n}", soft_time_limit=0.3) for n in range(2)]
        time.sleep(1.0)  # the worker's clock for both limits
    finally:
        for pid in children:
            os.kill(pid, signal.SIGCONT)
    assert [failure(result) for result in results] == ["SoftTimeLimitExceeded"] * 2


@pytest.mark.parametrize(("name", "handler"), [("processes", "own"), ("solo", "ignored")])
def test_a_task_that_takes_the_signal_of_soft_limits_costs_no_later_task_its_limit(
    stage_of, name, handler
):
    stage = stage_of(name)
    stage.start(slots=1)
    pid = stage.get("takes_signal", handler)
    taker = stage.get("takes_signal", handler, soft_time_limit=30)  # put back, and taken again
    assert taker == pid, "the same process runs on"
    late = stage.send("late", soft_time_limit=0.3)
    assert failure(late) == "SoftTimeLimitExceeded"
    assert failure(stage.send("late", soft_time_limit=0.3)) == "SoftTimeLimitExceeded"
    warned = [line for line in stage.log().splitlines() if "the signal of soft time limits" in line]
    assert len(warned) == 2, "once for each time it was taken"
    assert all("ran_before=takes_signal" in line and "SIGUSR1" in line for line in warned)


@pytest.mark.slow
async def test_a_child_that_dies_while_others_start_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("POOL_FOLDER", str(tmp_path))
    from tests.worker.pool_app import app

    freed = []
    hooks = Hooks(
        ended=lambda _, slots: freed.append(slots),
        **dict.fromkeys(("take", "again", "admit", "began", "concluded", "around")),
    )
    pool = ProcessPool(hooks, 2, Recipe.of(app, max_tasks=None, max_memory=None))
    spawn, dead = pool._spawn, []

    async def dying():
        child = await spawn()
        if not dead:
            dead.append(child)
            os.kill(child.pid, signal.SIGKILL)
            await child.exited.wait()
        return child

    pool._spawn = dying
    try:
        await pool.start()
        await until(lambda: freed == [-1, 1], deadline=30)
        assert len(pool._idle) == 2
        assert dead[0] not in pool._idle
    finally:
        await pool.close()


# -- what is refused ------------------------------------------------------------------------------


def test_an_application_that_children_cannot_import_is_refused_with_the_way_out():
    with pytest.raises(ConfigurationError, match="top level of a module, or use -P threads"):
        Recipe.of(AmqFlow("local"), max_tasks=None, max_memory=None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gevent", "use asyncio with async def tasks, or threads"),
        ("eventlet", "use asyncio with async def tasks, or threads"),
        ("proccesses", "the pools are auto, asyncio, threads, processes, solo"),
    ],
)
def test_an_unknown_pool_is_refused_with_what_to_use(name, words):
    with pytest.raises(ConfigurationError, match=words):
        checked_pool(name)


def test_prefork_is_processes():
    assert checked_pool("prefork") == "processes"


@pytest.mark.parametrize(
    ("code", "words"),
    [(3, "exit code 3"), (-9, "killed by SIGKILL"), (-11, "killed by SIGSEGV")],
)
def test_how_a_child_died_is_said_in_words(code, words):
    assert how_it_died(code) == words
