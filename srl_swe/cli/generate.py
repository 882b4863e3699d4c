"""``srl-swe generate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.bundled import bundled
from srl_swe.cli import options
from srl_swe.engines import SourceEngine
from srl_swe.errors import UserError, did_you_mean
from srl_swe.files import check_output_folder

if TYPE_CHECKING:
    from srl_swe.generation.bugs import Bug
    from srl_swe.generation.issue_text import WriteText
    from srl_swe.generation.repositories import Source
    from srl_swe.types import Message

_SPLITS = {"train": "train", "held_out_repository": "test", "held_out_operator": "test_operators"}


def generate(
    specs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Spec files of repositories, or folders of them (docs/generate.md), or names of "
            "bundled ones. All ten bundled ones if left out."
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder for the instances and the run's files.")],
    count: Annotated[
        int,
        typer.Option(
            min=1,
            help="Instances in all, in equal shares of the repositories; more than before "
            "continues a run.",
        ),
    ] = 100,
    seed: options.Seed = 0,
    workers: options.Workers = 2,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Hold this repository out for the split test; repeat."),
    ] = None,
    hold_out_operators: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=0.9,
            help="Hold out this share of the operators, for the split test_operators.",
        ),
    ] = 0.0,
    operator: Annotated[
        list[str] | None,
        typer.Option(help="Only bugs of this operator; repeat it for more."),
    ] = None,
    two_edits: Annotated[
        float,
        typer.Option(metavar="SHARE", min=0.0, max=1.0, help="Bugs that get a second edit."),
    ] = 0.3,
    issues: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An OpenAI-compatible endpoint that writes the issue texts; a text that leaks is "
            "replaced by ours.",
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="The endpoint's model, if it serves several.")] = "",
    pip_cert: Annotated[
        Path | None,
        typer.Option(
            envvar="PIP_CERT",
            help="Certificates that pip trusts while an image is built, as a file.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Make validated benchmark instances from repositories with tests.

    Small bugs are planted in a repository and judged by its tests in sandboxes. Instances are
    written as a task repo, as DIR/all.parquet and as DIR/SPLIT.parquet, which --bench takes. A
    killed run continues; the same seed gives the same instances, whatever the number of workers.
    """
    from srl_swe.generation.bugs import propose_bugs
    from srl_swe.generation.generate import (
        OVERSAMPLED,
        Part,
        summary_fields,
        summary_table,
    )
    from srl_swe.generation.generate import generate as run
    from srl_swe.generation.repositories import read_source

    check_output_folder(out)
    sources = [read_source(path) for path in _spec_files(specs or [bundled("generated") / "specs"])]
    split = _splitter(sources, hold_out or [], hold_out_operators, operator, seed)
    writer, write = _writer(issues, model, seed)
    shares = [
        count // len(sources) + (number < count % len(sources)) for number in range(len(sources))
    ]
    propose = partial(propose_bugs, seed=seed, operators=operator, two_edits=two_edits)
    parts = [
        Part(source, propose(source, count=OVERSAMPLED * max(n, 1)), n, split)
        for source, n in zip(sources, shares, strict=True)
    ]
    engine = SourceEngine(certificates=pip_cert)
    summaries = run(parts, out, engine, workers=workers, write=write, writer=writer)
    if as_json:
        options.print_json(summary_fields(summaries))
        return
    options.console().print(summary_table(summaries))
    made = sum(summary.kept for summary in summaries)
    typer.echo(f"{made} of {count} instances in {out}")


def _spec_files(named: Sequence[Path]) -> list[Path]:
    """The spec files, those of a folder by name. Raises UserError for an empty folder."""
    ours = {spec.stem: spec for spec in (bundled("generated") / "specs").glob("*.toml")}
    found: list[Path] = []
    for name in named:
        if not (name.exists() or name.suffix or str(name) in ours):
            hint = did_you_mean(str(name), ours)
            raise UserError(f"no spec {str(name)!r}.{hint} Bundled: {', '.join(sorted(ours))}.")
        path = name if name.exists() else ours.get(str(name), name)
        inside = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"{path} holds no spec (*.toml).")
        found += inside
    return found


def _splitter(
    sources: Sequence[Source],
    hold_out: Sequence[str],
    share: float,
    chosen: Sequence[str] | None,
    seed: int,
) -> Callable[[Bug], str]:
    """The split of a bug's instance. Raises UserError for an unknown repository or operator."""
    from srl_swe.generation.bugs import draw_operators, find_operators, split_of

    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise UserError("two specs have the same name; give one of them another 'name'.")
    if unknown := sorted(set(hold_out) - set(names)):
        raise UserError(f"--hold-out {unknown[0]}: not among {', '.join(names)}.")
    held = {*hold_out, *(source.name for source in sources if source.held_out)}
    operators = [operator.name for operator in find_operators(chosen)]
    drawn = draw_operators(operators, share=share, seed=seed)
    return lambda bug: _SPLITS[split_of(bug, repositories=held, operators=drawn)]


def _writer(url: str | None, model: str, seed: int) -> tuple[str, WriteText | None]:
    """The name of the endpoint's model, and the function that asks it; none without a URL."""
    if url is None:
        return "", None
    from srl_swe.rollout.endpoint import Endpoint, find_endpoint
    from srl_swe.rollout.served_policy import ServedPolicy

    policy = ServedPolicy(
        find_endpoint(Endpoint(url, model=model)), max_new_tokens=512, temperature=0.7, seed=seed
    )

    def write(messages: Sequence[Message]) -> str:
        return policy.reply(messages).text

    return policy.name, write
