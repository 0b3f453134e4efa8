"""What compositions must satisfy: their structure. One line of the list, one test."""

import json

import pytest

from amqflow import AmqFlow
from amqflow.canvas import chain, chord, group, signature_from
from amqflow.errors import ConfigurationError
from tests.servers.wait import until

GET = 30


async def test_01_a_chain_passes_each_result_on_and_one_of_one_works(shop):
    assert await shop.run(chain(shop.add.s(1, 2), shop.add.s(3), shop.double.s())) == 12
    assert await shop.run(chain(shop.add.s(1, 2))) == 3
    with pytest.raises(ConfigurationError, match="at least one step"):
        chain()


async def test_02_flattening_nested_chains_keeps_inner_links_and_errbacks(shop):
    inner = chain(shop.add.s(1, 1), shop.double.s())
    inner.link(shop.note.s())
    assert await shop.run(chain(inner, shop.add.s(10))) == 14
    await until(lambda: ("note", 4) in shop.told, deadline=GET)
    failing = chain(shop.add.s(1, 1), shop.fail.s())
    failing.link_error(shop.sorry.s())
    with pytest.raises(KeyError):
        await shop.run(chain(failing, shop.add.s(10)))
    await until(lambda: len(shop.told) == 2, deadline=GET)
    assert shop.told[1][0::2] == ("sorry", "KeyError")


async def test_02_an_errback_of_an_inner_chain_is_not_that_of_what_follows(shop):
    inner = chain(shop.add.s(1, 1), shop.double.s())
    inner.link_error(shop.sorry.s())
    with pytest.raises(KeyError):
        await shop.run(chain(inner, shop.fail.s()))
    await shop.quiet()
    assert shop.told == []


async def test_03_a_lone_group_inside_a_chain_completes_with_its_list(shop):
    assert await shop.run(chain(group([shop.add.s(i, 1) for i in range(3)]))) == [1, 2, 3]


async def test_04_a_group_joins_in_mid_chain_and_returns_its_list_at_the_end(shop):
    members = [shop.add.s(i) for i in range(4)]
    assert await shop.run(chain(shop.add.s(1, 1), group(members), shop.total.s())) == 14
    assert await shop.run(chain(shop.add.s(1, 1), group(members))) == [2, 3, 4, 5]
    whole = chain(shop.echo.s(1), group(members), shop.total.s(), group(members))
    assert await shop.run(whole) == [10, 11, 12, 13]


async def test_05_results_keep_header_order_whatever_order_they_finish_in(shop):
    header = [shop.late.s(i, 0.3 - i / 10) for i in range(4)]
    assert await shop.run(chord(header, shop.collect.s())) == [0, 1, 2, 3]


async def test_05_a_group_in_a_group_is_unrolled_and_a_chain_between_prevents_it(shop):
    inner = group(shop.echo.s(1), shop.echo.s(2))
    assert await shop.run(chord(group(inner, shop.echo.s(3)), shop.collect.s())) == [1, 2, 3]
    nested = group(chain(shop.echo.s(0), group(shop.add.s(1), shop.add.s(2))), shop.echo.s(3))
    assert await shop.run(chord(nested, shop.collect.s())) == [[1, 2], 3]
    assert await shop.run(nested) == [[1, 2], 3]


async def test_06_a_header_of_one_gives_a_list_of_one(shop):
    assert await shop.run(chord([shop.echo.s("a")], shop.collect.s())) == ["a"]
    assert await shop.run(chain(group(shop.echo.s("a")), shop.collect.s())) == ["a"]


async def test_06_an_empty_header_runs_the_body_and_an_empty_group_is_ready(shop):
    assert await shop.run(chord([], shop.collect.s())) == []
    assert await shop.run(chord(iter([]), shop.collect.s())) == []
    result = await group([], app=shop.app).aapply_async()
    assert await result.aready()
    assert await result.aget(timeout=10) == []
    assert await shop.run(chain(shop.echo.s(1), group([]))) == []
    assert await shop.run(chain(shop.echo.s(1), group([]), shop.collect.s())) == []
    assert await shop.run(chord([chain(shop.echo.s(1), group([]))], shop.collect.s())) == [[]]


async def test_07_a_header_of_1000_completes(shop):
    header = (shop.echo.s(i) for i in range(1000))
    assert await shop.run(chord(header, shop.total.s())) == 499_500


@pytest.mark.slow
async def test_07_a_header_of_10000_completes(shop):
    header = [shop.double.s(i) for i in range(10_000)]
    result = await chord(header, shop.total.s()).aapply_async()
    assert await result.aget(timeout=120) == 99_990_000


