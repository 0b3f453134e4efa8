"""The JSON Schema and the loader agree, where a schema can tell."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from amqflow.topology import TopologyFileError
from amqflow.topology.load import load_text
from amqflow.topology.schema import json_schema

ROOT = Path(__file__).parents[2]
SCHEMA = json_schema()


def rows():
    """Return the table of bad files of test_load.py."""
    path = Path(__file__).with_name("test_load.py")
    spec = importlib.util.spec_from_file_location("bad_files", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [
        wrong if wrong.startswith("version") else f"version: 1\n{wrong}"
        for wrong, _ in module.WRONG
    ]


ROWS = rows()


def kind(value, name):
    """Return whether a value is of a JSON type; true is no number there."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "null": value is None,
        "number": number,
        "integer": number and int(value) == value,
    }[name]


def valid(value, schema, root=SCHEMA):
    """Judge a value by the keywords our schema uses; an unknown keyword is an error here."""
    checks = {
        "$ref": lambda ref: valid(value, root["$defs"][ref.rpartition("/")[2]], root),
        "type": lambda name: kind(value, name),
        "const": lambda one: value == one and type(value) is type(one),
        "enum": lambda words: value in words,
        "anyOf": lambda ways: any(valid(value, way, root) for way in ways),
        "pattern": lambda pattern: not isinstance(value, str) or bool(re.search(pattern, value)),
        "minimum": lambda low: not kind(value, "number") or value >= low,
        "maximum": lambda high: not kind(value, "number") or value <= high,
        "minLength": lambda low: not isinstance(value, str) or len(value) >= low,
        "minProperties": lambda low: not isinstance(value, dict) or len(value) >= low,
        "required": lambda names: not isinstance(value, dict) or set(names) <= set(value),
        "items": lambda item: (
            not isinstance(value, list) or all(valid(one, item, root) for one in value)
        ),
        "properties": lambda known: (
            not isinstance(value, dict)
            or all(valid(value[name], known[name], root) for name in value if name in known)
        ),
        "additionalProperties": lambda rule: (
            not isinstance(value, dict)
            or all(
                rule if isinstance(rule, bool) else valid(value[name], rule, root)
                for name in value
                if name not in schema.get("properties", {})
                and not any(
                    re.search(one, str(name)) for one in schema.get("patternProperties", {})
                )
            )
        ),
    }
    silent = {"$schema", "$defs", "title", "description", "default", "patternProperties"}
    return all(checks[name](rule) for name, rule in schema.items() if name not in silent)


@pytest.mark.parametrize("name", ["minimal", "shop", "cluster"])
def test_the_shipped_files_are_valid_and_point_to_the_schema(name):
    text = (ROOT / "topology" / f"{name}.yaml").read_text()
    assert valid(yaml.safe_load(text), SCHEMA)
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")


def test_the_shipped_schema_is_this_one():
    shipped = (ROOT / "topology" / "schema.json").read_text()
    assert json.loads(shipped) == SCHEMA, "run amqflow topology schema > topology/schema.json"


#: What a schema cannot see: what parts say of each other, and what YAML read otherwise.
BEYOND = re.compile(
    r"no exchange|no queue '|is here twice|belong to|say which|say in arguments|AMQP allows|"
    r"quorum queue|classic queue|stream queue|a stream|a home|has a home|needs an exchange|"
    r"overflow 'reject|broker takes|itself; set|instead|64 bits|line break|without a name|"
    r"delay's key|routing key of a delay|reaches|says nothing|as a text|is no regular|"
    r"YAML reads|has no value|resolution is|3650|highest of"
)


@pytest.mark.parametrize("text", ROWS, ids=lambda text: str(ROWS.index(text)))
def test_schema_and_loader_agree_on_bad_files(text):
    with pytest.raises(TopologyFileError) as caught:
        load_text(text + "\n")
    judged = valid(yaml.safe_load(text), SCHEMA)
    told = BEYOND.search(str(caught.value)) is not None
    assert not judged or told, caught.value


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nqueues:\n",
        "version: 1\nqueues: {a: }\nexchanges: {e: }\ndelays:\npolicies:\n",
        "version: 1\nx-mine: [anything, 5]\nqueues: {a: {message_ttl: 0, max_length_bytes: 5}}",
        "version: 1\nqueues: {a: {message_ttl: 1h30m, max_length_bytes: 1.5 MB, overflow: ~}}",
        "version: 1\nqueues: {a: {dead_letter: {exchange: d, routing_key: null}, park: []}}",
    ],
)
def test_schema_and_loader_agree_on_good_files(text):
    load_text(text + "\n")
    assert valid(yaml.safe_load(text), SCHEMA)


def test_every_field_has_words_for_the_editor():
    for part in SCHEMA["$defs"].values():
        assert part["description"]
        for name, field in part["properties"].items():
            assert field.get("description"), name
    for name, field in SCHEMA["properties"].items():
        assert field.get("description"), name
