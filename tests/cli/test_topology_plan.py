"""`amqflow topology plan` and `apply` as users type them, on a real broker."""

import asyncio
import json
import re
import signal
import subprocess

import pytest

from amqflow.protocol import Envelope
from tests.servers.command import Command
from tests.servers.wait import until, until_sync

SHOP = """\
version: 1
owns: ["shop.*"]
exchanges:
  shop.tasks: {type: topic}
queues:
  shop.email:
    type: classic
    max_priority: 10
    bindings: [{exchange: shop.tasks, routing_key: "email.*"}]
policies:
  shop.short: {pattern: "^shop.email$", definition: {max-length: 100000}}
"""
PLAIN = SHOP[: SHOP.index("policies:")]
NAMES = """\
version: 1
exchanges: {"a/b c": {type: topic}, "Ünï 中文 😀": {type: fanout}}
queues:
  "my queue/1": {bindings: [{exchange: a/b c, routing_key: "x y.#"}]}
  "a.b*#%c": {dead_letter: {exchange: "d e/f"}}
  заказы: {bindings: [{exchange: "Ünï 中文 😀"}]}
policies: {"p/1 ü": {pattern: "^заказы$", definition: {max-length: 5}}}
"""


@pytest.fixture
def shop(served, rabbitmq):
    served._environment["AMQFLOW_MANAGEMENT_URL"] = rabbitmq.management_url
    write(served, SHOP)
    return served


def write(folder, text, name="shop.yaml"):
    (folder.path / name).write_text(text)


def plan(folder, *options, **environment):
    return folder.run("topology", "plan", "shop.yaml", *options, **environment)


def apply(folder, *options, **environment):
    return folder.run("topology", "apply", "shop.yaml", *options, **environment)


def planned(folder, *options):
    found = plan(folder, "--json", *options)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


# -- empty, applied, drifted -------------------------------------------------------------------


def test_plan_apply_plan(shop):
    first = plan(shop, "--detailed-exitcode")
    assert first.returncode == 3, first.stderr
    assert "+ queue shop.email   (shop.yaml:6:3)" in first.stdout
    assert "+ policy shop.short   (shop.yaml:11:3)" in first.stdout
    assert re.search(r"Plan: \d+ to create, 0 to update, 0 to replace, 0 to delete", first.stdout)
    assert "\x1b" not in first.stdout
    done = apply(shop)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"Applied \d+ changes\.", done.stdout)
    again = plan(shop, "--detailed-exitcode")
    assert again.returncode == 0
    assert again.stdout.startswith("No changes: ")
    assert apply(shop).stdout.startswith("No changes: ")


def test_the_applications_own_topology_is_planned_too(shop):
    shop.write(
        plain_app="""
        from amqflow import AmqFlow
        app = AmqFlow("bakery")
        @app.task(queue="bread")
        def bake(): ...
        """
    )
    found = shop.run("-A", "plain_app", "topology", "apply")
    assert found.returncode == 0, found.stderr
    assert "queue bread.dead   (derived)" in found.stdout
    doctor = shop.run("-A", "plain_app", "doctor", "--no-probe", "--json", AMQFLOW_BACKEND=None)
    said = [json.loads(line) for line in doctor.stdout.splitlines()]
    assert [one["level"] for one in said if one["check"] == "topology"] == ["ok"]


async def test_a_drifted_broker_is_told_part_by_part_and_mended(shop, transport, rabbitmq, vhost):
    assert apply(shop).returncode == 0
    await transport.delete_queue("shop.email.dead")
    await transport.unbind_queue("shop.email", "shop.tasks", "email.*")
    await transport.declare_queue("shop.old")
    await transport.bind_queue("shop.email", "shop.tasks", "old.*")
    rabbitmq.management(
        "PUT",
        f"/api/policies/{vhost}/shop.short",
        {"pattern": "^shop.email$", "definition": {"max-length": 7}, "apply-to": "queues"},
    )
    found = planned(shop, "--prune")
    said = {(one["action"], one["name"]) for one in found["changes"] if "delay" not in one["name"]}
    assert {
        ("create", "shop.email.dead"),
        ("create", "shop.tasks --email.*--> shop.email"),
        ("update", "shop.short"),
        ("delete", "shop.old"),
        ("delete", "shop.tasks --old.*--> shop.email"),
    } <= said
    assert len(planned(shop)["kept"]) == 2
    assert apply(shop, "--prune").returncode == 0
    assert planned(shop, "--prune")["changes"] == []


def test_names_with_slashes_spaces_and_any_script(shop, rabbitmq, vhost):
    write(shop, NAMES)
    assert apply(shop).returncode == 0
    assert planned(shop)["changes"] == []
    assert rabbitmq.management("GET", f"/api/policies/{vhost}/p%2F1%20%C3%BC")["pattern"]


def test_colours_are_for_terminals(shop):
    import os
    import pty

    primary, secondary = pty.openpty()
    process = Command(
        *("-m", "amqflow", "topology", "plan", "shop.yaml"),
        cwd=shop.path,
        env=shop.environment(TERM="xterm"),
        stdout=secondary,
        stderr=subprocess.STDOUT,
        stdin=secondary,
    )
    os.close(secondary)
    said = b""
    while True:
        try:
            chunk = os.read(primary, 65536)
        except OSError:
            break
        if not chunk:
            break
        said += chunk
    process.wait(30)
    os.close(primary)
    assert b"\x1b[32m" in said
    assert b"Plan: " in said


# -- what is refused ---------------------------------------------------------------------------