async def test_08_chords_nested_four_deep(shop):
    node = shop.echo.s(1)
    for _ in range(4):
        node = chord([node, shop.echo.s(1)], shop.total.s())
    assert await shop.run(node) == 5


async def test_08_chords_in_chains_in_groups_in_chords(shop):
    inner = chord([shop.add.s(1), shop.add.s(2)], shop.total.s())
    whole = chord(
        [
            chain(shop.echo.s(10), inner, shop.double.s()),
            chain(shop.echo.s(1), group(shop.add.s(1), shop.add.s(2)), shop.total.s()),
        ],
        chain(shop.collect.s(), shop.total.s()),
    )
    assert await shop.run(whole) == 46 + 5


async def test_08_nine_chords_in_a_row(shop):
    steps = [shop.echo.s(1)]
    steps += [chord([shop.add.s(0), shop.add.s(1)], shop.total.s()) for _ in range(9)]
    expected = 1
    for _ in range(9):
        expected = 2 * expected + 1
    assert await shop.run(chain(*steps)) == expected


async def test_09_groups_one_after_the_other_run_each_task_exactly_once(shop):
    whole = chain(
        group(shop.echo.si(f"a{i}") for i in range(5)),
        group(shop.echo.si(f"b{i}") for i in range(5)),
        group(shop.echo.si(f"c{i}") for i in range(5)),
    )
    assert await shop.run(whole) == [f"c{i}" for i in range(5)]
    await shop.quiet()
    assert shop.ran == {f"echo {letter}{i}": 1 for letter in "abc" for i in range(5)}


async def test_10_arguments_reach_the_right_members_and_immutable_ones_take_none(shop):
    assert await shop.run(chain(shop.add.s(1), shop.add.s(1)), 5) == 7
    assert await shop.run(group(shop.add.s(1), shop.add.si(1, 1), shop.add.s(2)), 5) == [6, 2, 7]
    assert await shop.run(chord([shop.add.s(1), shop.echo.si("x")], shop.collect.s()), 5) == [
        6,
        "x",
    ]
    assert await shop.run(chain(shop.both.s(1), shop.both.s()), key="k") == [
        [1, None, "k"],
        None,
        None,
    ]
    assert await shop.run(chain(shop.echo.s(1), shop.both.si("own", key=1))) == ["own", None, 1]


async def test_11_a_chain_as_the_body_of_a_chord_inside_a_group_resolves(shop):
    body = chain(shop.total.s(), shop.double.s())
    whole = group(chord([shop.echo.s(1), shop.echo.s(2)], body), shop.echo.s("beside"))
    assert await shop.run(whole) == [6, "beside"]


async def test_12_a_generator_header_is_consumed_lazily(shop):
    built = []

    def members():
        for i in range(300):
            if i == 150:
                built.append(sum(shop.ran.values()))
            yield shop.echo.s(i)

    result = await chord(members(), shop.total.s()).aapply_async()
    assert await result.aget(timeout=GET) == sum(range(300))
    assert built[0] > 0, "the first member ran before the last was built"


async def test_12_a_generator_that_raises_fails_its_chord_and_its_caller(shop):
    def members():
        yield shop.echo.s(1)
        raise ValueError("no more")

    node = chord(members(), shop.total.s())
    node.set(task_id="broken-generator-body")
    node.link_error(shop.sorry.s())
    with pytest.raises(ValueError, match="no more"):
        await node.aapply_async()
    outcome = await shop.app.wait_outcome("broken-generator-body", GET)
    assert outcome.state == "FAILURE"
    assert "no more" in outcome.exception.text
    await until(lambda: shop.told, deadline=GET)
    assert shop.ran["total"] == 0


async def test_13_root_and_parent_are_right_at_every_node(shop):
    whole = chain(
        shop.ids.si(),
        shop.ids.si(),
        chord([shop.ids.si() for _ in range(3)], chain(shop.both.s(), shop.both.s())),
        shop.ids.si(),
    )
    last = await whole.aapply_async()
    values = await last.aget(timeout=GET)
    chain_of = []
    node = last
    while node is not None:
        chain_of.append(node)
        node = node.parent
    tail, second, body, header, step, first = chain_of
    assert values == [tail.id, first.id, second.id, None, None]
    assert await first.aget(timeout=10) == [first.id, first.id, None, None, None]
    assert await step.aget(timeout=10) == [step.id, first.id, first.id, None, None]
    members = await header.aget(timeout=10)
    assert members == [
        [one.id, first.id, step.id, header.id, index] for index, one in enumerate(header.results)
    ]
    assert (await shop.app.fetch_outcome(body.id)).parent_id == header.results[-1].id
    assert (await shop.app.fetch_outcome(second.id)).parent_id == body.id


