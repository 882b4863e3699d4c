"""Options of the commands that grade."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import typer

from srl_swe.cli.options import Seed
from srl_swe.engines import GraderSettings, sandbox_settings
from srl_swe.errors import UserError


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