async def test_a_replace_is_planned_and_refused_without_migrate(shop, transport):
    await transport.declare_queue("shop.email", arguments={"x-max-priority": 5})
    found = plan(shop)
    assert "-/+ queue shop.email" in found.stdout
    assert "x-max-priority: 5 → 10" in found.stdout
    done = apply(shop)
    assert done.returncode == 1
    assert "the plan replaces 'shop.email'" in done.stderr
    assert "--migrate" in done.stderr
    assert {one["action"] for one in planned(shop)["changes"]} == {"create", "replace"}


async def test_an_exchange_of_another_type_is_never_replaced(shop, transport):
    await transport.declare_exchange("shop.tasks", "direct")
    done = apply(shop, "--migrate")
    assert done.returncode == 1
    assert "exchange 'shop.tasks' cannot be replaced" in done.stderr


async def test_a_queue_that_holds_messages_is_not_pruned(shop, transport):
    await transport.declare_queue("shop.old")
    await transport.publish(Envelope(b"1", message_id="1"), "", "shop.old", timeout=10)
    done = apply(shop, "--prune")
    assert done.returncode == 1
    assert "queue 'shop.old' is not deleted: it holds 1 messages" in done.stderr
    assert "changes are applied)" in done.stderr
    assert (await transport.declare_queue("shop.old", passive=True)).messages == 1
    await transport.purge_queue("shop.old")

    def pruned():
        return apply(shop, "--prune").returncode == 0

    until_sync(pruned, deadline=30, every=0.5)  # the API counts a few seconds late


async def test_a_stale_plan_is_refused(shop, transport):
    found = plan(shop, "--out", "kept.json")
    assert found.returncode == 0
    assert apply(shop, "--plan", "kept.json").returncode == 0
    assert plan(shop, "--out", "kept.json").returncode == 0
    await transport.delete_queue("shop.email.dead")
    await transport.declare_queue("shop.email.dead", arguments={"x-max-length": 3})
    stale = apply(shop, "--plan", "kept.json", "--migrate")
    assert stale.returncode == 1
    assert "changed since the plan kept.json was made" in stale.stderr
    write(shop, SHOP.replace("100000", "5"))
    await transport.delete_queue("shop.email.dead")
    assert apply(shop, "--plan", "kept.json").returncode == 1
    (shop.path / "kept.json").write_text("{}")
    none = apply(shop, "--plan", "kept.json")
    assert none.returncode == 1
    assert "kept.json holds no plan" in none.stderr


def test_prune_needs_a_file_that_owns_something(shop):
    write(shop, SHOP.replace('owns: ["shop.*"]', "owns: []"))
    found = plan(shop, "--prune")
    assert found.returncode == 2
    assert "says what it owns" in found.stderr


# -- without the management API ----------------------------------------------------------------


async def test_without_the_api_declares_tell_and_the_plan_says_what_it_could_not_see(
    shop, transport
):
    write(shop, PLAIN)
    blind = planned(shop, "--no-management")
    assert blind["counts"]["create"] > 100
    assert any("cannot be seen" in text for text in blind["unseen"])
    assert apply(shop, "--no-management").returncode == 0
    assert planned(shop)["changes"] == []
    blind = planned(shop, "--no-management")
    assert blind["changes"] == []
    assert len(blind["unverified"]) > 70
    await transport.delete_queue("shop.email")
    await transport.declare_queue(
        "shop.email", arguments={"x-max-priority": 5, "x-dead-letter-exchange": "amqflow.shop.dead"}
    )
    (change,) = [
        one for one in planned(shop, "--no-management")["changes"] if one["action"] == "replace"
    ]
    assert change["differences"]
    assert "perhaps more" in change["reason"]
    refused = apply(shop, "--no-management", "--migrate")
    assert refused.returncode == 1
    assert "--migrate needs the management API" in refused.stderr
    assert "prune needs the management API" in plan(shop, "--no-management", "--prune").stderr


def test_policies_need_the_api(shop):
    found = plan(shop, "--no-management")
    assert found.returncode == 1
    assert "policies needs the management API" in found.stderr


def test_an_api_that_was_named_and_is_off_is_an_error_without_the_password(shop):
    url = "http://me:s3cret@127.0.0.1:1/rabbit"
    found = plan(shop, AMQFLOW_MANAGEMENT_URL=url)
    assert found.returncode == 1
    assert "http://127.0.0.1:1/rabbit cannot be used" in found.stderr
    assert "s3cret" not in found.stderr + found.stdout


def test_an_unknown_virtual_host_is_an_error(shop, rabbitmq):
    found = plan(shop, AMQFLOW_BROKER=rabbitmq.vhost_url("no such"))
    assert found.returncode == 1
    assert "no such" in found.stderr
    assert "guest:guest" not in found.stderr


# -- killed ------------------------------------------------------------------------------------


@pytest.mark.faults
async def test_an_apply_that_is_killed_half_way_is_finished_by_the_next(shop, transport):
    queues = "".join(f"  shop.q{n}: {{}}\n" for n in range(60))
    write(shop, "version: 1\nqueues:\n" + queues)
    with shop.started("topology", "apply", "shop.yaml") as started:

        async def some():
            names = [f"shop.q{n}" for n in range(60)]
            found = await asyncio.gather(*(there(transport, name) for name in names))
            return any(found)

        await until(some, deadline=60, every=0.001)
        started.stop(signal.SIGKILL)
    left = planned(shop)["counts"]["create"]
    assert left > 0
    done = apply(shop)
    assert f"Applied {left} changes." in done.stdout
    assert planned(shop)["changes"] == []


async def there(transport, name):
    from amqflow.errors import ChannelLost, NotFound

    try:
        await transport.declare_queue(name, passive=True)
    except (NotFound, ChannelLost):
        return False
    return True
