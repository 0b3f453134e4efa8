"""The JSON Schema of topology files, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any, Final

from amqflow.topology.file import EXTENSION_PREFIX, TopologyFile

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

#: Sections and parts that may stand empty: ``queues:``, ``default:``.
_MAY_BE_EMPTY: Final = ("exchanges", "queues", "delays", "policies")


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12).

    A schema sees one value at a time: what parts say of each other (a binding's exchange, a
    route's queue, what a queue type does not take) only :func:`~amqflow.topology.load.load` checks.
    """
    made = TopologyFile.model_json_schema()
    _simplify(made)
    properties = made["properties"]
    for section in _MAY_BE_EMPTY:
        properties[section] = _or_empty(properties[section])
    for section in ("exchanges", "queues"):
        parts = properties[section]["anyOf"][0]
        parts["additionalProperties"] = _or_empty(parts["additionalProperties"])
    return {
        "$schema": DIALECT,
        "title": "amqflow topology",
        "patternProperties": {f"^{EXTENSION_PREFIX}": {}},
        **made,
    }


def _or_empty(schema: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        key: schema.pop(key) for key in ("description", "default") if key in schema
    }
    return {**told, "anyOf": [schema, {"type": "null"}]}


def _simplify(schema: Any) -> None:
    """Drop the titles pydantic makes of field names; they say nothing the names don't."""
    if isinstance(schema, list):
        for item in schema:
            _simplify(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        for item in schema.values():
            _simplify(item)
