"""GroupResult: many results as one, over a real store, without a broker."""

from __future__ import annotations

import asyncio
import threading

import pytest

from amqflow import AmqFlow, AsyncResult, GroupResult, JoinInTask, ResultTimeout, TaskRevoked
from amqflow.abc import FAILURE, REVOKED, SUCCESS, Attempt, ExceptionInfo, Finish, Outcome
from amqflow.current import Applications
from amqflow.errors import IncompleteStream, StoreError
from amqflow.handles import allow_join_result, handle_from_tuple
from amqflow.tasks.context import Request, running
from tests.held import HeldOutcomes

WRONG = ExceptionInfo("ValueError", "builtins", ("broken",), "broken")


@pytest.fixture(params=["memory", "redis"])
async def app(request):
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    made = AmqFlow(f"groups-{id(request)}", broker="amqp://nobody@localhost:1/", backend=url)
    yield made
    await made.aclose()


async def end(app, task_id, result=None, state=SUCCESS, **fields):
    store = await app.runtime().opened_store()
    (claim,) = await store.begin([Attempt(task_id)])
    outcome = Outcome(task_id, state, result, **fields)
    await store.finish([Finish(outcome, claim.fence)])


def group_of(app, *ids):
    return app.GroupResult("the-group", [app.AsyncResult(one) for one in ids])


async def test_results_come_in_the_groups_order_whatever_order_they_end_in(app):
    group = group_of(app, "a", "b", "c")
    getting = asyncio.create_task(group.aget(timeout=60))
    for task_id in ("c", "a", "b"):
        await end(app, task_id, task_id.upper())
    assert await getting == ["A", "B", "C"]
    assert await group == ["A", "B", "C"]


async def test_an_empty_group_is_ready_at_once(app):
    group = group_of(app)
    assert await group.aget(timeout=0) == []
    assert await group.aready()
    assert await group.asuccessful()
    assert [one async for one in group] == []


async def test_members_are_counted_as_they_end(app):
    group = group_of(app, "a", "b", "c")
    assert await group.awaiting()
    await end(app, "a", 1)
    await end(app, "b", state=FAILURE, exception=WRONG)
    assert await group.astates() == ["SUCCESS", "FAILURE", "PENDING"]
    assert (await group.acompleted_count(), await group.afailed()) == (1, True)
    assert not await group.aready()
    await end(app, "c", state=REVOKED, reason="revoked")
    assert await group.aready()
    assert not await group.asuccessful()


async def test_async_for_yields_members_as_they_end(app):
    group = group_of(app, "a", "b", "c")
    seen = []
    await end(app, "b", 2)
    async for member in group:
        seen.append((member.id, member.ended.result))
        if member.id == "b":
            await end(app, "c", 3)
        elif member.id == "c":
            await end(app, "a", 1)
    assert seen == [("b", 2), ("c", 3), ("a", 1)]


async def test_the_first_failure_is_raised_at_once_and_can_be_had_in_its_place(app):
    group = group_of(app, "a", "b", "never")
    await end(app, "b", state=FAILURE, exception=WRONG)
    with pytest.raises(ValueError, match="broken"):
        await group.aget(timeout=60)
    await end(app, "a", 1)
    await end(app, "never", state=REVOKED, reason="expired")
    first, second, third = await group.aget(timeout=20, propagate=False)
    assert first == 1
    assert isinstance(second, ValueError)
    assert isinstance(third, TaskRevoked)


async def test_a_time_out_says_how_many_are_missing_and_why(app):
    group = group_of(app, "a", "b", "c")
    await end(app, "a", 1)
    with pytest.raises(ResultTimeout, match=r"2 of 3 members of group the-group .* b: "):
        await group.aget(timeout=1)
    with pytest.raises(ResultTimeout, match="2 of 3 members"):
        async for _ in group.aas_completed(timeout=1):
            pass


