"""``amqflow topology export``: a topology as YAML, or as RabbitMQ's own definitions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from amqflow.cli.topology_file import application_name, broker_version, the_file, whole

if TYPE_CHECKING:
    from amqflow.cli.finding import AppSource
    from amqflow.topology import BrokerFacts


@click.command()
@click.argument("file", required=False)
@broker_version
@application_name
@click.option(
    "--format",
    "form",
    type=click.Choice(["yaml", "definitions"]),
    default="yaml",
    show_default=True,
    help="YAML, every default left out; or definitions for rabbitmqctl import_definitions, "
    "derived parts too.",
)
@click.option("--vhost", default="/", show_default=True, help="Of the definitions.")
@click.pass_obj
def export(
    source: AppSource,
    file: str | None,
    *,
    facts: BrokerFacts | None,
    name: str | None,
    form: str,
    vhost: str,
) -> None:
    """Print a topology file as plain YAML, or as definitions the broker's own tools import."""
    from amqflow.topology.definitions import definitions
    from amqflow.topology.load import load
    from amqflow.topology.write import write

    declared = load(the_file(source, file))
    if form == "yaml":
        click.echo(write(declared), nl=False)
        return
    if facts is None:
        message = "--format definitions needs --broker-version: arguments differ between versions"
        raise click.UsageError(message)
    found = definitions(whole(declared, source, name, facts), declared.policies, vhost)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))
