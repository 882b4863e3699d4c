"""``srl-swe study --suite generated``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from srl_swe.cli import options
from srl_swe.cli.train import phase_runner
from srl_swe.engines import (
    GraderSettings,
    SandboxSettings,
    harness_for,
    sandboxes_for,
    testable_bench,
)
from srl_swe.errors import UserError
from srl_swe.instances import load_splits
from srl_swe.progress import say

if TYPE_CHECKING:
    from srl_swe.cli.experiments import PlanOptions
    from srl_swe.experiments.generated_plan import GeneratedPlan
    from srl_swe.types import Instance, Trajectory


@dataclass(frozen=True, slots=True)
class GeneratedOptions:
    """The budget of a study on generated instances."""

    budget: Annotated[
        Literal["hour", "night", "gpu"],
        typer.Option(
            help="--suite generated: hour has the arms warm start, SFT and SRL, one seed and 12 "
            "held-out instances; night and gpu have all arms and at least 100."
        ),
    ] = "hour"
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            "--held-out",
            metavar="REPO",
            help="--suite generated: hold out this repository; repeat it for more. If left out, "
            "those whose rows are of the split test; without splits, a quarter of all.",
        ),
    ] = None
    test_instances: Annotated[
        int | None, typer.Option(min=1, help="--suite generated: held-out instances to roll out.")
    ] = None
    warm_steps: Annotated[
        int | None, typer.Option(min=1, help="--suite generated: expert steps of the warm start.")
    ] = None
    further_steps: Annotated[
        int | None, typer.Option(min=8, help="--suite generated: expert steps of each arm.")
    ] = None
    no_gate: Annotated[
        bool,
        typer.Option(
            "--no-gate",
            help="--suite generated: continue though the warm start repairs under 5 or over 80 %.",
        ),
    ] = False

    def plan(self, bench: str, asked: PlanOptions) -> GeneratedPlan:
        """Raises UserError for missing trajectories, a missing model or an unknown arm."""
        from srl_swe.experiments.generated_plan import BUDGETS, QUICK, with_arms
        from srl_swe.rollout.weights import check_folder

        if asked.updates is not None:
            raise UserError("--updates: --suite generated counts --further-steps instead.")
        if not asked.trajectories and bench != "starter":
            raise UserError("name the experts' trajectories of these instances: --trajectories.")
        if asked.model:
            check_folder(asked.model)
        elif not asked.quick:
            raise UserError(
                "name a pretrained policy by --model; `srl-swe model smollm2 --out DIR` makes one."
            )
        plan = QUICK if asked.quick else BUDGETS[self.budget]
        plan = with_arms(plan, asked.arms) if asked.arms else plan
        return replace(
            plan,
            bench=bench,
            trajectories=asked.trajectories,
            model=asked.model,
            held_out=tuple(self.held_out or ()),
            seeds=plan.seeds if asked.quick else asked.seeds or plan.seeds,
            test_instances=self.test_instances or plan.test_instances,
            warm_steps=self.warm_steps or plan.warm_steps,
            further_steps=self.further_steps or plan.further_steps,
        )


def run_generated(
    plan: GeneratedPlan,
    folder: Path,
    sandboxes: options.SandboxOptions,
    *,
    workers: int,
    at_once: int | None,
    as_json: bool,
    gate: bool,
) -> None:
    """Run the study, and print its table and the page's path."""
    from srl_swe.experiments.experiment import load_suite
    from srl_swe.experiments.generated_plan import held_out_by_rows, split_instances
    from srl_swe.experiments.generated_report import TITLE, results_table
    from srl_swe.experiments.generated_study import fitting, run_generated_study
    from srl_swe.experts.expert import BRIEF_NAME
    from srl_swe.training.curriculum import phases_at_once

    if (whole := Path(plan.bench) / "all.parquet").is_file():  # a folder of srl-swe generate
        plan = replace(plan, bench=str(whole))
    instances, splits = testable_bench(plan.bench), load_splits(plan.bench)
    if operators := [i for i in instances if splits[i.instance_id] == "test_operators"]:
        say(f"left out: {len(operators)} instances of held-out operators (test_operators)")
        instances = [instance for instance in instances if instance not in operators]
    reason = "--held-out"
    if not plan.held_out:
        plan = replace(plan, held_out=held_out_by_rows(instances, splits))
        reason = "their rows' split" if plan.held_out else "a digest of the names"
    experts = fitting(load_suite(plan.bench, instances, plan.trajectories).trajectories, plan)
    split = split_instances(instances, experts, plan.held_out)
    say(
        f"held out by {reason}: {', '.join(split.held_out_repos)}, {len(split.held_out)} "
        f"instances; {len(split.training)} to train on"
    )
    shown = {expert.instance_id for expert in experts}  # first in held_out, for their edits
    tested = split.held_out[: max(plan.test_instances, len(shown.intersection(split.held_out)))]
    tested += split.training[: plan.training_instances]
    evaluated = [instance for instance in instances if instance.instance_id in tested]
    brief = all(expert.model == BRIEF_NAME for expert in experts)
    at_once = at_once or phases_at_once()
    run, alone = (phase_runner(sandboxes, workers=workers, at_once=n) for n in (at_once, 1))
    results = run_generated_study(
        plan,
        instances,
        experts,
        folder,
        sandboxes_for(evaluated, sandboxes.settings()),
        run,
        partial(label_states, plan, sandboxes.settings(), workers, brief),
        at_once=at_once,
        run_alone=alone,
        gate=gate,
        harness=harness_for(evaluated, GraderSettings("sandbox")),
    )
    if as_json:
        return options.print_json(results)
    options.console().print(results_table(results, split, folder).draw(TITLE))
    return typer.echo(f"{folder}/report.html")


def label_states(
    plan: GeneratedPlan,
    sandboxes: SandboxSettings,
    workers: int,
    brief: bool,
    policy: Path,
    instances: Sequence[Instance],
    folder: Path,
    episodes: int,
) -> list[Trajectory]:
    """Rollouts of the policy with the expert's answers; sampled, as SRL samples replies."""
    from srl_swe.expert_run import OnPolicySettings, label_rollouts
    from srl_swe.rollout.agents import agent_settings

    agent = agent_settings(
        str(policy),
        max_steps=plan.max_steps,
        max_new_tokens=plan.max_new_tokens,
        temperature=1.0,
        pairs=-1,
        observation_chars=plan.observation_chars,
        thoughts="keep",
        dialect="xml",
    )
    settings = OnPolicySettings(
        agent,
        bench=plan.bench,
        episodes=episodes,
        brief=brief,
        workers=workers,
        sandboxes=sandboxes,
    )
    return label_rollouts(str(policy), instances, folder, settings)
