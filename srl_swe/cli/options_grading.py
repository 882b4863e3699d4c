"""Options of the commands that grade."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from srl_swe.engines import GraderSettings, sandbox_settings
from srl_swe.errors import UserError


@dataclass(frozen=True, slots=True)
class GraderOptions:
    """What runs the tests."""

    runner: Annotated[
        Literal["swebench", "sandbox"],
        typer.Option(
            envvar="SRL_SWE_RUNNER",
            help="What runs the tests: swebench's harness, or the faster sandbox runner, which "
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
