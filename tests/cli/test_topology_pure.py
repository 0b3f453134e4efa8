"""`amqflow topology` without a broker: validate, lint, route, schema, graph, export."""

import json
import shutil
from pathlib import Path

import pytest

from amqflow.topology.load import load, load_text
from amqflow.topology.schema import json_schema

TOPOLOGY = Path(__file__).parents[2] / "topology"

BAD = """\
version: 1
queues:
  email:
    max_priority: 300
    que: 5
"""
RISKY = "version: 1\nqueues:\n  email: {dead_letter: {alarm: 1}, expires: 1d}\n"
FAN = """
version: 1
exchanges: {news: {type: fanout}}
queues: {a: {bindings: [{exchange: news}]}, b: {bindings: [{exchange: news}]}}
"""
APP = """
from amqflow import AmqFlow
app = AmqFlow("bakery", topology="topology/shop.yaml")

@app.task(name="shop.email.send", queue="shop.reports")
def send(): ...

@app.task(name="shop.email.other")
def other(): ...
"""


@pytest.fixture
def shop(folder):
    """A folder with the shipped files."""
    shutil.copytree(TOPOLOGY, folder.path / "topology")
    return folder


def topology(folder, *arguments, app=()):
    return folder.run(*app, "topology", *arguments)


def test_validate_says_ok_or_every_error_with_its_place(shop):
    good = topology(shop, "validate")
    assert (good.returncode, good.stderr) == (0, "")
    assert "topology/shop.yaml: ok (3 exchanges, 5 queues, 5 routes)" in good.stdout
    (shop.path / "bad.yaml").write_text(BAD)
    bad = topology(shop, "validate", "bad.yaml", "topology/minimal.yaml", "nope.yaml", ".")
    assert bad.returncode == 1
    assert "topology/minimal.yaml: ok (0 exchanges, 1 queue, 1 route)" in bad.stdout
    assert bad.stderr.splitlines()[0] == (
        "bad.yaml:4:5: queues.email.max_priority: 300; RabbitMQ takes 1 to 255"
    )
    assert bad.stderr.splitlines()[1].startswith("bad.yaml:5:5: queues.email: unknown field `que`")
    assert bad.stderr.splitlines()[2:] == [
        "nope.yaml: no such file",
        ".: is a folder; name the file in it",
    ]


def test_validate_json_is_an_object_per_file(shop):
    (shop.path / "bad.yaml").write_text(BAD)
    found = topology(shop, "validate", "--json", "bad.yaml", "topology/shop.yaml")
    bad, good = map(json.loads, found.stdout.splitlines())
    assert found.returncode == 1
    assert good == {"file": "topology/shop.yaml", "valid": True, "problems": []}
    assert not bad["valid"]
    assert bad["problems"][0] == {
        "file": "bad.yaml",
        "line": 4,
        "column": 5,
        "path": ["queues", "email", "max_priority"],
        "text": "300; RabbitMQ takes 1 to 255",
    }


def test_validate_knows_versions(shop):
    (shop.path / "f.yaml").write_text("version: 1\nqueues: {a: {max_priority: 5}}\n")
    assert topology(shop, "validate", "f.yaml").returncode == 0
    old = topology(shop, "validate", "f.yaml", "--broker-version", "3.10.8")
    assert old.returncode == 1
    assert "f.yaml:2:14: queues.a.max_priority: quorum queues of RabbitMQ 3.10.8" in old.stderr
    wrong = topology(shop, "validate", "--broker-version", "banana")
    assert wrong.returncode == 2
    assert "expected one like 4.0.5" in wrong.stderr


def test_lint_prints_findings_as_compilers_do_and_fails(shop):
    clean = topology(shop, "lint")
    assert (clean.returncode, clean.stdout.count("nothing found")) == (0, 3)
    (shop.path / "f.yaml").write_text(RISKY)
    found = topology(shop, "lint", "f.yaml")
    assert found.returncode == 1
    assert "f.yaml:3:36: AT118 warning: 'email' is deleted once" in found.stdout
    as_json = topology(shop, "lint", "--json", "f.yaml")
    codes = [json.loads(line)["code"] for line in as_json.stdout.splitlines()]
    assert codes == ["AT114", "AT118"]


def test_notes_and_silenced_findings_do_not_fail(shop):
    text = RISKY.replace("\n  email", "\n  # amqflow: ignore AT118 meant\n  email")
    (shop.path / "f.yaml").write_text(text)
    found = topology(shop, "lint", "f.yaml")
    assert found.returncode == 0
    assert "AT114 note" in found.stdout
    assert "AT118" not in found.stdout
    shown = topology(shop, "lint", "--show-ignored", "f.yaml")
    assert "[ignored: meant]" in shown.stdout


