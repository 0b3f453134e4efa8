"""``apply`` and ``task_always_eager``: Celery's results, retries, links and signals, in process."""

from __future__ import annotations

import asyncio

import pytest

from amqflow import signals
from amqflow.errors import Ignore, InvalidArguments, InvalidResult, Reject, SyncInLoop
from amqflow.handles import EagerResult
from tests.tasks.recording import RecordingApp


@pytest.fixture
def app():
    return RecordingApp()


def test_a_value(app):
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    result = add.apply(("1",), {"y": 2}, task_id="mine")
    assert isinstance(result, EagerResult)
    assert (result.get(), result.state, result.id, result.successful()) == (
        3,
        "SUCCESS",
        "mine",
        True,
    )
    assert app.sent == []


def test_a_failure_is_kept_or_thrown(app):
    @app.task
    def fail():
        raise ValueError("broken")

    result = fail.apply()
    assert (result.state, result.failed(), str(result.result)) == ("FAILURE", True, "broken")
    assert "ValueError: broken" in result.traceback
    with pytest.raises(ValueError, match="broken"):
        result.get()
    assert isinstance(result.get(propagate=False), ValueError)
    with pytest.raises(ValueError, match="broken"):
        fail.apply(throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="broken"):
        fail.apply()
    assert fail.apply(throw=False).failed()


def test_the_request_is_complete(app):
    @app.task(bind=True)
    def look(self):
        request = self.request
        return (
            request.id,
            request.root_id,
            request.is_eager,
            request.called_directly,
            request.task,
        )

    assert look.apply(task_id="x").get() == ("x", "x", True, False, look.name)


def test_retries_run_at_once(app):
    runs = []

    @app.task(bind=True, max_retries=3)
    def flaky(self, x):
        runs.append((self.request.retries, x, self.request.id))
        if len(runs) < 3:
            raise self.retry(args=(x + 1,), countdown=3600)
        return x

    assert flaky.apply((1,), task_id="i").get() == 3
    assert runs == [(0, 1, "i"), (1, 2, "i"), (2, 3, "i")]


def test_autoretry_ends_in_the_error(app):
    runs = []

    @app.task(autoretry_for=(OSError,), max_retries=2)
    def flaky():
        runs.append(1)
        raise OSError("gone")

    assert flaky.apply().failed()
    assert len(runs) == 3


def test_ignore_and_reject(app):
    @app.task
    def one(error):
        raise {"ignore": Ignore, "reject": Reject}[error]("x")

    assert [one.apply((name,)).state for name in ("ignore", "reject")] == ["IGNORED", "REJECTED"]
    assert one.apply(("ignore",)).get() is None


def test_arguments_and_result_are_checked(app):
    @app.task
    def wrong() -> int:
        return "x"

    with pytest.raises(InvalidArguments):
        wrong.apply((1,))
    assert isinstance(wrong.apply().result, InvalidResult)


def test_an_async_task_in_plain_code_and_in_a_loop(app):
    @app.task
    async def add(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    async def main():
        with pytest.raises(SyncInLoop, match="aapply"):
            add.apply((1,))
        return (await add.aapply((1,))).get()

    assert add.apply((1,)).get() == 2
    assert asyncio.run(main()) == 2


async def test_a_plain_task_by_its_async_twin(app):
    @app.task
    def add(x: int) -> int:
        return x + 1

    assert await (await add.aapply((1,))) == 2


def test_always_eager_sends_nothing(app):
    app.conf.task_always_eager = True

    @app.task
    def add(x: int) -> int:
        return x + 1

    assert add.delay(1).get() == 2
    assert add.apply_async((1,), countdown=3600).get() == 2
    assert add.s(1).delay().get() == 2
    assert asyncio.run(add.adelay(1)).get() == 2
    assert app.sent == []


def test_links_and_errbacks_follow(app):
    app.conf.task_always_eager = True
    seen = []

    @app.task
    def work(x):
        if x is None:
            raise ValueError("broken")
        return x

    @app.task
    def note(*args):
        seen.append(args)

    work.apply_async((5,), link=[note.s("more"), note.si("only")])
    assert seen == [(5, "more"), ("only",)]
    seen.clear()
    work.apply_async((None,), task_id="i", link=note.s(), link_error=note.s())
    ((request, error, trace),) = seen
    assert request["id"] == "i"
    assert error == {"exc_type": "ValueError", "exc_module": "builtins", "exc_message": "broken"}
    assert "Traceback" in trace


def test_a_link_to_a_task_known_elsewhere_is_sent(app):
    @app.task
    def work():
        return 5

    work.apply(link={"task": "elsewhere.task", "args": [1]})
    assert [(call.task, call.args) for call in app.sent] == [("elsewhere.task", (5, 1))]


def test_signals_are_sent_as_by_a_worker(app):
    @app.task(bind=True, max_retries=1)
    def work(self, fail):
        if fail:
            raise self.retry(exc=ValueError("broken"))
        return 5

    seen = []
    receivers = []
    for name in ("prerun", "postrun", "success", "failure", "retry"):
        signal = getattr(signals, f"task_{name}")

        def receiver(sender, name=name, **named):
            seen.append((name, sender.name, named.get("retval", named.get("result"))))

        signal.connect(receiver, sender=work)
        receivers.append((signal, receiver))
    try:
        work.apply((False,))
        assert [(name, value) for name, _, value in seen] == [
            ("prerun", None),
            ("success", 5),
            ("postrun", 5),
        ]
        assert {task for _, task, _ in seen} == {work.name}
        seen.clear()
        work.apply((True,))
        assert [name for name, _, _ in seen] == [
            "prerun",
            "retry",
            "postrun",
            "prerun",
            "failure",
            "postrun",
        ]
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver, sender=work)