async def test_13_a_chord_called_by_itself_has_one_root(shop):
    result = await chord([shop.ids.s(i) for i in range(2)], shop.collect.s()).aapply_async()
    first, second = await result.aget(timeout=GET)
    assert first[1] == second[1] == first[0]
    assert first[2] is None


async def test_13_group_and_index_survive_a_retry(shop):
    header = [shop.retries.s("a", 0), shop.retries.s("b", 2)]
    assert await shop.run(chord(header, shop.collect.s())) == [["a", True, 0], ["b", True, 1]]


async def test_14_a_composition_saved_as_json_and_loaded_elsewhere_does_the_same(shop):
    whole = chain(
        shop.add.s(1, 1),
        chord([shop.add.s(1), chain(shop.double.s(), shop.double.s())], shop.total.s()),
        group(shop.add.s(1), shop.add.s(2)),
    )
    saved = json.dumps(whole.to_dict())
    elsewhere = AmqFlow("flow", broker=shop.app.broker_url, backend=shop.app.conf.result_backend)
    try:
        loaded = signature_from(json.loads(saved), elsewhere)
        result = await loaded.aapply_async()
        ids = [result.id, *(one.id for one in result.results)]
        assert [await shop.app.wait_outcome(one, GET) for one in ids[1:]]
        assert await result.aget(timeout=GET) == await shop.run(whole) == [12, 13]
    finally:
        await elsewhere.aclose()


async def test_15_map_starmap_and_chunks_give_what_the_builtins_give(shop):
    pairs = [(1, 2), (3, 4), (5, 6)]
    assert await shop.run(shop.double.map([1, 2, 3])) == [2, 4, 6]
    assert await shop.run(shop.add.starmap(pairs)) == [3, 7, 11]
    assert await shop.run(shop.add.chunks(pairs, 2).group()) == [[3, 7], [11]]
    built = []

    def endless():
        for number in range(6):
            built.append(number)
            yield (number, 1)

    chunked = shop.add.chunks(endless(), 2)
    assert len(built) <= 2, "chunks of a generator stay lazy"
    assert await shop.run(chunked.group()) == [[1, 2], [3, 4], [5, 6]]


async def test_16_links_fire_once_on_success_with_the_result(shop):
    result = await shop.add.aapply_async((1, 2), link=[shop.note.s(), shop.note.s()])
    assert await result.aget(timeout=GET) == 3
    await until(lambda: len(shop.told) >= 2, deadline=GET)
    await shop.quiet()
    assert shop.told == [("note", 3), ("note", 3)]


async def test_16_links_on_members_fire_per_member(shop):
    header = [shop.echo.s(i).set(link=shop.note.s()) for i in range(3)]
    assert await shop.run(chord(header, shop.collect.s())) == [0, 1, 2]
    await until(lambda: len(shop.told) >= 3, deadline=GET)
    await shop.quiet()
    assert sorted(shop.told) == [("note", i) for i in range(3)]


async def test_16_links_on_a_group_fire_once_when_it_is_done(shop):
    node = group(shop.echo.s(i) for i in range(3))
    node.link(shop.note.s())
    assert await shop.run(node) == [0, 1, 2]
    await until(lambda: shop.told, deadline=GET)
    await shop.quiet()
    assert shop.told == [("note", [0, 1, 2])]


async def test_16_links_on_a_chord_get_the_bodys_result(shop):
    node = chord([shop.echo.s(1), shop.echo.s(2)], shop.total.s())
    node.link(shop.note.s())
    assert await shop.run(node) == 3
    await until(lambda: shop.told, deadline=GET)
    await shop.quiet()
    assert shop.told == [("note", 3)]


async def test_16_a_composition_can_be_a_link(shop):
    link = chain(shop.double.s(), group(shop.note.s(), shop.note.s()))
    result = await shop.add.aapply_async((1, 2), link=link)
    assert await result.aget(timeout=GET) == 3
    await until(lambda: len(shop.told) >= 2, deadline=GET)
    await shop.quiet()
    assert shop.told == [("note", 6), ("note", 6)]


async def test_a_step_names_what_it_led_to_as_its_children(shop):
    tail = group(shop.add.s(1), shop.add.s(2))
    last = await chain(shop.add.s(1, 1), shop.double.s(), tail).aapply_async()
    assert await last.aget(timeout=GET) == [5, 6]
    second = last.parent
    first = second.parent
    assert [child.id for child in await first.achildren()] == [second.id]
    (child,) = await second.achildren()
    assert child.id == last.id
    assert [one.id for one in child.results] == [one.id for one in last.results]