def test_lint_of_a_broken_file_says_what_validate_says(shop):
    (shop.path / "f.yaml").write_text(BAD)
    found = topology(shop, "lint", "f.yaml")
    assert found.returncode == 1
    assert "max_priority: 300" in found.stderr


def test_route_prints_the_way_and_fails_unless_it_runs_once(shop):
    found = topology(shop, "route", "shop.email.send", "topology/shop.yaml")
    assert found.returncode == 0, found.stderr
    steps = dict(line.split(maxsplit=1) for line in found.stdout.splitlines() if line)
    assert steps["exchange"] == "shop.tasks"
    assert steps["priority"] == "5"
    assert "shop.tasks --email.*--> shop.email   (topology/shop.yaml:" in steps["binding"]
    assert steps["queue"].startswith("shop.email   (topology/shop.yaml:")
    assert "shop.dead --email--> shop.audit, shop.email.dead" in found.stdout
    lost = topology(shop, "route", "t", "topology/shop.yaml", "--queue", "shop.emial")
    assert lost.returncode == 1
    assert "error: t: there is no queue 'shop.emial'; did you mean `shop.email`?" in lost.stderr


def test_route_of_several_queues_needs_broadcast(shop):
    (shop.path / "f.yaml").write_text(FAN)
    twice = topology(shop, "route", "t", "f.yaml", "--exchange", "news")
    assert twice.returncode == 1
    assert "reaches 2 consumed queues" in twice.stderr
    (shop.path / "f.yaml").write_text(FAN + "routes: [{exchange: news, broadcast: true}]\n")
    meant = topology(shop, "route", "t", "f.yaml", "--json")
    assert meant.returncode == 0
    known = json.loads(meant.stdout)
    assert [queue["name"] for queue in known["queues"]] == ["a", "b"]
    assert (known["broadcast"], known["problem"], known["route"]) == (True, None, 0)


def test_with_an_application_its_file_its_name_and_its_tasks_options_count(shop):
    shop.write(bakery=APP)
    app = ("-A", "bakery")
    own = topology(shop, "route", "shop.email.send", "--json", app=app)
    assert own.returncode == 0, own.stderr
    assert [queue["name"] for queue in json.loads(own.stdout)["queues"]] == ["shop.reports"]
    other = topology(shop, "route", "shop.email.other", "--json", app=app)
    assert [queue["name"] for queue in json.loads(other.stdout)["queues"]] == ["shop.email"]
    valid = topology(shop, "validate", app=app)
    assert valid.stdout.splitlines() == ["topology/shop.yaml: ok (3 exchanges, 5 queues, 5 routes)"]
    chart = topology(shop, "graph", "topology/minimal.yaml", app=app)
    assert "amqflow.bakery.dead" in chart.stdout


def test_without_a_file_it_says_where_it_looked(folder, shop):
    several = topology(shop, "route", "t")
    assert several.returncode == 2
    assert "name a FILE; there are several: topology/cluster.yaml" in several.stderr
    shutil.rmtree(folder.path / "topology")
    none = topology(folder, "validate")
    assert none.returncode == 2
    assert "there is no topology/*.yaml here" in none.stderr
    folder.write(plain="from amqflow import AmqFlow\napp = AmqFlow('plain')\n")
    derived = topology(folder, "validate", app=("-A", "plain"))
    assert derived.returncode == 2
    assert "the application has no topology file" in derived.stderr


def test_schema_graph_and_export_print_what_tools_take(shop):
    assert json.loads(topology(shop, "schema").stdout) == json_schema()
    chart = topology(shop, "graph", "topology/shop.yaml", "--declared")
    assert chart.stdout.startswith("flowchart LR\n")
    assert "suspect" not in chart.stdout
    written = topology(shop, "export", "topology/shop.yaml")
    path = shop.path / "topology" / "shop.yaml"
    assert load_text(written.stdout, "x").own == load(path).own
    wanted = ("export", "topology/shop.yaml", "--format", "definitions")
    assert topology(shop, *wanted).returncode == 2
    definitions = topology(shop, *wanted, "--broker-version", "4.0.5", "--vhost", "shop")
    assert {queue["vhost"] for queue in json.loads(definitions.stdout)["queues"]} == {"shop"}


def test_the_group_lists_its_commands_and_suggests_the_nearest(folder):
    listed = topology(folder, "--help")
    for name in ("export", "graph", "lint", "route", "schema", "validate"):
        assert f"  {name} " in listed.stdout
    wrong = topology(folder, "valdate")
    assert wrong.returncode == 2
    assert "validate" in wrong.stderr
