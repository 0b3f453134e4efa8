"""The request of the running task, in threads, coroutines and plain calls."""

from __future__ import annotations

import asyncio
import contextvars
import threading

from amqflow.tasks import Request, current_request, current_task, parent_request, running
from amqflow.tasks.context import request_of
from tests.tasks.recording import RecordingApp


def test_defaults_are_celerys_where_celery_has_them():
    from celery.app.task import Context

    ours, theirs = Request(), Context()
    for name in vars(Request):
        if not name.startswith("_") and hasattr(theirs, name) and not callable(getattr(ours, name)):
            if name in {"timelimit", "headers", "args", "kwargs", "utc"}:
                continue
            assert (getattr(ours, name) or None) == (getattr(theirs, name) or None), name


def test_outside_a_task_nothing_runs():
    assert current_request() is None
    assert parent_request() is None
    assert not current_task
    assert request_of(object()).called_directly


def test_runs_nest_and_end():
    one, other = object(), object()
    first, second = Request(id="1", called_directly=False), Request(id="2", called_directly=False)
    with running(one, first):
        with running(other, second):
            assert current_request() is second
            assert request_of(one).id is None
        assert current_request() is first
        assert request_of(one) is first
        assert current_task == one
    assert current_request() is None


def test_each_thread_and_coroutine_has_its_own():
    async def one(number):
        with running(object(), Request(id=number)):
            await asyncio.sleep(0)
            in_thread = await asyncio.to_thread(current_request)
            return number, current_request().id, in_thread.id

    async def main():
        return await asyncio.gather(*(one(number) for number in range(10)))

    assert all(len(set(ids)) == 1 for ids in asyncio.run(main()))
    seen = []
    with running(object(), Request(id=1)):
        thread = threading.Thread(target=lambda: seen.append(current_request()))
        thread.start()
        thread.join()
        contextvars.copy_context().run(lambda: seen.append(current_request().id))
    assert seen == [None, 1]


def test_fields_may_be_read_set_and_asked_for():
    request = Request(id="1", retries=2)
    request.update(shadow="s")
    assert (request.get("shadow"), request.get("nonsense", 5)) == ("s", 5)
    assert "retries=2" in repr(request)


def test_children_are_noted():
    request = Request()
    assert request.children == ()
    request.add_child("a")
    request.add_child("b")
    assert request.children == ("a", "b")


def test_a_plain_call_inside_a_run_has_an_empty_request_but_keeps_the_family():
    app = RecordingApp()
    seen = []

    @app.task(bind=True)
    def inner(self):
        seen.append((self.request.id, self.request.called_directly, current_task.name))
        leaf.delay()

    @app.task
    def leaf(): ...

    request = Request(id="outer", root_id="root", called_directly=False)
    with running(leaf, request):
        inner()
    assert seen == [(None, True, inner.name)]
    assert (app.sent[0].root_id, app.sent[0].parent_id) == ("root", "outer")
    assert len(request.children) == 1


def test_current_task_stands_for_the_running_one():
    app = RecordingApp()
    names = []

    @app.task
    def unbound():
        names.append((current_task.name, current_task.request.id, bool(current_task)))
        hash(current_task)
        repr(current_task)

    unbound.apply(task_id="x")
    assert names == [(unbound.name, "x", True)]
