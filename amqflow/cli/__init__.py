"""The command line: ``amqflow -A app COMMAND``; one command group per file."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING

import click

from amqflow.cli.finding import AppSource, UnknownApp
from amqflow.cli.lazy import LazyGroup
from amqflow.errors import AmqflowError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from amqflow.app import App

__all__ = ["cli", "main", "run_for"]

#: Where each command is defined.
COMMANDS = {
    "beat": "amqflow.cli.beat:beat",
    "broker": "amqflow.dev.command:broker",
    "call": "amqflow.cli.call:call",
    "control": "amqflow.cli.control:control",
    "demo": "amqflow.cli.demo:demo",
    "dev": "amqflow.dev.command:dev",
    "doctor": "amqflow.cli.doctor:doctor",
    "dlq": "amqflow.cli.dlq:dlq",
    "queues": "amqflow.cli.queues:queues",
    "result": "amqflow.cli.result:result",
    "topology": "amqflow.cli.topology:topology",
    "why": "amqflow.cli.why:why",
    "worker": "amqflow.cli.worker:worker",
    "workflow": "amqflow.cli.workflow:workflow",
}


def _show_version(context: click.Context, _option: click.Parameter, wanted: object) -> None:
    if not wanted or context.resilient_parsing:
        return
    try:
        version = metadata.version("amqflow")
    except metadata.PackageNotFoundError:
        version = "from a folder, not installed"
    click.echo(f"amqflow {version}")
    context.exit()


@click.group(
    cls=LazyGroup,
    places=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-A",
    "--app",
    metavar="MODULE[:NAME]",
    help="The application: a module, module.attribute or module:attribute.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks of amqflow's own errors.")
@click.option(
    "--workdir", type=click.Path(exists=True, file_okay=False), help="Change to it first."
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(context: click.Context, app: str | None, *, debug: bool, workdir: str | None) -> None:
    """Run RabbitMQ-native tasks: what is declared is what runs, nothing confirmed is ever lost."""
    if context.obj is None:
        context.obj = AppSource(app, workdir)
    context.meta["amqflow.debug"] = debug


def run_for(app: App, argv: Sequence[str] | None = None) -> None:
    """Run the command line for an application that is at hand, and return when it is done.

    Where it fails, it says so and exits as :func:`main` does.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with _explained(arguments):
        code = cli.main(
            args=arguments, prog_name="amqflow", standalone_mode=False, obj=AppSource.of(app)
        )
        _exit_unless_done(code)


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage."""
    arguments = sys.argv[1:] if argv is None else argv
    with _explained(arguments):
        code = cli.main(args=arguments, prog_name="amqflow", standalone_mode=False)
        _exit_unless_done(code)
    sys.exit(0)


def _exit_unless_done(code: object) -> None:
    if isinstance(code, int) and code:
        sys.exit(code)


@contextmanager
def _explained(arguments: Sequence[str]) -> Iterator[None]:
    """Turn an error into one sentence and an exit code; ``--debug`` lets the traceback through."""
    try:
        yield
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(1)
    except AmqflowError as error:
        if "--debug" in arguments:
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, UnknownApp) else 1)
