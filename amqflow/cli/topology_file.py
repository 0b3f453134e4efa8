"""Which topology file a command means, whose application, and what broker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from amqflow.errors import TopologyError
from amqflow.topology import BrokerFacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.cli.finding import AppSource
    from amqflow.topology import Declaration, Topology

C = TypeVar("C", bound="Callable[..., Any]")

#: Where files are looked for when none is named.
FOLDER = "topology"

#: A broker that can hold whatever any can: what a version lacks is said when one is named.
NEWEST = BrokerFacts((4, 3))


class _Version(click.ParamType[BrokerFacts]):
    """A broker's version, ``3.10.8``."""

    name = "version"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> BrokerFacts:
        """Read it, or say what is wrong with it."""
        if isinstance(value, BrokerFacts):
            return value
        try:
            return BrokerFacts.parse(str(value))
        except TopologyError as error:
            self.fail(str(error), param, ctx)


def broker_version(command: C) -> C:
    """Add ``--broker-version``."""
    return click.option(
        "--broker-version",
        "facts",
        type=_Version(),
        metavar="3.10.8",
        help="Check what a RabbitMQ of this version takes.",
    )(command)


def application_name(command: C) -> C:
    """Add ``--name``."""
    return click.option(
        "--name",
        metavar="APP",
        help="The application's name, in the names of derived parts; "
        "else that of -A, else the file's.",
    )(command)


def found_files(source: AppSource, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the files a command is about: those given, the application's, or those in topology/.

    Raises:
        click.UsageError: there are none.
    """
    if given:
        return given
    if source.named:
        file = source.load().topology_file
        if file is None:
            message = (
                "the application has no topology file, its topology is derived; name a FILE, or "
                'give it one: AmqFlow(topology="topology/shop.yaml")'
            )
            raise click.UsageError(message)
        return (file,)
    files = sorted(path for end in ("yaml", "yml") for path in Path(FOLDER).glob(f"*.{end}"))
    if not files:
        message = f"name a FILE, or an application (-A); there is no {FOLDER}/*.yaml here"
        raise click.UsageError(message)
    return tuple(map(str, files))


def the_file(source: AppSource, given: str | None) -> str:
    """Return the one file a command is about.

    Raises:
        click.UsageError: there is none, or there are several.
    """
    files = found_files(source, () if given is None else (given,))
    if len(files) > 1:
        message = f"name a FILE; there are several: {', '.join(files)}"
        raise click.UsageError(message)
    return files[0]


def the_name(source: AppSource, given: str | None, file: str) -> str:
    """Return the application's name: as given, as -A has it, or the file's stem."""
    if given:
        return given
    return source.load().main if source.named else Path(file).stem or "app"


def whole(
    declared: Declaration, source: AppSource, name: str | None, facts: BrokerFacts | None
) -> Topology:
    """Return everything that follows from a file, as far as that is known without a broker."""
    limits = {}
    if source.named:
        limits["poison_limit"] = source.load().conf.settings.poison_limit
    app = the_name(source, name, declared.source)
    return declared.topology(app, facts or NEWEST, **limits)