async def test_no_time_to_wait_is_a_look_at_what_is_there(app):
    """Without the look the wait was over before anything could be read, ended or not."""
    inner = GroupResult("inner", [app.AsyncResult("b"), app.AsyncResult("c")], app)
    group = GroupResult("outer", [app.AsyncResult("a"), inner], app)
    await end(app, "a", 0)
    await end(app, "b", state=FAILURE, exception=WRONG)
    with pytest.raises(ValueError, match="broken"):
        await group.aget(timeout=0)
    with pytest.raises(ResultTimeout, match=r"1 of 2 members of group outer .* 0 s; .*, inner: "):
        await group.aget(timeout=0, propagate=False)
    assert [one.id async for one in group_of(app, "a").aas_completed(timeout=0)] == ["a"]
    with pytest.raises(ResultTimeout, match="1 of 2 members"):
        async for one in group.aas_completed(timeout=0):
            assert one.id == "a"
    await end(app, "c", 2)
    fresh = group_of(app, "a", "c")
    assert await fresh.aget(timeout=0) == [0, 2]
    assert await group_of(app, "a", "c").aget(timeout=-1) == [0, 2]
    assert await app.AsyncResult("c").aget(timeout=0) == 2
    with pytest.raises(ResultTimeout):
        await app.AsyncResult("nothing").aget(timeout=0)


@pytest.mark.parametrize(
    ("timeout", "kind"), [("5", TypeError), (True, TypeError), (float("nan"), ValueError)]
)
def test_a_timeout_that_is_none_is_refused_in_a_sentence(timeout, kind):
    reader = HeldOutcomes(a=Outcome("a", SUCCESS, 1))
    one = AsyncResult("a", reader)
    group = GroupResult("g", [one], reader)
    for get in (one.get, group.get, lambda timeout: list(group.as_completed(timeout))):
        with pytest.raises(kind, match="timeout must be a number of seconds or None, got "):
            get(timeout)
    assert group.get(float("inf")) == [1]


async def test_a_group_within_gives_a_list_within(app):
    inner = GroupResult("inner", [app.AsyncResult("b"), app.AsyncResult("c")], app)
    group = GroupResult("outer", [app.AsyncResult("a"), inner], app)
    for number, task_id in enumerate("abc"):
        await end(app, task_id, number)
    assert await group.aget(timeout=60) == [0, [1, 2]]
    assert await group.astates() == ["SUCCESS"] * 3
    assert [one.id async for one in group] in (["a", "inner"], ["inner", "a"])


async def test_ten_thousand_results_are_awaited_at_once(app):
    ids = [f"task-{number}" for number in range(10_000)]
    group = group_of(app, *ids)
    store = await app.runtime().opened_store()
    getting = asyncio.create_task(group.aget(timeout=120))
    await asyncio.sleep(0)
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        claims = await store.begin([Attempt(task_id) for task_id in part])
        await store.finish(
            [
                Finish(Outcome(task_id, SUCCESS, task_id), claim.fence)
                for task_id, claim in zip(part, claims, strict=True)
            ]
        )
    assert await getting == ids


async def test_a_saved_group_is_restored_by_its_id(app):
    parent = app.AsyncResult("before")
    inner = GroupResult("inner", [app.AsyncResult("b")], app)
    group = GroupResult("saved", [app.AsyncResult("a"), inner], app, parent=parent)
    await group.asave()
    again = await app.arestore_group("saved")
    assert again == group
    assert again.parent == parent
    assert isinstance(again[1], GroupResult)
    assert again.as_tuple() == group.as_tuple()
    assert await app.arestore_group("unknown") is None
    await group.adelete()
    assert await app.arestore_group("saved") is None


async def test_forget_drops_every_member(app):
    group = group_of(app, "a", "b")
    await end(app, "a", 1)
    await end(app, "b", 2)
    await group.aforget()
    assert await group_of(app, "a", "b").astates() == ["PENDING", "PENDING"]


async def test_children_hold_groups_and_collect_walks_them(app):
    await end(app, "root", 1, children=("child", ("group", ("x", "y"))))
    for task_id in ("child", "x", "y"):
        await end(app, task_id, task_id)
    root = app.AsyncResult("root")
    child, group = await root.achildren()
    assert isinstance(child, AsyncResult)
    assert isinstance(group, GroupResult)
    found = {node.id: value async for node, value in root.acollect()}
    assert found == {"root": 1, "child": "child", "group": ["x", "y"], "x": "x", "y": "y"}
    drawn = await root.agraph()
    assert drawn.startswith("flowchart TD\n")
    assert drawn.count("-->") == 4
    assert "2 of 2 ended" in drawn


