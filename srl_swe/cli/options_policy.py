"""How an evaluation attempts its instances: the setting, and how a policy is prompted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from srl_swe.bundled import bundled
from srl_swe.cli.options import Seed
from srl_swe.errors import UserError

if TYPE_CHECKING:
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
        typer.Option(min=1, help="Most tokens of a reply; 1024, or 4096 for oracle and agentless."),
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
