"""``srl-swe experts``, and the options of ``srl-swe steps --on-policy``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from srl_swe.cli import options
from srl_swe.cli.options import AsJson, BenchOptions, EndpointOptions, SandboxOptions, TestTimeout
from srl_swe.cli.options_grading import RunnerOptions
from srl_swe.engines import load_bench
from srl_swe.errors import UserError
from srl_swe.files import check_output_file
from srl_swe.reports.page import TextTable

if TYPE_CHECKING:
    from srl_swe.cli.steps import PromptOptions
    from srl_swe.expert_run import ExpertTrajectories, OnPolicySettings
    from srl_swe.rollout.endpoint import Endpoint
    from srl_swe.steps import StepMaker, StepSource


@dataclass(frozen=True, slots=True)
class ExpertRunner(RunnerOptions):
    """The runner of the tests, by default our own."""

    runner: Annotated[
        Literal["swebench", "sandbox"],
        typer.Option(help="The runner of the tests: our own sandboxes, or swebench's harness."),
    ] = "sandbox"


Brief = Annotated[
    bool,
    typer.Option(
        "--brief",
        help="Experts search, view, edit, test and submit in one way only, for policies that are "
        "to learn from few trajectories.",
    ),
]


@dataclass(frozen=True, slots=True)
class OnPolicyOptions:
    """Step contexts in the states that a policy reaches."""

    on_policy: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="Roll out this policy (folder, hub name or URL) on --bench, ask the expert in "
            "each state, and add these step contexts. OUT-on-policy holds the rollouts.",
        ),
    ] = None
    on_policy_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of on-policy examples in the data set.")
    ] = 0.5
    bench: options.BenchOrNone = None
    ids: options.Ids = None
    episodes: Annotated[int, typer.Option(min=1, help="Rollouts of the policy per instance.")] = 1
    expert_actions: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Chance per step of a rollout that the expert's action is executed instead of the "
            "policy's.",
        ),
    ] = 0.0
    brief: Brief = False
    temperature: Annotated[float, typer.Option(min=0.0, help="Of the policy; 0 is greedy.")] = 1.0
    max_steps: Annotated[int, typer.Option(min=1, help="Most actions of a rollout.")] = 40
    max_new_tokens: options.NewTokens = 1024
    serve: Annotated[
        Literal["local", "vllm"],
        typer.Option(help="local samples in this process; vllm starts a server for the run."),
    ] = "local"
    served_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model of a URL; the only one if left out.")
    ] = None
    containers: Annotated[int, typer.Option(min=1, help="Containers of rollouts at once.")] = 2

    def mix(
        self,
        source: StepSource,
        maker: StepMaker,
        prompts: PromptOptions,
        sandboxes: SandboxOptions,
        out: Path | None,
        seed: int,
    ) -> tuple[StepSource, StepMaker]:
        """The source with on-policy trajectories, if they are asked for. Raises UserError."""
        if self.on_policy is None:
            options.refuse_given(self, "--on-policy")
            return source, maker
        from srl_swe.expert_run import label_rollouts
        from srl_swe.steps.source import MixedSource

        if self.bench is None or out is None:
            raise UserError("--on-policy needs the instances, --bench, and a folder, --out.")
        if source.reader is not None:
            raise UserError("--on-policy is for the domain software.")
        if prompts.dialect != "xml":
            raise UserError("--on-policy: the expert calls the tools of --dialect xml.")
        if not source.repeatable:
            raise UserError("--on-policy reads the experts twice: name a file, not stdin.")
        instances = [
            instance
            for instance in load_bench(self.bench, self.ids)
            if instance.instance_id not in source.selection.not_in
        ]
        policy, settings = self._settings(prompts, sandboxes, seed)
        folder = out.with_name(f"{out.name}-on-policy")
        rollouts = label_rollouts(policy, instances, folder, settings)
        mixed = MixedSource(
            **{field.name: getattr(source, field.name) for field in fields(source)},
            rollouts=tuple(rollouts),
            settings={**settings.config(policy), "episodes": self.episodes},
            share=self.on_policy_share,
        )
        return mixed.mix(maker, seed)

    def _settings(
        self, prompts: PromptOptions, sandboxes: SandboxOptions, seed: int
    ) -> tuple[str | Endpoint, OnPolicySettings]:
        """The policy, prompted as the step contexts, and how it is rolled out."""
        from srl_swe.expert_run import OnPolicySettings
        from srl_swe.rollout.agents import agent_settings

        endpoint = EndpointOptions(
            serve=self.serve, model=self.served_model, tokenizer=prompts.tokenizer
        )
        policy = endpoint.policy(str(self.on_policy))
        agent = agent_settings(
            policy,
            max_steps=self.max_steps,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            pairs=prompts.pairs,
            observation_chars=prompts.observation_chars,
            thoughts=prompts.thoughts,
            dialect=prompts.dialect,
            seed=seed,
        )
        settings = OnPolicySettings(
            agent=agent,
            bench=str(self.bench),
            episodes=self.episodes,
            expert_actions=self.expert_actions,
            brief=self.brief,
            workers=self.containers,
            sandboxes=sandboxes.settings(),
            vllm=endpoint.vllm(),
        )
        return policy, settings


@options.takes_groups
def experts(
    *,
    bench: BenchOptions,
    out: Annotated[
        Path,
        typer.Option(
            help="File of the trajectories, FILE.jsonl; FILE-run beside it holds rollouts and "
            "verdicts, and a second run continues there."
        ),
    ],
    per_instance: Annotated[
        int,
        typer.Option(min=1, help="Trajectories per instance, with seeds --seed, + 1 and so on."),
    ] = 1,
    brief: Brief = False,
    max_steps: Annotated[int, typer.Option(min=1, help="Most actions of a trajectory.")] = 40,
    sandboxes: SandboxOptions,
    tests: ExpertRunner,
    workers: options.Workers = 2,
    test_timeout: TestTimeout = 1800,
    as_json: AsJson = False,
) -> None:
    """Make expert trajectories: an expert that knows the gold patch acts as if it did not.

    It searches, views, reproduces, edits, tests and submits in the instances' containers. Only
    trajectories whose patch the tests resolve are written. Exit code 1 if an instance has none.
    """
    from srl_swe.expert_run import ExpertSettings, make_expert_trajectories

    check_output_file(out)
    instances = bench.instances()
    settings = ExpertSettings(
        per_instance=per_instance,
        seed=bench.seed,
        brief=brief,
        max_steps=max_steps,
        bench=bench.name,
        workers=workers,
        sandboxes=sandboxes.settings(trusted=bench.bench == "starter"),
        grader=tests.grader(),
        test_timeout_s=test_timeout,
    )
    made = make_expert_trajectories(instances, out, settings)
    if as_json:
        options.print_json({"out": out, **_fields(made)})
    else:
        options.console().print(_table(made).draw("experts"))
        typer.echo(out)
    found = {trajectory.instance_id for trajectory in made.kept}
    raise typer.Exit(0 if len(found) == len(instances) else 1)


def _fields(made: ExpertTrajectories) -> dict[str, Any]:
    lengths = sorted(len(trajectory.steps) for trajectory in made.kept)
    return {
        "trajectories": len(made.kept),
        "instances": len({trajectory.instance_id for trajectory in made.kept}),
        "median_steps": lengths[len(lengths) // 2] if lengths else None,
        "left_out": dict(made.reasons),
        "left_out_trajectories": [asdict(left) for left in made.left_out],
    }


def _table(made: ExpertTrajectories) -> TextTable:
    fields = _fields(made)
    rows = [
        ("written", str(fields["trajectories"])),
        ("instances", str(fields["instances"])),
        ("steps, median", str(fields["median_steps"])),
        *((f"left out: {reason}", str(count)) for reason, count in made.reasons.items()),
    ]
    for left in made.left_out[:20]:
        rows.append((f"{left.instance_id}, seed {left.seed}", f"{left.reason} {left.detail}"[:80]))
    return TextTable(("", "trajectories"), rows)
