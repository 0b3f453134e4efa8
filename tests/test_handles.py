"""Handles: what they answer, raise and keep, over a reader that holds outcomes."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

import pytest

from amqflow.abc import ExceptionInfo, Outcome, Sent
from amqflow.current import Applications
from amqflow.errors import (
    ConfigurationError,
    ResultTimeout,
    SyncInLoop,
    TaskFailed,
    TaskRevoked,
    rebuild_exception,
)
from amqflow.handles import AsyncResult, EagerResult, GroupResult
from tests.held import HeldOutcomes


class OddError(Exception):
    """Takes other arguments than it passes on."""

    def __init__(self, code, *, extra):
        super().__init__(code)
        self.extra = extra


FAILED = Outcome(
    "bad", "FAILURE", exception=ExceptionInfo("ValueError", "builtins", ("broken",), "broken"),
    traceback="Traceback …", date_done=1_900_000_000.0, children=("c1", "c2"),
)  # fmt: skip


async def test_a_task_that_raised_stop_iteration_says_so_through_a_coroutine():
    stopped = ExceptionInfo("StopIteration", "builtins", ("at last",), "at last")
    result = AsyncResult("s", HeldOutcomes(s=Outcome("s", "FAILURE", exception=stopped)))
    with pytest.raises(TaskFailed, match="StopIteration: at last"):
        await result.aget()
    with pytest.raises(TaskFailed, match="StopIteration"):
        await GroupResult("g", [result], result._reader).aget()


@pytest.fixture
def reader():
    return HeldOutcomes(
        good=Outcome("good", "SUCCESS", 5, date_done=1_900_000_000.0),
        bad=FAILED,
        revoked=Outcome("revoked", "REVOKED", reason="expired"),
        going=Outcome("going", "PROGRESS", {"done": 1}),
        again=Outcome("again", "RETRY", exception=FAILED.exception),
    )


def test_a_value(reader):
    result = AsyncResult("good", reader)
    assert (result.get(), result.state, result.status, result.result, result.info) == (
        5, "SUCCESS", "SUCCESS", 5, 5,
    )  # fmt: skip
    assert result.ready()
    assert result.successful()
    assert not result.failed()
    assert result.traceback is None
    assert result.date_done == datetime.fromtimestamp(1_900_000_000, UTC)
    assert result.children == []


def test_a_value_is_converted_back_by_the_task(reader):
    assert AsyncResult("good", reader, task="t").get() == "t:5"
    assert AsyncResult("good", reader, task="t").result == "t:5"


def test_a_failure_is_the_tasks_own_exception(reader):
    result = AsyncResult("bad", reader)
    with pytest.raises(ValueError, match="broken"):
        result.get()
    assert isinstance(result.get(propagate=False), ValueError)
    assert isinstance(result.result, ValueError)
    assert result.failed()
    assert result.ready()
    assert result.traceback == "Traceback …"
    assert [child.id for child in result.children] == ["c1", "c2"]


def test_a_revoked_one(reader):
    result = AsyncResult("revoked", reader)
    with pytest.raises(TaskRevoked, match="expired"):
        result.get()
    assert (result.ready(), result.failed(), result.state) == (True, False, "REVOKED")


def test_unknown_and_unfinished_ones(reader):
    pending, going, again = (AsyncResult(name, reader) for name in ("nothing", "going", "again"))
    assert (pending.state, pending.result, pending.ready(), pending.date_done) == (
        "PENDING", None, False, None,
    )  # fmt: skip
    assert (pending.traceback, pending.children, pending.outcome()) == (None, [], None)
    assert (going.state, going.info, going.ready()) == ("PROGRESS", {"done": 1}, False)
    assert (again.state, type(again.result)) == ("RETRY", ValueError)


def test_a_time_out_says_why(reader):
    result = AsyncResult("nothing", reader, task="shop.send", queue="email")
    with pytest.raises(
        ResultTimeout,
        match=r"shop.send\[nothing\] gave no result within 0.5 s: queue email: 12 ready, 0 consumers",
    ) as caught:
        result.get(timeout=0.5)
    assert reader.explained == [("nothing", "email")]
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(ResultTimeout, match="task nothing gave"):
        AsyncResult("nothing", reader).get(timeout=1)


def test_an_ended_one_is_read_once_and_others_each_time(reader):
    ended, going = AsyncResult("good", reader), AsyncResult("going", reader)
    for _ in range(3):
        _ = ended.get(), ended.state
    assert reader.reads == 1
    for _ in range(3):
        _ = going.state
    assert reader.reads == 4


def test_forget(reader):
    result = AsyncResult("good", reader)
    assert result.ready()
    result.forget()
    assert result.state == "PENDING"


async def test_async_twins(reader):
    good, bad = AsyncResult("good", reader), AsyncResult("bad", reader)
    assert await good.aget() == await good == 5
    assert await good.astate() == "SUCCESS"
    assert await good.aready()
    assert await good.asuccessful()
    assert await good.aresult() == 5
    assert await bad.afailed()
    with pytest.raises(ValueError, match="broken"):
        await bad
    assert isinstance(await bad.aget(propagate=False), ValueError)
    await good.aforget()
    assert await good.aoutcome() is None


@pytest.mark.parametrize(
    ("verb", "twin"),
    [
        (lambda result: result.get(), "aget"),
        (lambda result: result.ready(), "aoutcome"),
        (lambda result: result.state, "aoutcome"),
        (lambda result: result.forget(), "aforget"),
    ],
    ids=["get", "ready", "state", "forget"],
)
async def test_blocking_in_a_loop_names_the_twin(reader, verb, twin):
    with pytest.raises(SyncInLoop, match=twin):
        verb(AsyncResult("good", reader))


def test_handles_are_equal_by_id(reader):
    one, other = AsyncResult("good", reader), AsyncResult.of(Sent("good", "t", "q"), reader)
    assert one == other
    assert len({one, other, AsyncResult("bad", reader)}) == 2
    assert one != "good"
    assert (str(one), repr(one), one.task_id) == ("good", "<AsyncResult: good>", "good")
    assert (other.name, other.queue) == ("t", "q")


# -- exceptions ---------------------------------------------------------------------------------


def test_an_exception_is_rebuilt_only_from_what_is_here():
    assert rebuild_exception(ExceptionInfo("KeyError", "builtins", ("x",))).args == ("x",)
    assert rebuild_exception(ExceptionInfo("KeyError", "", ("x",))).args == ("x",)
    odd = rebuild_exception(ExceptionInfo("OddError", __name__, (5,), "5"))
    assert (type(odd), odd.args) == (OddError, (5,))
    unknown = rebuild_exception(ExceptionInfo("Broken", "not.here", (1,), "text"))
    assert isinstance(unknown, TaskFailed)
    assert str(unknown) == "not.here.Broken: text"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"), ("builtins", "exec"), ("builtins", "SystemExit"), ("builtins", "dict"),
        ("subprocess", "Popen"), ("builtins", "__import__"), ("os", "path.join"), ("antigravity", "X"),
    ],
)  # fmt: skip
def test_nothing_but_exceptions_is_made(module, name):
    import sys

    before = set(sys.modules)
    assert isinstance(rebuild_exception(ExceptionInfo(name, module, ("true",), "t")), TaskFailed)
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", ["TaskRevoked", "TaskRevokedError"])
def test_a_revoke_by_us_or_celery(name):
    assert isinstance(
        rebuild_exception(ExceptionInfo(name, "celery.exceptions", ("x",))), TaskRevoked
    )


# -- eager --------------------------------------------------------------------------------------


async def test_an_eager_result_answers_at_once_even_in_a_loop():
    result = EagerResult("i", 5, "SUCCESS", task="t")
    assert (result.get(timeout=1), result.state, result.result, result.ready()) == (
        5,
        "SUCCESS",
        5,
        True,
    )
    assert await result == 5
    assert await result.aready()
    assert await result.aresult() == 5
    assert result.outcome().result == 5
    assert (result.date_done, result.children, repr(result)) == (None, [], "<EagerResult: i>")
    result.forget()
    await result.aforget()


def test_an_eager_failure():
    error = ValueError("x")
    result = EagerResult("i", error, "FAILURE", traceback="tb")
    assert result.failed()
    assert (result.result, result.traceback) == (error, "tb")
    assert result.outcome().exception == ExceptionInfo("ValueError", "builtins", ("x",), "x")
    with pytest.raises(ValueError, match="x"):
        result.get()


def test_a_handle_by_its_id_is_the_current_applications(reader, monkeypatch):
    known = Applications()
    monkeypatch.setattr("amqflow.handles.base.applications", known)
    for make in (lambda: AsyncResult("good"), lambda: GroupResult("g")):
        with pytest.raises(ConfigurationError, match="make an application first, or name one"):
            make()
    known.add(reader)
    assert AsyncResult("good").get() == 5
    assert AsyncResult("good", app=reader).get() == 5
    group = GroupResult("g", [AsyncResult("good"), AsyncResult("good", app=reader)])
    assert group.get() == [5, 5]
    assert GroupResult("g", (AsyncResult(one) for one in ["good"]), app=reader).get() == [5]


@pytest.mark.parametrize("kind", [AsyncResult, GroupResult])
@pytest.mark.parametrize("given", [None, "", 5])
def test_what_is_no_id_is_refused(reader, kind, given):
    with pytest.raises(ValueError, match=f"{kind.__name__}: the id of a result is a text"):
        kind(given, app=reader)


def test_maybe_throw_raises_what_has_failed_and_waits_for_nothing(reader):
    seen = []
    with pytest.raises(ValueError, match="broken"):
        AsyncResult("bad", reader).maybe_throw()
    with pytest.raises(TaskRevoked):
        AsyncResult("revoked", reader).maybe_reraise()
    assert isinstance(AsyncResult("bad", reader).maybe_throw(propagate=False), ValueError)
    assert AsyncResult("nothing", reader).maybe_throw() is None
    assert AsyncResult("going", reader).maybe_throw() == {"done": 1}
    assert AsyncResult("good", reader).maybe_throw(callback=lambda *end: seen.append(end)) == 5
    assert seen == [("good", 5)]
    assert EagerResult("e", 3, "SUCCESS").maybe_throw() == 3
    with pytest.raises(ValueError, match="no"):
        EagerResult("e", ValueError("no"), "FAILURE").maybe_throw()


def test_a_group_throws_for_its_first_failure(reader):
    def group(*ids):
        return GroupResult("g", [AsyncResult(one, reader) for one in ids], reader)

    seen = []
    group("good", "going", "nothing").maybe_throw(lambda *end: seen.append(end))
    assert seen == [("good", 5), ("going", {"done": 1}), ("nothing", None)]
    whole = GroupResult("h", [group("good"), group("good", "bad")], reader)
    with pytest.raises(ValueError, match="broken"):
        whole.maybe_throw()
    whole.maybe_throw(propagate=False)


def test_a_groups_handles_may_be_added_and_taken_out(reader):
    one, other = AsyncResult("one", reader), AsyncResult("other", reader)
    group = GroupResult("g", [one], reader)
    group.add(other)
    group.add(AsyncResult("one", reader))
    assert group.results == [one, other]
    group.remove("one")
    with pytest.raises(KeyError):
        group.remove(one)
    group.discard(one)
    group.update([one, other])
    assert group.results == [other, one]
    group.remove(other)
    group.clear()
    assert len(group) == 0


def test_exists_tells_whether_the_store_knows_it(reader):
    assert AsyncResult("going", reader).exists()
    assert not AsyncResult("nothing", reader).exists()


@pytest.mark.parametrize("given", [None, "TERM", "SIGKILL", signal.SIGTERM, 9])
def test_a_signal_that_ends_a_process_says_what_terminate_does(reader, given):
    AsyncResult("going", reader).revoke(terminate=True, signal=given)
    GroupResult("g", [AsyncResult("going", reader)], reader).revoke(signal=given)
    assert reader.revoked == [(("going",), True), (("going",), False)]


@pytest.mark.parametrize("given", ["SIGUSR1", signal.SIGINT, 10])
def test_another_signal_is_refused(reader, given):
    group = GroupResult("g", [AsyncResult("going", reader)], reader)
    for result in (AsyncResult("going", reader), group):
        with pytest.raises(ConfigurationError, match="terminate=True ends a task in every pool"):
            result.revoke(terminate=True, signal=given)
    assert reader.revoked == []
