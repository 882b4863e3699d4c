"""A study: per seed a base policy, from which every arm is trained and evaluated alike.

FOLDER/seed-0/base/final/     where all arms of that seed start
FOLDER/seed-0/ARM/            a curriculum's folder, with the curves of each phase
FOLDER/results.jsonl          one line per arm and seed, in the order in which they end
FOLDER/report.html, table.md  rewritten after each of them
FOLDER/view.html              at the end: every episode, step context and sampled reply

The other files are those of every experiment (:mod:`srl_swe.experiments.experiment`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Lock

from srl_swe.evaluation.harness import Harness
from srl_swe.experiments.experiment import (
    RESULTS_FILE,
    Experiment,
    Stage,
    bundled_trajectories,
    get_arms,
    load_results,
    load_suite,
    measured,
    run_stages,
    save_episodes,
    share_updates,
)
from srl_swe.experiments.policy_evaluation import RESULT_FILE, load_result
from srl_swe.experiments.study_plan import (
    ARMS,
    Arm,
    ArmResult,
    StudyPlan,
)
from srl_swe.experiments.study_report import save_report
from srl_swe.experiments.warm_start import make_tiny_policy, save_noisy_demonstrations
from srl_swe.files import append_record, claim, held_alone
from srl_swe.progress import say
from srl_swe.reports.record import load_run
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps import StepSource
from srl_swe.training.curriculum import RunPhase, finish_phase, train_curriculum
from srl_swe.training.load_recipe import load_curriculum, load_recipe, recipe_path
from srl_swe.training.recipe import CurriculumRecipe
from srl_swe.types import Instance

_BASE_RECIPE = "study-base"


def run_study(
    plan: StudyPlan,
    instances: Sequence[Instance],
    folder: Path,
    open_sandbox: OpenSandbox,
    run_phase: RunPhase,
    *,
    at_once: int = 1,
    harness: Harness | None = None,
) -> list[ArmResult]:
    """Train and evaluate the arms that ``folder`` lacks, ``at_once`` of them; returns all results.

    ``instances``: those of ``plan.suite``. Raises UserError if the folder holds another plan,
    PhaseStopped if a training fails.
    """
    arms = get_arms(ARMS, plan.arms)
    with held_alone(folder):
        for arm in arms:
            share_updates(plan.updates, [share for _, share in arm.phases])
        claim(folder, asdict(plan))
        suite = load_suite(plan.suite, instances, plan.trajectories)
        study = Study(
            plan=plan,
            suite=suite,
            folder=folder,
            open_sandbox=open_sandbox,
            harness=harness,
            run_phase=run_phase,
            bases={seed: Lock() for seed in range(plan.seeds)},
        )
        source = StepSource(plan.trajectories or bundled_trajectories())
        study.build_steps(suite.trajectories, source.describe())
        jobs = [(seed, arm) for seed in range(plan.seeds) for arm in arms]
        jobs.sort(key=_bases_one_seed_ahead)
        stages = [
            Stage(_title(seed, arm), arm.expected_s, partial(study.train_and_evaluate, seed, arm))
            for seed, arm in jobs
        ]
        by_name = {arm.name: arm for arm in arms}
        spent_s = {
            _title(done.seed, by_name[done.arm]): done.seconds
            for done in load_results(folder, ArmResult)
            if done.arm in by_name and not _is_broken(folder, done)
        }

        def keep(_: Stage[ArmResult], result: ArmResult) -> None:
            append_record(folder / RESULTS_FILE, result)
            save_report(plan, suite, load_results(folder, ArmResult), folder)

        run_stages("study", stages, spent_s, keep, at_once=at_once)
        results = load_results(folder, ArmResult)
        by_id = {instance.instance_id: instance for instance in suite.instances}
        experts = {trajectory.instance_id: trajectory for trajectory in suite.trajectories}
        places = [measured(result.arm, result.seed) for result in results]
        episodes = save_episodes(folder, by_id, experts, places)
        save_report(plan, suite, results, folder, episodes)
        return results


def _is_broken(folder: Path, result: ArmResult) -> bool:
    """Whether sandboxes broke in the arm's evaluation, so that it is evaluated again."""
    place = folder / measured(result.arm, result.seed)
    return (place / RESULT_FILE).exists() and bool(load_result(place).broken)


def _title(seed: int, arm: Arm) -> str:
    return f"seed {seed}: {arm.label}"


