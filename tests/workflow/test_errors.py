"""What compositions must satisfy: errors. One line of the list, one test."""

import asyncio

import pytest

from amqflow import TaskRevoked
from amqflow.canvas import chain, chord, group
from amqflow.errors import (
    EncodeError,
    PublishError,
    PublishGroupError,
    TaskFailed,
    UnknownTask,
)
from amqflow.protocol import headers as h
from tests.servers.wait import until

GET = 30


async def told(shop, count):
    await until(lambda: len(shop.told) >= count, deadline=GET, message=f"{count} calls")
    await shop.quiet()
    return shop.told


async def outcomes_of(handle):
    """Return how everything a handle names has ended, its parents first."""
    found = []
    while handle is not None:
        if hasattr(handle, "results"):
            for one in handle.results:
                found += await outcomes_of(one)
        else:
            await handle.await_end()
            found.append(await handle.aoutcome())
        handle = handle.parent
    return found


async def test_17_a_failing_step_fails_the_chain_and_leaves_later_steps_unrun(shop):
    result = await chain(
        shop.add.s(1, 1), shop.fail.s(), shop.add.s(1), shop.double.s()
    ).aapply_async()
    with pytest.raises(KeyError, match="missing"):
        await result.aget(timeout=GET)
    states = [one.state for one in await outcomes_of(result)]
    assert states == ["FAILURE", "FAILURE", "FAILURE", "SUCCESS"]
    outcome = await shop.app.fetch_outcome(result.id)
    assert "shop.fail" in outcome.reason
    assert shop.ran == {"add": 1, "fail": 1}


async def test_18_an_errback_gets_request_exception_and_traceback(shop):
    result = await shop.fail.aapply_async(link_error=[shop.sorry.s(), shop.also.s()])
    with pytest.raises(KeyError):
        await result.aget(timeout=GET)
    assert sorted(await told(shop, 2)) == [
        ("also", result.id, "KeyError", True),
        ("sorry", result.id, "KeyError", True),
    ]


async def test_18_an_errback_may_itself_be_retried(shop):
    await shop.fail.aapply_async(link_error=shop.shaky_sorry.s())
    assert len(await told(shop, 1)) == 1
    assert shop.ran["shaky_sorry"] == 3


HEADERS = {
    "a plain member": lambda shop: [shop.echo.s(1), shop.fail.s()],
    "the head of a chain": lambda shop: [shop.echo.s(1), chain(shop.fail.s(), shop.echo.s())],
    "the middle of a chain": lambda shop: [
        shop.echo.s(1),
        chain(shop.echo.s(1), shop.fail.s(), shop.echo.s()),
    ],
    "the tail of a chain": lambda shop: [shop.echo.s(1), chain(shop.echo.s(1), shop.fail.s())],
    "a nested group": lambda shop: [
        shop.echo.s(1),
        chain(shop.echo.s(1), group(shop.add.s(1), shop.fail.s())),
    ],
    "a group in mid-chain": lambda shop: [
        shop.echo.s(1),
        chain(shop.echo.s(1), group(shop.add.s(1), shop.fail.s()), shop.total.s()),
    ],
    "a nested chord's header": lambda shop: [
        shop.echo.s(1),
        chord([shop.echo.s(2), shop.fail.s()], shop.total.s()),
    ],
    "a nested chord's body": lambda shop: [
        shop.echo.s(1),
        chord([shop.echo.s(2), shop.echo.s(3)], shop.fail.s()),
    ],
    "many members": lambda shop: [shop.fail.s() for _ in range(10)],
}


@pytest.mark.parametrize("where", HEADERS)
async def test_19_a_header_failure_fails_the_chord_body_never_errback_once(shop, where):
    node = chord(HEADERS[where](shop), shop.collect.s())
    node.link_error(shop.sorry.s())
    result = await node.aapply_async()
    with pytest.raises(KeyError, match="missing"):
        await result.aget(timeout=GET)
    calls = await told(shop, 1)
    assert calls == [("sorry", result.id, "KeyError", True)]
    assert shop.ran["collect"] == 0


