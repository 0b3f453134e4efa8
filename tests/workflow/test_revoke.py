"""What compositions must satisfy: revoking and cancelling (lines 20, 26, 27), and looking at it."""

import json

import pytest

from amqflow import TaskRevoked
from amqflow.canvas import chain, chord, group
from amqflow.workflow.catalog import find
from tests.servers.command import run
from tests.servers.wait import until

GET = 30


async def found(shop, handle):
    return await find(shop.app.runtime().chords, handle.id)


async def test_20_a_revoked_member_fails_its_chord_at_once(shop):
    """Its message lies on the ladder for an hour: nobody waits for that."""
    header = [shop.echo.s(1), shop.echo.s(2).set(countdown=3600)]
    node = chord(header, shop.collect.s()).on_error(shop.sorry.s())
    result = await node.aapply_async()
    await shop.app.arevoke(result.parent.results[1].id)
    with pytest.raises(TaskRevoked):
        await result.aget(timeout=30)
    await until(lambda: shop.told, deadline=GET)
    await shop.quiet()
    assert [name for name, *_ in shop.told] == ["sorry"]
    assert shop.ran["collect"] == 0


async def test_26_a_revoked_task_is_revoked_ready_and_neither_successful_nor_failed(shop):
    result = await shop.echo.aapply_async((1,), countdown=3600)
    await shop.app.arevoke(result.id)
    assert await result.astate() == "REVOKED"
    assert await result.aready()
    assert not await result.asuccessful()
    assert not await result.afailed()


async def test_26_a_body_revoked_before_it_was_published_does_not_run(shop):
    result = await chord([shop.held.s("gate"), shop.echo.s(1)], shop.collect.s()).aapply_async()
    await until(lambda: shop.ran["held gate"], deadline=GET)
    await shop.app.arevoke(result.id)
    shop.gates["gate"].set()
    with pytest.raises(TaskRevoked):
        await result.aget(timeout=30)
    await shop.quiet()
    assert shop.ran["collect"] == 0


async def test_26_a_later_step_revoked_ends_what_waits_for_it(shop):
    node = chain(shop.held.s("gate"), shop.echo.s(), shop.collect.s())
    result = await node.aapply_async()
    await until(lambda: shop.ran["held gate"], deadline=GET)
    await shop.app.arevoke(result.parent.id)
    shop.gates["gate"].set()
    with pytest.raises(TaskRevoked):
        await result.aget(timeout=GET)
    assert shop.ran["collect"] == 0


async def test_27_cancelling_a_workflow_revokes_what_has_not_run_and_reaches_delays(shop):
    header = [
        shop.echo.s(1),
        shop.held.s("gate"),
        shop.echo.s(2).set(countdown=3600),
        chain(shop.held.s("gate"), shop.double.s()),
    ]
    result = await chain(chord(header, shop.collect.s()), shop.collect.s()).aapply_async()
    await until(lambda: shop.ran["held gate"] == 2, deadline=GET)
    workflow = await found(shop, result)
    assert await shop.app.acancel(workflow) > 0
    with pytest.raises(TaskRevoked):
        await result.aget(timeout=30)
    assert shop.ran["ended gate"] == 0, "what runs goes on"
    shop.gates["gate"].set()
    await shop.quiet()
    assert shop.ran["double"] + shop.ran["collect"] + shop.ran["echo 2"] == 0
    assert shop.ran["ended gate"] == 0


async def test_27_cancelling_reaches_a_retry_that_waits_for_its_time(shop):
    result = await chord([shop.retries_late.s(), shop.echo.s(1)], shop.collect.s()).aapply_async()
    member = result.parent.results[0]

    async def retrying():
        return await member.astate() == "RETRY"

    await until(retrying, deadline=GET)
    assert await shop.app.acancel(await found(shop, result)) > 0
    with pytest.raises(TaskRevoked):
        await result.aget(timeout=30)
    assert await member.astate() == "REVOKED"
    assert shop.ran["collect"] == 0


