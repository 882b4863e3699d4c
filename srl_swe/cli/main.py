"""The command ``srl-swe``. Each subcommand lives in a file of its own and imports late."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from srl_swe import __version__
from srl_swe.cli import convert, doctor, evaluate, experiments, images, replay, runs, steps, train
from srl_swe.errors import SandboxError, UserError
from srl_swe.extras import explain_missing
from srl_swe.files import WRITE_ERRORS, cannot_write

INTERRUPTED = 130
"""The exit code that typer makes of Control-C."""


class _Commands(TyperGroup):
    """``steps profile ...`` is ``profile ...``, which some know by that name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args[1:] if args[:2] == ["steps", "profile"] else args)


app = typer.Typer(
    name="srl-swe",
    cls=_Commands,
    help="Train software-engineering agents from expert trajectories, and measure them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(experiments.demo)
app.command()(replay.replay)
app.command()(steps.steps)
app.command()(convert.convert)
app.command()(steps.profile)
app.add_typer(train.app, name="train")
app.add_typer(runs.app, name="runs")
app.command()(experiments.study)
app.command()(evaluate.rollout)
app.command()(evaluate.grade)
app.command("eval")(evaluate.evaluate)
app.command()(evaluate.self_check)
app.add_typer(images.app, name="images")
app.command()(doctor.reap)
app.command()(doctor.doctor)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. A user's mistake is one line and exit code 2, without a traceback."""
    # Threads that wait for each other by spinning take up to twice as long where something else
    # runs as well, and are hardly faster where nothing does. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(prog_name="srl-swe", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as mistake:
        _stop(_in_one_line(mistake), mistake.exit_code)
    except UserError as error:
        _stop(f"srl-swe: {error}", 2)
    except SandboxError as error:
        _stop(f"srl-swe: {error}", 1)
    except typer.Abort:
        _stop("srl-swe: aborted.", 1)
    except ModuleNotFoundError as error:
        if (sentence := explain_missing(error)) is None:
            raise
        _stop(f"srl-swe: {sentence}", 2)
    except BrokenPipeError:  # as by `| head`
        _print_no_more()
        sys.exit(1)
    except OSError as error:
        if error.errno not in WRITE_ERRORS:
            raise
        _print_no_more()
        place = error.filename or "what is printed"
        _stop(f"srl-swe: {cannot_write(place, error, 'read or written')}", 2)
    if code == INTERRUPTED:
        _stop("srl-swe: interrupted; run the same command again to continue.", code)
    sys.exit(code)


def _print_no_more() -> None:
    """The interpreter would complain of standard output once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_one_line(mistake: typer.TyperException) -> str:
    """What is wrong with a command line, where its own words take four; a help stays as it is."""
    said, context = mistake.format_message(), getattr(mistake, "ctx", None)
    if context is None or type(mistake).__name__ == "NoArgsIsHelpError":
        return said
    said = " ".join(said.split())
    end = "" if said.endswith((".", "?")) else "."
    command = context.command_path
    return f"{command}: {said[:1].lower()}{said[1:]}{end} See {command} --help."


def _stop(line: str, code: int) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(code)