def _bases_one_seed_ahead(job: tuple[int, Arm]) -> tuple[int, bool]:
    """A sort key that puts each base one seed early: it is ready when the arms reach its seed.

    >>> jobs = [(seed, arm) for seed in (0, 1) for arm in get_arms(ARMS, ["base", "srl"])]
    >>> [(seed, arm.name) for seed, arm in sorted(jobs, key=_bases_one_seed_ahead)]
    [(0, 'base'), (1, 'base'), (0, 'srl'), (1, 'srl')]
    """
    seed, arm = job
    return (seed, True) if arm.phases else (seed - 1, False)


@dataclass(frozen=True, kw_only=True)
class Study(Experiment[StudyPlan]):
    """The stages of a study; several may run at once.

    Locks: ``bases``: one per seed's base. ``randomness``: tiny policies draw the process's random
    numbers. ``grading``: policies are evaluated one by one, as their verdicts share a folder.
    """

    run_phase: RunPhase
    bases: Mapping[int, Lock]
    randomness: Lock = field(default_factory=Lock)
    grading: Lock = field(default_factory=Lock)

    def place(self, seed: int) -> Path:
        """The folder of one seed."""
        return self.folder / f"seed-{seed}"

    def train_and_evaluate(self, seed: int, arm: Arm) -> ArmResult:
        """The arm's result; makes the seed's base policy if it is missing."""
        policy = self.base_policy(seed)
        training_s = 0.0
        if arm.phases:
            curriculum = self.curriculum(arm, policy, seed)
            policy = train_curriculum(curriculum, self.run_phase)
            training_s = sum(
                training_seconds(Path(phase.recipe.output)) for phase in curriculum.phases
            )
        with self.grading:
            say(f"seed {seed}: evaluating {arm.label}")
            place = self.place(seed) / f"measured-{arm.name}"
            found = self.evaluate(policy, f"{arm.name}-{seed}", place)
        return ArmResult(
            arm=arm.name,
            seed=seed,
            similarity=found.similarity_mean,
            format_rate=found.format_rate,
            exact_rate=found.exact_rate,
            resolved_training=found.resolved_share(self.suite.training_ids),
            resolved_held_out=found.resolved_share(self.suite.held_out_ids),
            seconds=training_s,
        )

    def base_policy(self, seed: int) -> Path:
        """The start of all arms of the seed; the first caller makes it.

        ``plan.model``, or a tiny policy that has imitated noisy demonstrations.
        """
        if self.plan.model:
            return Path(self.plan.model)
        folder = self.place(seed)
        output, tiny, data = folder / "base", folder / "untrained", folder / "demonstrations"
        with self.bases[seed]:
            with self.randomness:
                if not tiny.exists():
                    save_noisy_demonstrations(
                        self.suite.trajectories, self.step_settings, data, seed
                    )
                    make_tiny_policy(self.steps, tiny, seed)
            changes = {
                "model": str(tiny),
                "data": str(data),
                "output": str(output),
                "trainer.max_steps": str(self.plan.base_steps),
                "trainer.seed": str(seed),
            }
            recipe = load_recipe(recipe_path(_BASE_RECIPE), changes)
            return finish_phase(recipe, self.run_phase)

    def curriculum(self, arm: Arm, base: Path, seed: int) -> CurriculumRecipe:
        """The arm's recipe with the study's budget, seed, window and places."""
        plan = self.plan
        overrides = {
            "model": str(base),
            "data": str(self.steps),
            "bench": plan.suite,
            "output": str(self.place(seed) / arm.name),
        }
        shared = share_updates(plan.updates, [share for _, share in arm.phases])
        for (name, _), updates in zip(arm.phases, shared, strict=True):
            overrides[f"phases.{name}.trainer.max_steps"] = str(updates)
            overrides[f"phases.{name}.trainer.seed"] = str(seed)
            if name == "rlvr":
                overrides[f"phases.{name}.limits.steps"] = str(plan.max_steps)
                overrides[f"phases.{name}.window.observation_chars"] = str(plan.observation_chars)
        return load_curriculum(recipe_path(arm.recipe), overrides)


def training_seconds(phase: Path) -> float:
    """Total seconds of the finished starts."""
    starts = load_run(phase).manifest.get("starts", [])
    spans = [(start["started"], start["ended"]) for start in starts if start["ended"]]
    return sum(
        (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
        for begin, end in spans
    )
