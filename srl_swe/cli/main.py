"""The command ``srl-swe``. Each subcommand lives in a file of its own and imports late."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from srl_swe import __version__
from srl_swe.cli import (
    bench,
    doctor,
    evaluate,
    experiments,
    experts,
    generate,
    images,
    replay,
    steps,
    train,
    view,
)
from srl_swe.cli.settings import apply_settings
from srl_swe.errors import PhaseStopped, SandboxError, UserError
from srl_swe.extras import explain_missing
from srl_swe.files import WRITE_ERRORS, cannot_write
from srl_swe.progress import QUIET

INTERRUPTED = 130
"""The exit code that typer makes of Control-C."""
_ENVIRONMENT = {
    # Spinning threads take up to twice as long if something else runs as well, and are hardly
    # faster if nothing does. Read when torch is imported.
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    # Bars and remarks of datasets; its errors are still printed. (At a quieter transformers the
    # Trainer takes its progress away, and ours with it.)
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DATASETS_VERBOSITY": "error",
}


class _Commands(TyperGroup):
    """Accepts ``steps profile``, version 0.1's name of ``difficulty``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args[1:] if args[:2] == ["steps", "profile"] else args)


app = typer.Typer(
    name="srl-swe",
    cls=_Commands,
    help="Train software-engineering agents from expert trajectories, and evaluate them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(experiments.demo)
app.command()(replay.replay)
app.command()(experts.experts)
app.command()(steps.steps)
app.command()(replay.convert)
app.command()(steps.difficulty)
app.command()(generate.generate)
app.command()(train.model)
app.add_typer(train.app, name="train")
app.add_typer(view.runs_app, name="runs")
app.command()(view.view)
app.command()(experiments.study)
app.command()(evaluate.rollout)
app.command()(evaluate.grade)
app.command("eval")(evaluate.evaluate)
app.command()(evaluate.compare)
app.add_typer(bench.app, name="bench")
app.command("gold-check")(bench.check)
app.add_typer(images.app, name="images")
app.command()(bench.plan)
app.command()(doctor.cleanup)
app.command()(doctor.doctor)
# The names of version 0.1, until 0.3.
app.command("profile", hidden=True)(steps.difficulty)
app.command("self-check", hidden=True)(bench.check)
app.command("reap", hidden=True)(doctor.cleanup)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", envvar=QUIET, help="Print results and warnings only."),
    ] = False,
) -> None:
    if quiet:
        os.environ[QUIET] = "1"  # for the phases of a curriculum too


def main() -> None:
    """Run the command line. A user's mistake gives one line and exit code 2, no traceback."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # from other libraries; ours are printed by `say`
    try:
        apply_settings(Path.cwd())
        code = app(prog_name="srl-swe", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as mistake:
        _stop(_in_one_line(mistake), mistake.exit_code)
    except (UserError, SandboxError) as error:
        _stop(f"srl-swe: {error}", 2 if isinstance(error, UserError) else 1)
    except PhaseStopped as stopped:
        code = stopped.code
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
    """Keeps the interpreter from complaining about standard output again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_one_line(mistake: typer.TyperException) -> str:
    """A mistake in the command line, in one line; the help of a group is unchanged."""
    said, context = mistake.format_message(), getattr(mistake, "ctx", None)
    if context is None or type(mistake).__name__ == "NoArgsIsHelpError":
        return said
    said = " ".join(said.replace("Value error, ", "").split())  # pydantic's, by way of typer
    end = "" if said.endswith((".", "?")) else "."
    command = context.command_path
    return f"{command}: {said[:1].lower()}{said[1:]}{end} See {command} --help."


def _stop(line: str, code: int) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(code)