async def test_collect_refuses_what_has_not_ended_unless_asked(app):
    with pytest.raises(IncompleteStream, match="has not ended"):
        async for _ in app.AsyncResult("nobody").aiterdeps():
            pass
    assert "PENDING" in await app.AsyncResult("nobody").agraph()


def test_blocking_verbs_do_the_same():
    with AmqFlow("blocking", broker="amqp://nobody@localhost:1/", backend="memory://") as app:
        group = group_of(app, "a", "b")
        assert not group.ready()
        app.run(end(app, "a", 1), twin="")
        assert (group.completed_count(), group.waiting()) == (1, True)
        threading.Timer(0.05, lambda: app.run(end(app, "b", 2), twin="")).start()
        assert [member.get() for member in group.as_completed(timeout=20)] == [1, 2]
        assert group.get(timeout=60) == group.join(timeout=20) == [1, 2]
        told = []
        assert group.get(callback=lambda task_id, value: told.append((task_id, value))) == []
        assert sorted(told) == [("a", 1), ("b", 2)]
        assert group.successful()
        group.save()
        assert GroupResult.restore("the-group", app) == app.restore_group("the-group") == group
        assert next(iter(app.AsyncResult("a").collect()))[1] == 1
        assert "SUCCESS" in app.AsyncResult("a").graph
        group.forget()


# -- over outcomes that are held ----------------------------------------------------------------


def test_it_is_a_sequence_of_its_members():
    members = [AsyncResult(one, HeldOutcomes()) for one in "ab"]
    group = GroupResult("g", members, HeldOutcomes())
    assert (len(group), list(group), group[1]) == (2, members, members[1])
    assert group.children == members
    assert {group: 1}[GroupResult("g", members, HeldOutcomes())] == 1
    assert str(group) == "g"
    assert group


def test_revoke_goes_to_every_single_member():
    reader = HeldOutcomes()
    inner = GroupResult("i", [AsyncResult("b", reader)], reader)
    GroupResult("g", [AsyncResult("a", reader), inner], reader).revoke(terminate=True)
    AsyncResult("c", reader).revoke()
    assert reader.revoked == [(("a", "b"), True), (("c",), False)]


def test_waiting_inside_a_task_is_refused_unless_allowed():
    reader = HeldOutcomes(a=Outcome("a", SUCCESS, 1))
    reader.running = "shop.parent"
    single = AsyncResult("a", reader)
    group = GroupResult("g", [single], reader)
    for handle in (single, group):
        with pytest.raises(JoinInTask, match=r"shop\.parent waits for a result inside a task"):
            handle.get()
        with pytest.raises(RuntimeError):
            asyncio.run(handle.aget())
        assert handle.get(disable_sync_subtasks=False) in (1, [1])
        with allow_join_result():
            assert handle.get() in (1, [1])


def test_an_application_knows_what_task_runs_in_it():
    app = AmqFlow("inside", broker="amqp://nobody@localhost:1/", backend="memory://")
    assert app.running_task() is None
    with running(None, Request(task="shop.a", called_directly=False)):
        assert app.running_task() == "shop.a"
    for request in (Request(task="a"), Request(task="a", called_directly=False, is_eager=True)):
        with running(None, request):
            assert app.running_task() is None


@pytest.mark.parametrize(
    "data", [None, [], ["a"], [["a"], None], [[5, None], None], [["a", None], 5]]
)
def test_what_is_no_tuple_of_a_result_is_refused(data):
    with pytest.raises(StoreError, match="not a result's tuple"):
        handle_from_tuple(data, HeldOutcomes())


def test_restore_without_an_application_says_so(monkeypatch):
    monkeypatch.setattr("amqflow.handles.base.applications", Applications())
    with pytest.raises(Exception, match="make an application first"):
        GroupResult.restore("g")


def test_parents_are_listed_and_kept_in_the_tuple():
    reader = HeldOutcomes()
    first = AsyncResult("a", reader)
    last = AsyncResult("b", reader, parent=first)
    assert last.as_list() == ["b", "a"]
    assert last.as_tuple() == (("b", (("a", None), None)), None)
    assert handle_from_tuple(last.as_tuple(), reader).parent == first
