"""``amqflow topology``: what the broker should hold, checked, shown, planned and applied."""

from __future__ import annotations

import click

from amqflow.cli.lazy import LazyGroup

#: Where each command is defined; only plan and apply speak to a broker.
COMMANDS = {
    "apply": "amqflow.cli.topology_plan:apply",
    "export": "amqflow.cli.topology_export:export",
    "graph": "amqflow.cli.topology_show:graph",
    "lint": "amqflow.cli.topology_lint:lint",
    "plan": "amqflow.cli.topology_plan:plan",
    "route": "amqflow.cli.topology_route:route",
    "schema": "amqflow.cli.topology_show:schema",
    "validate": "amqflow.cli.topology_lint:validate",
}


@click.group(cls=LazyGroup, places=COMMANDS)
def topology() -> None:
    """Check, show, plan and apply topology files."""
