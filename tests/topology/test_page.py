"""The pages on topology files: every field has its row, every example is read."""

import re
from pathlib import Path

import pytest

from amqflow.topology.document import MAX_BYTES, MAX_DEPTH, MAX_NODES
from amqflow.topology.load import load_text
from amqflow.topology.schema import json_schema

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "topology.md").read_text()
YAML = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(text, id=f"{page}-{at}")
    for page in ("topology", "lint")
    for at, text in enumerate(YAML.findall((DOCS / f"{page}.md").read_text()))
]


@pytest.mark.parametrize("text", BLOCKS)
def test_every_example_is_read(text):
    load_text(text)


def test_every_field_has_its_row():
    rows = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
    schema = json_schema()
    fields = set(schema["properties"])
    for part in schema["$defs"].values():
        fields |= set(part["properties"])
    assert {name for name in fields if f"`{name}`" not in rows} - {"exchange"} == set()


def test_the_bounds_are_those_in_force():
    words = " ".join(PAGE.split())
    assert f"{MAX_BYTES >> 20} MiB, {MAX_NODES:,} values" in words
    assert f"{MAX_DEPTH} levels; what is beyond" in words


def test_commands_are_those_there_are():
    from amqflow.cli.topology import topology

    for name in topology.list_commands(None):
        assert f"`amqflow topology {name}" in PAGE or f"`{name}`" in PAGE
