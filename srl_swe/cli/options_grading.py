"""Options of the commands that roll out and grade: samples, the runner of the tests, a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from srl_swe.cli.options import Seed
from srl_swe.engines import GraderSettings, sandbox_settings
from srl_swe.errors import UserError
from srl_swe.files import check_output_file

if TYPE_CHECKING:
    from srl_swe.evaluation_run import EvalSettings
    from srl_swe.parallel import Cluster


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """The runner of the tests."""

    runner: Annotated[
        Literal["swebench", "sandbox"],
        typer.Option(
            envvar="SRL_SWE_RUNNER",
            help="The runner of the tests: swebench's harness, or the faster sandbox runner, which "
            "applies, runs and grades as swebench does.",
        ),
    ] = "swebench"
    test_network: Annotated[
        Literal["none", "bridge"],
        typer.Option(
            help="Network of --runner sandbox: none, where pip installs from the image alone and "
            "instances that need a network are left out as broken; bridge, as swebench's.",
        ),
    ] = "none"
    test_limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Change a limit of --runner sandbox, as memory=8g or cpus=4; repeat it for more.",
        ),
    ] = None

    def grader(self) -> GraderSettings:
        """Raises UserError for an invalid limit, and for options of the other runner."""
        limits = sandbox_settings("docker", self.test_limit or (), trusted=True).limits
        if "network" in limits:
            raise UserError("--test-limit network: name the network by --test-network.")
        if self.runner != "sandbox" and (limits or self.test_network != "none"):
            raise UserError(
                "--test-network and --test-limit are for --runner sandbox: swebench's containers "
                "have a network and no limits."
            )
        return GraderSettings(self.runner, self.test_network, limits)


@dataclass(frozen=True, slots=True)
class GraderOptions(RunnerOptions):
    """The runner of the tests, and its verification."""

    verify_with: Annotated[
        Literal["swebench"] | None,
        typer.Option(
            help="Grade a share of the patches again by this runner; exit code 1 if a verdict "
            "differs."
        ),
    ] = None
    share: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share for --verify-with, chosen by --seed."),
    ] = 0.05
    seed: Seed = 0

    def grader(self) -> GraderSettings:
        """As the base's. Raises UserError too if a runner would verify itself."""
        settings = RunnerOptions.grader(self)
        if self.verify_with == self.runner:
            raise UserError(f"--verify-with {self.runner} needs another --runner, as sandbox.")
        share = self.share if self.verify_with else None
        return replace(settings, verify_share=share, seed=self.seed)


Samples = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="K",
        help="Rollouts per instance, with the seeds --seed, --seed + 1 ...; more than one needs a "
        "--temperature, and each sample has a subfolder of --out.",
    ),
]


Faulty = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Give a second rate without the instances of a file, as bench check's faulty.txt.",
    ),
]


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """Several samples, the best of them, and a second rate."""

    samples: Samples = 1
    best_of: Annotated[
        Literal["majority", "tests"] | None,
        typer.Option(
            help="Pick a patch per instance from the samples into best.jsonl, and score it: the "
            "most frequent one, or one that the tests resolve (an oracle: an upper bound).",
        ),
    ] = None
    keep_resolved: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the resolved rollouts as trajectories, for srl-swe steps.",
        ),
    ] = None

    faulty: Faulty = None

    def settings(self, settings: EvalSettings) -> EvalSettings:
        """The settings with these. Raises UserError for a choice among a single sample."""
        if self.best_of is not None and self.samples == 1:
            raise UserError("--best-of picks from several samples: name their number by --samples.")
        if self.keep_resolved is not None:
            check_output_file(self.keep_resolved)
        return replace(
            settings,
            samples=self.samples,
            best_of=self.best_of,
            keep_resolved=self.keep_resolved,
            faulty=read_faulty(self.faulty),
        )


def read_faulty(path: Path | None) -> frozenset[str]:
    """The instances of the file; none without one. Raises UserError if it can't be read."""
    from srl_swe.instances import read_ids

    return frozenset(read_ids(path)) if path is not None else frozenset()


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
