"""The command line: ``amqflow -A app COMMAND``; one command group per file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from amqflow.cli.demo import demo
from amqflow.cli.finding import AppSource
from amqflow.cli.worker import worker
from amqflow.errors import AmqflowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amqflow.app import App

__all__ = ["cli", "main", "run_for"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
@click.version_option(package_name="amqflow")
@click.pass_context
def cli(context: click.Context, app: str | None, *, debug: bool, workdir: str | None) -> None:
    """Run RabbitMQ-native tasks: what is declared is what runs, nothing confirmed is ever lost."""
    if context.obj is None:
        context.obj = AppSource(app, workdir)
    context.meta["amqflow.debug"] = debug


cli.add_command(demo)
cli.add_command(worker)


def run_for(app: App, argv: Sequence[str] | None = None) -> None:
    """Run the command line for an application that is at hand, and return when it is done."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    cli.main(args=arguments, prog_name="amqflow", standalone_mode=False, obj=AppSource.of(app))


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        code = cli.main(args=arguments, prog_name="amqflow", standalone_mode=False)
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
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