async def test_27_cancelling_ends_what_runs_if_asked(shop):
    result = await chord([shop.held.s("for-ever"), shop.echo.s(1)], shop.collect.s()).aapply_async()
    await until(lambda: shop.ran["held for-ever"], deadline=GET)
    await shop.app.acancel(await found(shop, result), terminate=True)
    with pytest.raises(TaskRevoked):
        await result.aget(timeout=GET)
    await until(lambda: shop.ran["ended for-ever"], deadline=GET)
    member = result.parent.results[0]
    with pytest.raises(TaskRevoked, match="while it ran"):
        await member.aget(timeout=GET)
    assert await member.astate() == "REVOKED"
    await shop.quiet()
    assert (shop.ran["held for-ever"], shop.ran["ended for-ever"], shop.ran["collect"]) == (1, 1, 0)


# -- looking ---------------------------------------------------------------------------------


async def test_a_workflow_is_found_by_any_of_its_ids_and_drawn_with_its_states(shop):
    from amqflow.workflow.catalog import drawn

    node = chain(
        shop.echo.s(1),
        chord([shop.held.si("look"), shop.add.si(1, 1), shop.add.si(1, 2)], shop.collect.s()),
        group(shop.echo.si(1), shop.echo.si(2)),
    )
    result = await node.aapply_async()
    body = result.parent
    header = body.parent
    await until(lambda: shop.ran["held look"], deadline=GET)
    assert [await one.aget(timeout=GET) for one in header.results[1:]] == [2, 3]
    for known in (header.id, header.results[1].id, body.id, result.results[0].id):
        assert (await find(shop.app.runtime().chords, known)).chords[0].id == header.id
    workflow = await found(shop, header)
    assert workflow.root_id == header.parent.id
    ids = list(workflow.ids())
    outcomes = dict(zip(ids, await shop.app.fetch_outcomes(ids), strict=True))
    picture = drawn(workflow, outcomes)
    assert picture.startswith("flowchart TD")
    assert 'c0m1["shop.add x2<br/>2 SUCCESS"]' in picture
    assert "shop.collect<br/>PENDING" in picture
    shop.gates["look"].set()
    assert await result.aget(timeout=GET) == [1, 2]


async def test_the_command_lists_shows_and_cancels(shop, tmp_path, monkeypatch):
    import asyncio
    import os
    from pathlib import Path

    root = Path(__file__).parents[2]
    app = tmp_path / "looked.py"
    app.write_text("from amqflow import AmqFlow\napp = AmqFlow('flow')\n")

    async def amqflow(*arguments):
        return await asyncio.to_thread(
            run,
            *("-m", "amqflow", "-A", "looked", "--workdir", str(tmp_path), "workflow", *arguments),
            env={
                **os.environ,
                "PYTHONPATH": str(root),
                "AMQFLOW_BROKER": shop.app.broker_url,
                "AMQFLOW_BACKEND": shop.app.backend_url,
            },
        )

    result = await chord([shop.held.s("cli"), shop.echo.s(1)], shop.collect.s()).aapply_async()
    await until(lambda: shop.ran["held cli"], deadline=GET)
    await result.parent.results[1].aget(timeout=GET)
    if shop.app.backend_url.startswith("memory"):
        # Another process sees nothing of this one's memory, and says why.
        own = "memory:// is each process's own"
        listed = await amqflow("list")
        assert (listed.returncode, own in listed.stdout) == (0, True)
        cancelled = await amqflow("cancel", result.id)
        assert (cancelled.returncode, own in cancelled.stderr) == (1, True)
        shop.gates["cli"].set()
        assert await result.aget(timeout=GET) == ["cli", 1]
        return
    listed = await amqflow("list", "--json")
    rows = json.loads(listed.stdout)
    (row,) = [row for row in rows if row["chords"][0]["id"] == result.parent.id]
    assert row["state"] == "open"
    assert row["title"] == "shop.held, shop.echo → shop.collect"
    shown = await amqflow("show", result.id)
    assert "flowchart TD" in shown.stdout
    assert "shop.collect<br/>PENDING" in shown.stdout
    assert (await amqflow("show", "nobody")).returncode == 1
    cancelled = await amqflow("cancel", result.id, "--json")
    assert json.loads(cancelled.stdout)["revoked"] >= 2, cancelled.stderr
    with pytest.raises(TaskRevoked):
        await result.aget(timeout=GET)
    shop.gates["cli"].set()