async def test_19_every_enclosing_errback_is_called_once(shop):
    inner = chord([shop.fail.s(), shop.fail.s()], shop.total.s()).on_error(shop.sorry.s())
    middle = chord([inner, shop.echo.s(1)], shop.total.s()).on_error(shop.also.s())
    outer = chord([middle, shop.echo.s(2)], shop.collect.s()).on_error(shop.sorry.s())
    result = await outer.aapply_async()
    with pytest.raises(KeyError):
        await result.aget(timeout=GET)
    calls = await told(shop, 3)
    assert sorted(name for name, *_ in calls) == ["also", "sorry", "sorry"]
    assert len({task_id for _, task_id, *_ in calls}) == 3
    assert not shop.ran["total"] + shop.ran["collect"]


async def test_20_an_expired_member_fails_its_chord_promptly_with_that_reason(shop):
    header = [shop.echo.s(1), shop.echo.s(2).set(expires=-1)]
    node = chord(header, shop.collect.s()).on_error(shop.sorry.s())
    result = await node.aapply_async()
    with pytest.raises(TaskRevoked, match="expired"):
        await result.aget(timeout=30)
    assert (await result.aoutcome()).state == "FAILURE"
    assert len(await told(shop, 1)) == 1


async def test_20_a_member_that_ends_itself_without_a_result_fails_its_chord(shop):
    result = await chord([shop.echo.s(1), shop.gone.s()], shop.collect.s()).aapply_async()
    with pytest.raises(TaskRevoked, match="Ignore"):
        await result.aget(timeout=30)


async def test_20_a_member_that_rejects_its_message_fails_its_chord_and_its_chain(shop):
    header = [shop.echo.s(1), chain(shop.refuses.s(), shop.echo.s())]
    result = await chord(header, shop.collect.s()).aapply_async()
    with pytest.raises(Exception, match="not mine"):
        await result.aget(timeout=30)
    outcome = await shop.app.wait_outcome(result.parent.results[1].id, 5)
    assert outcome.state == "FAILURE"


async def test_20_a_member_that_names_an_unknown_task_is_parked_and_fails_its_chord(shop):
    header = [shop.echo.s(1), shop.app.signature("shop.nobody")]
    result = await chord(header, shop.collect.s()).aapply_async()
    with pytest.raises(UnknownTask, match=r"shop\.nobody"):
        await result.aget(timeout=30)


async def test_20_a_member_that_cannot_be_decoded_fails_its_chord(shop):
    """The header still tells whose it was."""
    runtime = shop.app.runtime()
    node = chord([shop.held.s("undecodable"), shop.echo.s(1)], shop.collect.s())
    result = await node.aapply_async()
    await until(lambda: shop.ran["held undecodable"], deadline=GET)
    header = result.parent
    envelope = runtime.producer.encode(
        runtime.producer.message_of(_call(shop, header.results[0].id))
    )
    member = {"id": header.id, "index": 0, "app": "flow", "store": runtime.chords.kind}
    envelope.headers[h.CHORD] = member
    envelope.body = b"not JSON"
    await runtime.transport.publish(envelope, "", "default", timeout=10)
    with pytest.raises(Exception, match="JSON"):
        await result.aget(timeout=30)
    shop.gates["undecodable"].set()


def _call(shop, task_id):
    from amqflow.abc import Call

    return Call("shop.echo", (1,), task_id=task_id)


async def test_20_a_member_that_cannot_be_sent_fails_its_chord_and_its_caller(shop):
    nowhere = shop.echo.s(2).set(queue="no-such-queue")
    node = chord([shop.echo.s(1), nowhere], shop.collect.s()).on_error(shop.sorry.s())
    node.set(task_id=f"unsendable-{shop.app.runtime().chords.kind}")
    with pytest.raises(PublishGroupError):
        await node.aapply_async()
    outcome = await shop.app.wait_outcome(node.id, GET)
    assert outcome.exception.type == "PublishError"
    assert len(await told(shop, 1)) == 1


