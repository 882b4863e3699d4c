"""``srl-swe demo`` and ``srl-swe study``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from srl_swe.cli import options
from srl_swe.cli.generated_study import GeneratedOptions, run_generated
from srl_swe.cli.train import phase_runner
from srl_swe.engines import owned_harness, sandboxes_for, testable_bench
from srl_swe.errors import UserError
from srl_swe.extras import TRAINING, need_packages
from srl_swe.files import check_output_folder
from srl_swe.instances import load_instances

if TYPE_CHECKING:
    from pathlib import Path

    from srl_swe.experiments.maths_plan import MathsPlan
    from srl_swe.experiments.study_plan import StudyPlan


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The comparison that a study makes."""

    trajectories: Annotated[
        str, typer.Option(help="Their expert trajectories; the bundled ones if left out.")
    ] = ""
    model: Annotated[
        str, typer.Option(help="Start of all arms; a tiny warm start if left out.")
    ] = ""
    arms: Annotated[
        list[str] | None, typer.Option("--arm", help="Only this arm; repeat it for more.")
    ] = None
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Number of seeds per arm; 3, or 1 with --budget hour."),
    ] = None
    updates: Annotated[int | None, typer.Option(min=1, help="Updates per arm.")] = None
    quick: Annotated[
        bool, typer.Option("--quick", help="Few arms and one seed, too short to learn anything.")
    ] = False

    def plan(self, suite: str) -> StudyPlan:
        """Raises UserError for a missing model or an unknown arm."""
        from srl_swe.experiments.experiment import get_arms
        from srl_swe.experiments.study_plan import ARMS, FULL, QUICK
        from srl_swe.rollout.weights import check_folder

        if self.model:
            check_folder(self.model)
        get_arms(ARMS, self.arms or ())
        usual = QUICK if self.quick else replace(FULL, seeds=self.seeds or FULL.seeds)
        return replace(
            usual,
            suite=suite,
            trajectories=self.trajectories,
            model=self.model,
            arms=tuple(self.arms or usual.arms),
            updates=self.updates or usual.updates,
        )

    def maths_plan(self) -> MathsPlan:
        """The plan on made problems. Raises UserError for an option of the other domain."""
        from srl_swe.experiments.maths_plan import FULL, QUICK

        for name in ("trajectories", "model"):
            if getattr(self, name):
                raise UserError(f"--{name} is for the domain software.")
        usual = QUICK if self.quick else replace(FULL, seeds=self.seeds or 3)
        arms, updates = tuple(self.arms or usual.arms), self.updates or usual.updates
        return replace(usual, arms=arms, updates=updates)


def demo(
    out: options.Out = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Every stage, too short to learn anything.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew, not where it was.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Run the main job on the bundled data: replay, SFT, SRL, rollouts, grading, report.

    If it is killed, the same command continues.
    """
    need_packages("the demo", TRAINING)
    folder = options.results_folder(out, "demo-quick" if quick else "demo")
    check_output_folder(folder)
    from srl_swe.experiments.demo import FULL, QUICK, run_demo
    from srl_swe.experiments.demo_report import CAVEAT, family_line, results_table

    open_sandbox = sandboxes_for(load_instances("starter"))
    plan = QUICK if quick else FULL
    summary = run_demo(plan, folder, open_sandbox, fresh=fresh, harness=owned_harness())
    if as_json:
        return options.print_json(summary)
    table = results_table(summary).draw("the same policy before, between and after")
    options.console().print(table)
    options.console().print(family_line(summary), CAVEAT, sep="\n")
    return typer.echo(f"{folder}/report.html")


@options.takes_groups
def study(
    bench: options.Bench = "starter",
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="generated",
            help="generated: instances of `srl-swe generate` by --bench, measured on repositories "
            "that are held out.",
        ),
    ] = None,
    *,
    domain: Annotated[
        Literal["software", "math"],
        typer.Option(help="math: problems made by a program, and a tiny policy from scratch."),
    ] = "software",
    asked: PlanOptions,
    generated: GeneratedOptions,
    out: options.Out = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1, help="Arms that train at once; if left out, 2 on several cores without a GPU."
        ),
    ] = None,
    sandboxes: options.SandboxOptions,
    workers: options.Workers = 8,
    as_json: options.AsJson = False,
) -> None:
    """Run the paper's comparison: one policy trained in several ways at equal budgets, and graded.

    Arms: base, SFT, SRL, SRL without dynamic sampling, holistic similarity, RLVR, SRL then RLVR;
    with --domain math also SFT then RLVR, and SRL without the next title; with --suite generated
    SFT, SRL by several rewards and RLVR from one warm start. If it is killed, the same command
    continues.
    """
    need_packages("a study", TRAINING)
    name = "study" if domain == "software" else "study-math"
    folder = options.results_folder(out, "study-generated" if suite == "generated" else name)
    check_output_folder(folder)
    if asked.quick and asked.seeds:
        raise UserError("--quick has one seed; leave --seeds out.")
    if suite not in {None, "generated"} and bench != "starter":
        raise UserError(f"--suite must be 'generated', not {suite!r}; --bench names instances.")
    if suite != "generated":
        options.refuse_given(generated, "--suite generated")
    if domain == "math":
        if suite or bench != "starter":
            raise UserError(
                "--domain math makes its problems itself: leave --suite and --bench out."
            )
        return _study_maths(asked.maths_plan(), folder, at_once, sandboxes, as_json)
    if suite == "generated":
        of_generated = generated.plan(bench, asked)
        return run_generated(
            of_generated,
            folder,
            sandboxes,
            workers=workers,
            at_once=at_once,
            as_json=as_json,
            gate=not generated.no_gate,
        )
    settings = sandboxes.settings()
    from srl_swe.experiments.study import run_study
    from srl_swe.experiments.study_report import TITLE, results_table
    from srl_swe.training.curriculum import phases_at_once

    plan = asked.plan(suite or bench)  # --suite named the bench in 0.1
    instances = testable_bench(plan.suite)
    open_sandbox = sandboxes_for(instances, settings)
    at_once = at_once or phases_at_once()
    run = phase_runner(sandboxes, workers=workers, at_once=at_once)
    results = run_study(
        plan, instances, folder, open_sandbox, run, at_once=at_once, harness=owned_harness()
    )
    if as_json:
        return options.print_json(results)
    options.console().print(results_table(results).draw(TITLE))
    return typer.echo(f"{folder}/report.html")


def _study_maths(
    plan: MathsPlan,
    folder: Path,
    at_once: int | None,
    sandboxes: options.SandboxOptions,
    as_json: bool,
) -> None:
    from srl_swe.experiments.maths_report import TITLE, accuracy_table
    from srl_swe.experiments.maths_study import run_maths_study
    from srl_swe.training.curriculum import phases_at_once

    at_once = at_once or phases_at_once()
    run, alone = (phase_runner(sandboxes, workers=1, at_once=n) for n in (at_once, 1))
    results = run_maths_study(plan, folder, run, at_once=at_once, run_alone=alone)
    if as_json:
        return options.print_json(results)
    options.console().print(accuracy_table(results, plan.samples).draw(TITLE))
    return typer.echo(f"{folder}/report.html")
