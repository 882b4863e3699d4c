"""Options of the commands that roll out and grade.

The setting and the prompting of a policy, samples, the runner of the tests, a cluster.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from srl_swe.bundled import bundled
from srl_swe.cli.options import Seed, refuse_given
from srl_swe.engines import GraderSettings, sandbox_settings
from srl_swe.errors import UserError
from srl_swe.files import check_output_file

if TYPE_CHECKING:
    from srl_swe.evaluation_run import EvalSettings
    from srl_swe.parallel import Cluster
    from srl_swe.rollout.agents import AgentSettings
    from srl_swe.rollout.attempts import Setting
    from srl_swe.rollout.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class SettingOptions:
    """The setting, and the experts of ``replay``."""

    setting: Annotated[
        Literal["agent", "oracle", "agentless", "gold", "empty", "replay"],
        typer.Option(
            help="agent: the policy acts step by step. The paper's two: oracle, the policy edits "
            "the files of the gold patch; agentless, it finds them first. Without POLICY: gold "
            "and empty patches; replay of recorded experts.",
        ),
    ] = "agent"
    trajectories: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Experts of --setting replay: a file, folder, glob or hf:OWNER/NAME; the bundled "
            "ones if left out.",
        ),
    ] = None

    def chosen(self, policy: str | None, *, answers: bool = False) -> Setting:
        """Raises UserError if the setting needs a policy that is missing, or the reverse.

        ``answers``: the domain's problems are answered in one reply.
        """
        from srl_swe.rollout.attempts import Setting

        if answers:
            if self.setting != "agent" or self.trajectories is not None:
                raise UserError("--setting and --trajectories are for the domain software.")
            if policy is None:
                raise UserError("name a POLICY: a folder, a hub name or a URL.")
            return Setting.ANSWER
        setting = Setting(self.setting)
        if setting.asks_policy and policy is None:
            raise UserError(
                f"--setting {setting} needs a POLICY: a folder, a hub name or a URL. Without it: "
                "--setting gold, empty or replay."
            )
        if not setting.asks_policy and policy is not None:
            raise UserError(f"--setting {setting} asks no policy: leave out {policy}.")
        if self.trajectories is not None and setting is not Setting.REPLAY:
            raise UserError("--trajectories is for --setting replay.")
        return setting

    @property
    def runs_untrusted(self) -> bool:
        """Whether commands of a policy or of a stranger run in the sandboxes."""
        match self.setting:
            case "agent":
                return True
            case "replay":
                ours, named = bundled("trajectories").resolve(), self.trajectories
                return named is not None and not Path(named).resolve().is_relative_to(ours)
            case "oracle" | "agentless" | "gold" | "empty":
                return False


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """How a policy is prompted and sampled."""

    max_steps: Annotated[int, typer.Option(min=1, help="Most actions of an episode.")] = 40
    pairs: Annotated[
        int | None,
        typer.Option(
            min=-1,
            help="Last action/observation pairs in a prompt; -1 is all. As the policy was "
            "trained, or else 2.",
        ),
    ] = None
    observation_chars: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most characters of an observation; the rest is cut. As the policy was trained, "
            "or else 10000.",
        ),
    ] = None
    thoughts: Annotated[
        Literal["drop", "keep"] | None,
        typer.Option(
            help="Whether prompts keep the thoughts of past replies. As the policy was trained, "
            "or else drop.",
        ),
    ] = None
    strictness: Annotated[
        Literal["strict", "lenient"] | None,
        typer.Option(
            help="strict: a thought, an action, nothing else. As the policy was trained, or else "
            "lenient.",
        ),
    ] = None
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most tokens of a reply; 1024, or 4096 for oracle, agentless and mathematics.",
        ),
    ] = None
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0
    seed: Seed = 0
    dialect: Annotated[
        str | None,
        typer.Option(
            help="Format of replies: xml, bash_block, or your own as MODULE:NAME. As the policy "
            "was trained, or else xml.",
        ),
    ] = None
    tools: Annotated[
        list[str] | None,
        typer.Option(
            "--tool",
            metavar="MODULE:NAME",
            help="A tool of your own besides those of the dialect; repeat it for more.",
        ),
    ] = None

    template: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A variable of the chat template, such as enable_thinking=false; repeat it for "
            "more. As the policy was trained, or else none.",
        ),
    ] = None

    def settings(self, policy: str | Endpoint, setting: Setting) -> AgentSettings:
        """Raises UserError for an unknown dialect or tool, and a missing policy."""
        from srl_swe.rollout.agents import agent_settings

        asked = {**asdict(self), "tools": tuple(self.tools or ()), "template": self.variables()}
        return agent_settings(policy, setting=setting, **asked)

    def variables(self) -> dict[str, Any]:
        """The variables of the chat template. Raises UserError."""
        return dict(map(_parse_variable, self.template or ()))


def _parse_variable(text: str) -> tuple[str, Any]:
    """The name and the value of ``NAME=VALUE``: JSON, or else text. Raises UserError."""
    name, is_set, value = text.partition("=")
    if not (name.isidentifier() and is_set):
        raise UserError(f"--template {text}: write NAME=VALUE, such as enable_thinking=false.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


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
        if not self.verify_with:
            refuse_given(self, "--verify-with", ("share",))
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