async def test_20_what_is_sent_beside_a_refused_task_fails_at_once_too(shop):
    nowhere = shop.echo.s(2).set(queue="no-such-queue")
    kind = shop.app.runtime().chords.kind
    inner = chord([shop.echo.s(1)], shop.collect.s().set(task_id=f"inside-{kind}"))
    outer = chord([inner, shop.echo.s(3)], shop.collect.s().set(task_id=f"beside-{kind}"))
    with pytest.raises(PublishGroupError):
        await group(outer.on_error(shop.sorry.s()), nowhere).aapply_async()
    for task_id in (f"inside-{kind}", f"beside-{kind}"):
        outcome = await shop.app.wait_outcome(task_id, 5)
        assert outcome.exception.type == "PublishError"
    assert len(await told(shop, 1)) == 1


async def test_20_a_step_that_cannot_be_sent_fails_what_waits_for_it(shop):
    nowhere = shop.echo.s().set(queue="no-such-queue")
    result = await chain(shop.echo.s(1), nowhere, shop.collect.s()).aapply_async()
    with pytest.raises(PublishError, match="no-such-queue"):
        await result.aget(timeout=GET)
    body = chain(shop.collect.s(), nowhere)
    result = await chord([shop.echo.s(1)], body).aapply_async()
    with pytest.raises(PublishError, match="no-such-queue"):
        await result.aget(timeout=GET)


async def test_21_a_retrying_member_does_not_count_until_its_last_outcome(shop):
    result = await chord([shop.retries.s("x", 3), shop.echo.s(1)], shop.collect.s()).aapply_async()
    assert (await result.aget(timeout=GET))[0][0] == "x"
    assert shop.ran["retries"] == 4
    assert shop.ran["collect"] == 1


async def test_21_a_caught_soft_limit_that_returns_a_value_counts_as_success(shop):
    node = chord([shop.patient.s(), shop.echo.s(1)], shop.collect.s())
    assert await shop.run(node) == ["caught", 1]


async def test_22_a_failing_body_fails_the_chords_result_errback_once(shop):
    node = chord([shop.echo.s(1), shop.echo.s(2)], shop.fail.s()).on_error(shop.sorry.s())
    result = await node.aapply_async()
    with pytest.raises(KeyError):
        await result.aget(timeout=GET)
    assert await told(shop, 1) == [("sorry", result.id, "KeyError", True)]
    assert await result.parent.aget(timeout=10) == [1, 2]


@pytest.mark.parametrize("levels", [99, 100])
async def test_22_a_list_that_nests_too_deep_is_a_result_or_a_failure_and_nobody_waits(
    shop, levels
):
    """A result may nest 100 levels; the list around those of a group is one more."""
    node = chain(shop.echo.s(1), group(shop.nested.si(levels), shop.echo.si(2)))
    node.link_error(shop.sorry.s())
    result = await node.aapply_async()
    if levels < 100:
        assert (await result.aget(timeout=GET))[1] == 2
        return
    outcome = await shop.app.wait_outcome(result.id, GET)
    assert (outcome.state, outcome.exception.type) == ("FAILURE", "InvalidResult")
    assert "nested deeper" in outcome.exception.text
    assert await result.results[1].aget(timeout=10) == 2
    await shop.quiet()


async def test_23_a_failure_before_a_trailing_group_reaches_the_caller(shop):
    whole = chain(shop.add.s(1, 1), shop.fail.s(), group(shop.add.s(1), shop.add.s(2)))
    result = await whole.aapply_async()
    with pytest.raises(KeyError):
        await result.aget(timeout=GET)
    states = [one.state for one in await outcomes_of(result)]
    assert states == ["FAILURE"] * 3 + ["SUCCESS"]
    assert (await shop.app.fetch_outcome(result.id)).state == "FAILURE"


async def test_23_a_failure_in_a_group_before_a_chord_reaches_the_caller(shop):
    whole = chain(
        shop.echo.s(1),
        group(shop.add.s(1), shop.fail.s(), shop.add.s(3)),
        chord([shop.collect.s(), shop.collect.s()], shop.collect.s()),
        shop.collect.s(),
    )
    result = await whole.aapply_async()
    with pytest.raises(KeyError):
        await result.aget(timeout=GET)
    ended = await outcomes_of(result)
    assert sorted(one.state for one in ended) == ["FAILURE"] * 5 + ["SUCCESS"] * 3
    assert shop.ran["collect"] == 0


