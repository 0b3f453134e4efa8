"""A task's verbs: sending, plain calls, retry, options as attributes, base classes."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from amqflow import AmqFlow
from amqflow.errors import (
    ConfigurationError,
    EncodeError,
    InvalidArguments,
    MaxRetriesExceeded,
    NoResultStore,
    Retry,
    SyncInLoop,
)
from amqflow.handles import AsyncResult
from amqflow.tasks import RateLimit, Request, Task, running
from tests.tasks.recording import RecordingApp


@pytest.fixture
def app():
    return RecordingApp()


@pytest.fixture
def send(app):
    @app.task(bind=True, max_retries=2, default_retry_delay=7)
    def send(self, to: str, body: str = "hello") -> int:
        return len(to)

    return send


def inside(task, **fields):
    """Make ``task`` the running one."""
    return running(task, Request(id="id", task=task.name, called_directly=False, **fields))


# -- sending ------------------------------------------------------------------------------------


def test_delay_sends_the_validated_arguments(app, send):
    result = send.delay("a@b.c", body="hi")
    assert isinstance(result, AsyncResult)
    (call,) = app.sent
    assert (call.task, call.args, call.kwargs) == (send.name, ("a@b.c",), {"body": "hi"})
    assert (call.root_id, call.parent_id, call.priority, call.eta) == (None, None, None, None)
    assert (result.task, result.queue) == (send.name, None)


def test_what_does_not_fit_never_leaves(app, send):
    for wrong in (lambda: send.delay(1), send.delay, lambda: send.apply_async((1, 2, 3))):
        with pytest.raises(InvalidArguments):
            wrong()
    assert app.sent == []


def test_apply_async_takes_celerys_options(app, send):
    before = time.time()
    send.apply_async(
        ("a",), {"body": "b"}, countdown=10, priority=3, queue="q", task_id="mine", link=send.s("x")
    )
    (call,) = app.sent
    assert before + 10 <= call.eta <= time.time() + 10
    assert (call.priority, call.queue, call.task_id) == (3, "q", "mine")
    assert call.callbacks[0]["task"] == send.name
    with pytest.raises(ConfigurationError, match="countdown"):
        send.apply_async(("a",), countdwon=1)


async def test_async_twins(app, send):
    await send.adelay("a")
    await send.aapply_async(("b",), queue="q")
    assert [call.args for call in app.sent] == [("a",), ("b",)]


async def test_blocking_in_a_loop_names_the_twin(send):
    with pytest.raises(SyncInLoop, match="adelay"):
        send.delay("a")
    with pytest.raises(SyncInLoop, match="aapply_async"):
        send.apply_async(("a",))


def test_a_task_sent_by_a_running_one_descends_from_it(app, send):
    request = Request(id="p", root_id="r", called_directly=False, delivery_info={"priority": 7})
    with running(send, request):
        result = send.delay("a")
        send.apply_async(("a",), root_id="other", parent_id="me", add_to_parent=False)
    first, second = app.sent
    assert (first.root_id, first.parent_id, first.priority) == ("r", "p", None)
    assert (second.root_id, second.parent_id) == ("other", "me")
    assert request.children == (result.id,)


def test_priority_is_inherited_on_request():
    app = RecordingApp(task_inherit_parent_priority=True)

    @app.task
    def child(): ...

    with running(child, Request(id="p", called_directly=False, delivery_info={"priority": 7})):
        child.delay()
        child.apply_async(priority=1)
    assert [call.priority for call in app.sent] == [7, 1]


def test_a_shadow_name_is_computed(app):
    @app.task(shadow_name=lambda task, args, kwargs, options: f"{task.name}:{args[0]}")
    def one(x): ...

    one.delay(5)
    one.apply_async((5,), shadow="given")
    assert [call.shadow for call in app.sent] == [f"{one.name}:5", "given"]


def test_typing_off_checks_nothing(app):
    @app.task(typing=False)
    def loose(a: int) -> int:
        return a

    loose.delay("x", "y")
    assert app.sent[0].args == ("x", "y")
    assert loose.apply(("x",)).get() == "x"


def test_without_an_application_nothing_is_sent():
    task = Task()
    task.declare("alone", lambda x: x)
    assert task(5) == 5
    with pytest.raises(ConfigurationError, match="alone belongs to no application"):
        task.delay(5)


# -- plain calls --------------------------------------------------------------------------------


def test_a_plain_call_runs_the_function_as_it_is(app, send):
    assert send("a@b.c") == 5
    with pytest.raises(TypeError, match="object of type 'int'"):
        send(5)
    assert app.sent == []


def test_an_async_task_is_awaited(app):
    @app.task(bind=True)
    async def add(self, x: int) -> int:
        await asyncio.sleep(0)
        return x + len(self.request.args)

    assert add.is_async
    assert asyncio.run(add(1)) == 2
    assert asyncio.run(add.run_async(1)) == 1


def test_it_looks_like_its_function(send):
    assert send.__name__ == "send"
    assert send.__module__ == __name__
    assert send.name == f"{__name__}.send"
    assert send.name in repr(send)


# -- retry --------------------------------------------------------------------------------------


def test_retry_raises_with_time_and_cause(send):
    cause = OSError("gone")
    for given, delay in [
        ({}, 7),
        ({"countdown": 3}, 3),
        ({"countdown": 0}, 0),
        ({"countdown": timedelta(minutes=1)}, 60),
    ]:
        before = time.time()
        with inside(send, retries=1), pytest.raises(Retry) as caught:
            raise send.retry(exc=cause, **given)
        assert before + delay <= caught.value.when <= time.time() + delay
        assert caught.value.exc is cause
        assert caught.value.new_args is caught.value.new_kwargs is None
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    with inside(send), pytest.raises(Retry) as caught:
        send.retry(eta=moment)
    assert caught.value.when == moment.timestamp()


def test_a_retry_goes_to_a_queue_and_says_so(send):
    with inside(send), pytest.raises(ConfigurationError, match="give queue=, not exchange"):
        send.retry(exchange="shop")


def test_a_retry_by_hand_takes_the_default_delay_as_in_celery(app):
    @app.task(bind=True, autoretry_for=(OSError,), retry_backoff=2, default_retry_delay=5)
    def task(self): ...

    with inside(task), pytest.raises(Retry) as caught:
        task.retry()
    assert caught.value.when == pytest.approx(time.time() + 5, abs=1)


def test_after_the_last_one_the_cause_is_raised_or_max_retries_exceeded(send):
    cause = OSError("gone")
    with inside(send, retries=2) as request:
        with pytest.raises(OSError, match="gone") as caught:
            send.retry(exc=cause)
        assert caught.value is cause
        with pytest.raises(MaxRetriesExceeded, match=r"can't retry .*\[id\] after 2 retries"):
            send.retry()
        with pytest.raises(Retry):
            send.retry(max_retries=3)
        assert request.get("exhausted")


def test_after_its_own_last_one_autoretry_does_not_go_on(app):
    @app.task(bind=True, autoretry_for=(OSError,), max_retries=9)
    def task(self): ...

    with inside(task, retries=1) as request:
        assert task.decide(OSError()).again
        with pytest.raises(OSError, match="x"):
            task.retry(exc=OSError("x"), max_retries=1)
        assert not task.decide(OSError(), request).again


def test_for_ever(app):
    @app.task(bind=True, max_retries=None)
    def task(self): ...

    with inside(task, retries=10**6), pytest.raises(Retry):
        task.retry()


def test_throw_false_returns_it(send):
    with inside(send):
        retry = send.retry(throw=False, countdown=1)
    assert isinstance(retry, Retry)


def test_a_plain_call_raises_the_cause(send):
    with pytest.raises(OSError, match="x"):
        send.retry(exc=OSError("x"))
    with pytest.raises(Retry):
        send.retry()


@pytest.mark.parametrize(
    ("given", "args", "kwargs"),
    [
        ({"args": ("new",)}, ("new",), {"body": "b"}),
        ({"args": ("new", "x")}, ("new", "x"), {}),
        ({"kwargs": {"body": "new"}}, ("to",), {"body": "new"}),
        ({"kwargs": {"to": "new"}}, ("new",), {}),
        ({"args": (), "kwargs": {"to": "new"}}, (), {"to": "new"}),
    ],
)
def test_new_arguments_take_the_place_of_inherited_ones(send, given, args, kwargs):
    with inside(send, args=("to",), kwargs={"body": "b"}), pytest.raises(Retry) as caught:
        send.retry(**given)
    assert (caught.value.new_args, caught.value.new_kwargs) == (args, kwargs)


def test_a_wrong_retry_is_refused(send):
    with inside(send, args=("to",)):
        with pytest.raises(InvalidArguments):
            send.retry(args=(5,))
        with pytest.raises(ValueError, match="not both"):
            send.retry(countdown=1, eta=datetime.now(UTC))
        with pytest.raises(ConfigurationError, match="nonsense"):
            send.retry(nonsense=1)
        with pytest.raises(Retry) as caught:
            send.retry(priority=9, queue="slow")
    assert dict(caught.value.options) == {"priority": 9, "queue": "slow"}


# -- states -------------------------------------------------------------------------------------


def test_update_state_goes_through_the_request(send):
    seen = []
    with inside(send, set_state=lambda *given: seen.append(given)):
        send.update_state(state="PROGRESS", meta={"done": {1}})
        send.update_state("other", "PROGRESS")
        with pytest.raises(ValueError, match="needs a state"):
            send.update_state()
    assert seen == [("id", "PROGRESS", {"done": [1]}), ("other", "PROGRESS", None)]
    with inside(send):
        send.update_state(state="PROGRESS")


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"state": "PROGRESS"}, ValueError, "a running task, or the id of one"),
        ({"task_id": "x"}, ValueError, "needs a state"),
        ({"task_id": "x", "state": 5}, TypeError, "state must be a string: 5"),
        ({"task_id": 7, "state": "PROGRESS"}, TypeError, "task_id must be a string: 7"),
        ({"task_id": "x", "state": "SUCCESS"}, ValueError, "SUCCESS is how one ends"),
        ({"task_id": "x", "state": "P", "meta": object()}, EncodeError, "^meta: "),
    ],
)
def test_states_are_checked_inside_a_task_and_outside(send, given, kind, words):
    with pytest.raises(kind, match=words):
        send.update_state(**given)
    if given != {"state": "PROGRESS"}:
        with inside(send, set_state=lambda *_: None), pytest.raises(kind, match=words):
            send.update_state(**given)


@pytest.mark.parametrize("backend", ["memory", "redis"])
def test_the_state_of_another_task_is_shown_from_outside_a_task(backend, request):
    url = "memory://" if backend == "memory" else request.getfixturevalue("redis_url")
    app = AmqFlow("states", broker="amqp://nobody@localhost:1/", backend=url)

    @app.task
    def one(): ...

    one.update_state("some-id", "PROGRESS", {"done": {1}})
    assert (app.AsyncResult("some-id").state, app.AsyncResult("some-id").info) == (
        "PROGRESS",
        {"done": [1]},
    )
    app.run(one.aupdate_state("some-id", "LATER"), twin="aupdate_state")
    assert app.AsyncResult("some-id").state == "LATER"
    app.close()


def test_a_state_that_nobody_keeps_is_refused():
    app = AmqFlow("stateless", broker="amqp://nobody@localhost:1/")

    @app.task
    def one(): ...

    with pytest.raises(NoResultStore):
        one.update_state("some-id", "PROGRESS")
    app.close()


# -- options as attributes ----------------------------------------------------------------------


def test_options_are_attributes_to_read_and_set(send):
    assert (send.max_retries, send.default_retry_delay, send.queue) == (2, 7, None)
    send.rate_limit = "10/m"
    assert send.options.rate_limit == send.rate_limit == RateLimit(10, 60)
    assert send.options.max_retries == 2
    with pytest.raises(ConfigurationError):
        send.max_retries = "many"
    send.connection = "anything of the user's own"
    assert send.connection


# -- base classes -------------------------------------------------------------------------------


class Base(Task):
    max_retries = 9
    autoretry_for = (OSError,)
    notes = ()

    def __init__(self):
        self.notes = []

    def before_start(self, task_id, args, kwargs):
        self.notes.append(("before_start", task_id, args))

    def on_success(self, retval, task_id, args, kwargs):
        self.notes.append(("on_success", retval))

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        self.notes.append(("on_failure", str(exc), "Traceback" in str(einfo)))

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        self.notes.append(("on_retry", str(exc)))

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        self.notes.append(("after_return", status))


class Child(Base):
    max_retries = 1


def test_class_attributes_are_defaults_of_options(app):
    @app.task(base=Child, queue="q")
    def one(): ...

    @app.task(base=Base, max_retries=2)
    def other(): ...

    assert (one.options.max_retries, one.options.autoretry_for, one.queue) == (1, (OSError,), "q")
    assert (other.options.max_retries, other.max_retries) == (2, 2)
    assert one.has_hooks
    assert isinstance(one, Child)
    assert one.notes is not other.notes


def test_hooks_run_in_celerys_order(app):
    @app.task(base=Child, bind=True)
    def task(self, fail):
        if fail:
            raise OSError("gone")
        return 5

    task.apply((False,), task_id="x")
    assert task.notes == [
        ("before_start", "x", (False,)), ("on_success", 5), ("after_return", "SUCCESS"),
    ]  # fmt: skip
    task.notes.clear()
    task.apply((True,))
    assert [note[0] for note in task.notes] == [
        "before_start", "on_retry", "after_return", "before_start", "on_failure", "after_return",
    ]  # fmt: skip
    assert ("on_failure", "gone", True) in task.notes


def test_a_hook_that_fails_is_logged_and_changes_nothing(app, caplog):
    class Broken(Task):
        def on_success(self, retval, task_id, args, kwargs):
            raise RuntimeError("a bug in a hook")

    @app.task(base=Broken)
    def task():
        return 5

    assert task.apply().get() == 5
    assert "a bug in a hook" in caplog.text


def test_a_base_with_a_wrong_option_is_refused(app):
    class Wrong(Task):
        max_retries = "many"

    with pytest.raises(ConfigurationError, match="max_retries"):
        app.task(base=Wrong)(lambda: None)
    with pytest.raises(ConfigurationError, match="subclass of Task"):
        app.task(base=int)(lambda: None)


def test_an_overridden_call_is_what_a_worker_executes(app):
    class Loud(Task):
        def __call__(self, *args, **kwargs):
            return "loud " + self.run(*args, **kwargs)

    @app.task(base=Loud)
    def speak(word: str) -> str:
        return word

    assert speak.execute("a") == speak("a") == speak.apply(("a",)).get() == "loud a"
    assert speak.run("a") == "a"


def test_class_based_tasks(app):
    class Add(Task):
        name = "shop.add"
        queue = "numbers"

        def run(self, x: int, y: int = 1) -> int:
            return x + y

    class Unnamed(Task):
        async def run(self, x: int) -> int:
            return x

    add, unnamed = app.register_task(Add()), app.register_task(Unnamed)
    assert app.tasks["shop.add"] is add
    assert unnamed.name == f"{__name__}.Unnamed"
    assert unnamed.is_async
    assert (add(1), add.apply(("2",)).get(), add.options.queue) == (2, 3, "numbers")
    with pytest.raises(InvalidArguments):
        add.delay("x")
    assert asyncio.run(unnamed(4)) == 4


def test_a_task_without_a_body_is_refused(app):
    with pytest.raises(ConfigurationError, match="must be a function"):
        app.task(int)
    with pytest.raises(ConfigurationError, match="is a task already"):
        app.task(app.task(lambda: None))
