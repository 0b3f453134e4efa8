"""``amqflow topology route``: where a task's calls go, decided offline; an assertion for CI."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from amqflow.cli.finding import import_tasks
from amqflow.cli.topology_file import application_name, broker_version, the_file, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.cli.finding import AppSource
    from amqflow.topology import BrokerFacts, Declaration
    from amqflow.topology.routes import Address
    from amqflow.topology.trace import Stop, Trace


@click.command()
@click.argument("task")
@click.argument("file", required=False)
@click.option("--queue", help="As if the call said queue=…")
@click.option("--exchange", help="As if the call said exchange=…")
@click.option("--routing-key", help="As if the call said routing_key=…")
@broker_version
@application_name
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def route(
    source: AppSource,
    task: str,
    file: str | None,
    *,
    queue: str | None,
    exchange: str | None,
    routing_key: str | None,
    facts: BrokerFacts | None,
    name: str | None,
    as_json: bool,
) -> int:
    """Show where calls of TASK go: key, bindings, queue, dead letters.

    Exit 1 where they reach no consumed queue, or several without `broadcast: true`. With -A the
    task's own options count too, as they do when it is called.
    """
    from amqflow.topology.load import load
    from amqflow.topology.routes import Address
    from amqflow.topology.trace import trace

    declared = load(the_file(source, file))
    topology = whole(declared, source, name, facts)
    own, routes = Address(), None
    if source.named:
        app = source.load()
        import_tasks(app)
        own = _own_options(app.options_of(task))
        if app.topology_file is not None and file is None:
            routes = app.routes
    found = trace(declared, topology, task, Address(queue, exchange, routing_key), own, routes)
    if as_json:
        click.echo(json.dumps(_as_json(found, declared), ensure_ascii=False))
    else:
        for line in _lines(found, declared):
            click.echo(line)
        if found.problem:
            click.echo(f"{click.style('error', fg='red')}: {task}: {found.problem}", err=True)
    return 1 if found.problem else 0


def _own_options(options: Any) -> Address:
    from amqflow.topology.routes import Address

    if options is None:
        return Address()
    return Address(options.queue, options.exchange, options.routing_key, options.priority)


def _lines(found: Trace, declared: Declaration) -> Iterator[str]:
    yield f"task         {found.task}"
    if found.route is not None:
        place = declared.positions.show(("routes", found.route_index or 0))
        yield f"route        {found.route.task}   ({place})"
    destination = found.destination
    yield f"exchange     {destination.exchange or '(default exchange)'}"
    yield f"routing key  {destination.routing_key}"
    if destination.priority is not None:
        yield f"priority     {destination.priority}"
    for binding in found.bindings:
        way = f"{binding.source} --{binding.routing_key}--> {binding.destination}"
        written = declared.place_of(binding)
        yield f"binding      {way}" + (f"   ({written})" if written else "")
    for stop in found.stops:
        yield from _stop(stop, declared)
    if found.broadcast:
        yield "broadcast    yes, reaching several queues is meant"


def _stop(stop: Stop, declared: Declaration) -> Iterator[str]:
    place = declared.positions.show(("queues", stop.queue))
    kind = "" if stop.consumed else "   not consumed"
    yield f"queue        {click.style(stop.queue, bold=True)}{kind}   ({place})"
    letter = stop.dead_letter
    if letter is not None:
        key = "its own key" if letter.routing_key is None else letter.routing_key
        homes = ", ".join(stop.homes) or "nothing: dropped"
        yield f"dead letter  {letter.exchange or '(default exchange)'} --{key}--> {homes}"
    if stop.parked is not None and stop.parked not in stop.homes:
        yield f"parked       {stop.parked}"


def _as_json(found: Trace, declared: Declaration) -> dict[str, Any]:
    destination = found.destination
    return {
        "task": found.task,
        "route": found.route_index,
        "exchange": destination.exchange,
        "routing_key": destination.routing_key,
        "priority": destination.priority,
        "bindings": [
            {
                "source": binding.source,
                "routing_key": binding.routing_key,
                "destination": binding.destination,
                "destination_kind": binding.destination_kind.value,
                "place": declared.place_of(binding),
            }
            for binding in found.bindings
        ],
        "queues": [
            {
                "name": stop.queue,
                "consumed": stop.consumed,
                "dead_letter": stop.dead_letter
                and {
                    "exchange": stop.dead_letter.exchange,
                    "routing_key": stop.dead_letter.routing_key,
                    "queues": list(stop.homes),
                },
                "parked": stop.parked,
            }
            for stop in found.stops
        ],
        "broadcast": found.broadcast,
        "problem": found.problem,
    }