async def test_23_all_other_results_stay_readable(shop):
    result = await group(shop.echo.s(1), shop.fail.s(), shop.echo.s(3)).aapply_async()
    values = await result.aget(timeout=GET, propagate=False)
    assert values[0::2] == [1, 3]
    assert isinstance(values[1], KeyError)


async def test_a_groups_own_errback_is_called_once(shop):
    node = group(shop.fail.s(), shop.fail.s(), shop.echo.s(1)).on_error(shop.sorry.s())
    result = await node.aapply_async()
    with pytest.raises(KeyError):
        await result.aget(timeout=GET)
    assert await told(shop, 1) == [("sorry", result.id, "KeyError", True)]


async def test_an_error_type_unknown_to_the_caller_names_itself(shop):
    with pytest.raises((TaskFailed, LookupError), match="nothing there"):
        await shop.run(chain(shop.echo.s(1), shop.miss.s(), shop.echo.s()))


# -- replace, add ----------------------------------------------------------------------------


async def test_24_replace_keeps_place_in_a_chain(shop):
    new = shop.add.s(10, 10).to_dict()
    assert await shop.run(chain(shop.swap.s(new), shop.add.s(1))) == 21
    assert await shop.run(chain(shop.echo.s(1), shop.swap.si(new), shop.add.s(1))) == 21
    assert await shop.run(chain(shop.echo.s(1), shop.swap.si(new))) == 20
    await shop.quiet()
    assert shop.ran["swap"] == 3


async def test_24_replace_by_any_composition_keeps_the_tasks_id(shop):
    several = {
        "chain": (chain(shop.add.s(1, 1), shop.double.s()), 4),
        "group": (group(shop.echo.s(1), shop.echo.s(2)), [1, 2]),
        "chord": (chord([shop.echo.s(1), shop.echo.s(2)], shop.total.s()), 3),
        "nested": (chain(shop.echo.s(1), group(shop.add.s(1), shop.add.s(2))), [2, 3]),
        "again": (shop.swap.s(shop.add.s(3, 4).to_dict()), 7),
    }
    for node, value in several.values():
        result = await shop.swap.aapply_async((node.to_dict(),))
        assert await result.aget(timeout=GET) == value
        assert (await result.aoutcome()).state == "SUCCESS"


async def test_24_replace_keeps_index_in_a_group_header_and_body(shop):
    two = chain(shop.add.s(1, 1), shop.double.s()).to_dict()
    assert await shop.run(group(shop.echo.s(0), shop.swap.s(two), shop.echo.s(2))) == [0, 4, 2]
    header = [shop.echo.s(0), shop.swap.s(two), shop.echo.s(2)]
    assert await shop.run(chord(header, shop.collect.s())) == [0, 4, 2]
    list_of = group(shop.echo.s("a"), shop.echo.s("b")).to_dict()
    header = [shop.echo.s(0), shop.swap.s(list_of), shop.echo.s(2)]
    assert await shop.run(chord(header, shop.collect.s())) == [0, ["a", "b"], 2]
    assert await shop.run(chord([shop.echo.s(0)], shop.swap.si(two))) == 4


async def test_24_links_and_errbacks_of_inner_and_outer_fire_once_each(shop):
    inner = chain(shop.add.s(1, 1), shop.double.s())
    inner.link(shop.note.s())
    outer = shop.swap.s(inner.to_dict()).set(link=chain(shop.double.s(), shop.note.s()))
    assert await (await outer.aapply_async()).aget(timeout=GET) == 4
    assert sorted(await told(shop, 2)) == [("note", 4), ("note", 8)]
    shop.clear()
    inner = chain(shop.fail.s(), shop.double.s()).on_error(shop.sorry.s())
    outer = shop.swap.s(inner.to_dict()).set(link_error=shop.also.s())
    with pytest.raises(KeyError):
        await (await outer.aapply_async()).aget(timeout=GET)
    assert sorted(name for name, *_ in await told(shop, 2)) == ["also", "sorry"]


