"""``amqflow topology schema`` and ``graph``: a file's format, and a file as a picture."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from amqflow.cli.topology_file import application_name, broker_version, the_file, whole

if TYPE_CHECKING:
    from amqflow.cli.finding import AppSource
    from amqflow.topology import BrokerFacts


@click.command()
def schema() -> None:
    """Print the JSON Schema of topology files, for editors that complete and check YAML."""
    from amqflow.topology.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@click.command()
@click.argument("file", required=False)
@broker_version
@application_name
@click.option("--declared", is_flag=True, help="Only what the file declares, nothing derived.")
@click.pass_obj
def graph(
    source: AppSource,
    file: str | None,
    *,
    facts: BrokerFacts | None,
    name: str | None,
    declared: bool,
) -> None:
    """Print a file as a Mermaid flow chart: routes, exchanges, queues, dead letters."""
    from amqflow.topology.graph import mermaid
    from amqflow.topology.load import load

    loaded = load(the_file(source, file))
    topology = whole(loaded, source, name, facts)
    click.echo(mermaid(loaded, topology, derived=not declared), nl=False)
