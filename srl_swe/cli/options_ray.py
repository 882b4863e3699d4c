"""The option of commands that work on a Ray cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from srl_swe.errors import UserError

if TYPE_CHECKING:
    from srl_swe.engines import GraderSettings
    from srl_swe.evaluation_run import EvalSettings
    from srl_swe.parallel import Cluster

Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        envvar="SRL_SWE_RAY",
        help="Work on the nodes of a Ray cluster, each with its own container engine and --workers "
        "containers: auto, HOST:PORT or ray://HOST:PORT.",
    ),
]


def check_ray(
    ray: str | None, *, grader: GraderSettings | None = None, disk_budget: str | None = None
) -> None:
    """Raises UserError for settings that a cluster excludes.

    ``grader``: of a command that only runs tests.
    """
    if ray and disk_budget:
        raise UserError("--disk-budget bounds the images of one machine: leave it out with --ray.")
    if ray and grader and (grader.runner != "sandbox" or grader.from_logs):
        raise UserError("--ray: only --runner sandbox runs tests on other machines.")


def on_nodes(settings: EvalSettings, cluster: Cluster | None) -> EvalSettings:
    """The settings of an evaluation whose containers are on the nodes of the cluster, if any."""
    return replace(
        settings,
        sandboxes=replace(settings.sandboxes, cluster=cluster),
        grader=replace(settings.grader, cluster=cluster),
    )