async def test_24_a_replacement_that_fails_fails_the_chord(shop):
    failing = chain(shop.echo.s(1), shop.fail.s(), shop.echo.s()).to_dict()
    header = [shop.echo.s(0), shop.swap.s(failing)]
    node = chord(header, shop.collect.s()).on_error(shop.sorry.s())
    result = await node.aapply_async()
    with pytest.raises(KeyError):
        await result.aget(timeout=GET)
    assert len(await told(shop, 1)) == 1
    assert {one.state for one in await outcomes_of(result.parent.results[1])} == {"FAILURE"}


async def test_25_add_to_chord_makes_the_body_wait_for_it_too(shop):
    header = [shop.echo.s(0), shop.adds.s("x", "y"), shop.echo.s(2)]
    assert await shop.run(chord(header, shop.collect.s())) == [0, "added", 2, "x", "y"]
    assert shop.ran["collect"] == 1


async def test_25_what_replaces_a_task_adds_members_of_its_own(shop):
    header = [shop.adds_and_swaps.s("x", shop.adds.s("y").to_dict())]
    assert await shop.run(chord(header, shop.collect.s())) == ["added", "x", "y"]


async def test_25_add_to_chord_outside_a_chord_says_so(shop):
    with pytest.raises(ValueError, match="in no chord"):
        await shop.run(chain(shop.adds.s("x")))


async def test_33_the_same_completion_a_hundred_times_fires_the_body_once(shop):
    from amqflow.workflow.records import Ending, Membership

    runtime = shop.app.runtime()
    result = await chord([shop.echo.s(1), shop.held.s("gate")], shop.collect.s()).aapply_async()
    await until(lambda: shop.ran["held gate"], deadline=GET)
    member = Membership(result.parent.id, 0, "flow", runtime.chords.kind)
    letter = runtime.launcher.completions(member, [Ending(0, succeeded=True, value=b"1")])
    await asyncio.gather(
        *(
            runtime.transport.publish(
                runtime.launcher.completions(
                    member, [Ending(0, succeeded=True, value=b"1")]
                ).envelope,
                letter.exchange,
                letter.routing_key,
                timeout=10,
            )
            for _ in range(100)
        )
    )
    shop.gates["gate"].set()
    assert await result.aget(timeout=GET) == [1, "gate"]
    await shop.quiet()
    assert shop.ran["collect"] == 1


@pytest.mark.parametrize("where", ["group", "chord", "body", "errback", "chain", "nested"])
async def test_an_argument_that_cannot_be_written_names_its_task_and_nothing_is_sent(shop, where):
    good, bad = [shop.echo.si(1), shop.echo.si(2)], shop.double.s(object())
    node = {
        "group": lambda: group([*good, bad]),
        "chord": lambda: chord([*good, bad], shop.collect.s()),
        "body": lambda: chord(good, shop.double.si(object())),
        "errback": lambda: chord(good, shop.collect.s().on_error(shop.double.si(object()))),
        "chain": lambda: chain(group(good), shop.collect.s(), shop.double.si(object())),
        "nested": lambda: chord([*good, chord([bad], shop.collect.s())], shop.collect.s()),
    }[where]()
    late = "a later step" if where in {"body", "errback", "chain"} else "number 3 of what begins"
    with pytest.raises(EncodeError, match=rf"shop\.double \({late}\): args\[0\]: object of type"):
        await node.aapply_async()
    await shop.quiet()
    assert not shop.ran


async def test_the_members_of_a_generator_are_checked_as_they_are_drawn(shop):
    members = (shop.double.s(value) for value in [*range(150), object()])
    with pytest.raises(EncodeError, match=r"shop\.double \(number 151 of what begins\): args\[0\]"):
        await chord(members, shop.collect.s()).aapply_async()
    await shop.quiet()
    assert "collect" not in shop.ran
