"""A study: for every seed a base policy, and from it every arm, measured alike.

FOLDER/steps/                 step contexts of the experts' trajectories
FOLDER/seed-0/base/final/     where all arms of that seed start
FOLDER/seed-0/ARM/            a curriculum's folder, with the curves of each phase
FOLDER/results.jsonl          a line an arm and seed, as they end
FOLDER/report.html, table.md  made anew after each of them
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock

from srl_swe.dialects import get_dialect
from srl_swe.evaluation.harness import Harness
from srl_swe.experiments.measure import Measuring, careless, measure
from srl_swe.experiments.plan import (
    Arm,
    ArmResult,
    StudyPlan,
    Suite,
    append_result,
    build_steps,
    get_arms,
    load_results,
    load_suite,
)
from srl_swe.experiments.study_report import save_report
from srl_swe.parallel import run_parallel
from srl_swe.progress import say
from srl_swe.reports.record import load_run
from srl_swe.run_folder import claim
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps import StepSettings, save_step_contexts
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.training.curriculum import PhaseStopped, RunPhase, save_recipe, train_curriculum
from srl_swe.training.load_recipe import load_curriculum, load_recipe
from srl_swe.training.recipe import CurriculumRecipe
from srl_swe.training.train import recipe_path
from srl_swe.types import Instance

# The policy that all arms of a seed start from.


RECIPE = "study-base"
_RANDOM_NUMBERS = Lock()
_CARD = "# Demonstrations of a study's base policy\n\nOften wrong: of no other use.\n"


def base_policy(
    plan: StudyPlan, suite: Suite, folder: Path, seed: int, run_phase: RunPhase
) -> Path:
    """``plan.model``, or a tiny policy that has imitated careless demonstrations.

    What is in ``folder`` already is not made again. Its training aside, one call at a time makes
    what is not there, as it draws the process's random numbers.
    """
    if plan.model:
        return Path(plan.model)
    output, tiny, data = folder / "base", folder / "untrained", folder / "demonstrations"
    with _RANDOM_NUMBERS:
        if not tiny.exists():
            _make_tiny_policy(plan, suite, tiny, data, seed)
    places = {"model": str(tiny), "data": str(data), "output": str(output)}
    changes = {"trainer.max_steps": str(plan.base_steps), "trainer.seed": str(seed)}
    recipe = load_recipe(recipe_path(RECIPE), {**changes, **places})
    if not (output / "final").is_dir() and (code := run_phase("sft", save_recipe(recipe))):
        raise PhaseStopped(RECIPE, code)
    return output / "final"


def _make_tiny_policy(plan: StudyPlan, suite: Suite, tiny: Path, data: Path, seed: int) -> None:
    """Random weights, and a tokenizer of the very texts; the demonstrations go to ``data``."""
    from srl_swe.training.tiny_policy import make_tiny_policy

    contexts = [
        item
        for trajectory in suite.trajectories
        for item in make_step_contexts(
            trajectory, get_dialect("xml"), plan.window, include_last=True
        )
        if isinstance(item, StepContext)
    ]
    settings = StepSettings(window=plan.window, include_last=True)
    save_step_contexts(careless(contexts, seed), data, _CARD, asdict(settings))
    prompts = (message["content"] for context in contexts for message in context.prompt)
    replies = (context.expert_reply for context in contexts)
    texts = [*prompts, *replies]
    make_tiny_policy(texts, tiny, vocab_size=4096, hidden=192, layers=2, seed=seed)


@dataclass(frozen=True, slots=True)
class Study:
    """One study: what it is to do, on what, where, and by what means."""

    plan: StudyPlan
    suite: Suite
    folder: Path
    open_sandbox: OpenSandbox
    run_phase: RunPhase
    bases: Mapping[int, Lock]
    """A lock for each seed's base."""
    measuring: Lock
    """Policies are measured one by one: the verdicts lie in one folder."""
    harness: Harness | None = None

    @property
    def steps(self) -> Path:
        """The step contexts."""
        return self.folder / "steps"

    def place(self, seed: int) -> Path:
        """All of one seed."""
        return self.folder / f"seed-{seed}"

    def base(self, seed: int) -> Path:
        """Where all arms of the seed start; who comes first makes it, and the others wait."""
        with self.bases[seed]:
            return base_policy(self.plan, self.suite, self.place(seed), seed, self.run_phase)


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
    """Train and measure what ``folder`` lacks, so many arms ``at_once``; returns all results.

    ``instances`` are those of ``plan.suite``; ``harness`` is :class:`Measuring`'s.
    Raises UserError for a folder of another plan, PhaseStopped where a training fails.
    """
    arms = get_arms(plan.arms)
    claim(folder, asdict(plan))
    bases = {seed: Lock() for seed in range(plan.seeds)}
    suite = load_suite(plan, instances)
    study = Study(plan, suite, folder, open_sandbox, run_phase, bases, Lock(), harness)
    build_steps(plan, suite, study.steps)
    wanted = [(seed, arm) for seed in range(plan.seeds) for arm in arms]
    done = {(one.seed, one.arm) for one in load_results(folder)}
    missing = [(seed, arm) for seed, arm in wanted if (seed, arm.name) not in done]
    clock = _Clock(len(wanted) - len(missing), len(wanted))

    def keep(job: tuple[int, Arm], result: ArmResult) -> None:
        append_result(folder, result)
        save_report(plan, suite, load_results(folder), folder)
        clock.say_done(f"seed {job[0]}: {job[1].label}")

    missing.sort(key=_bases_one_seed_ahead)
    run_parallel(lambda job: _train_and_measure(study, *job), missing, keep, workers=at_once)
    return load_results(folder)


def _bases_one_seed_ahead(job: tuple[int, Arm]) -> tuple[int, bool]:
    """So that a base is ready when arms that run at once come to its seed.

    >>> jobs = [(seed, arm) for seed in (0, 1) for arm in get_arms(["base", "srl"])]
    >>> [(seed, arm.name) for seed, arm in sorted(jobs, key=_bases_one_seed_ahead)]
    [(0, 'base'), (1, 'base'), (0, 'srl'), (1, 'srl')]
    """
    seed, arm = job
    return (seed, True) if arm.phases else (seed - 1, False)


class _Clock:
    """Says how far the study is, and how long what is left may take."""

    def __init__(self, done: int, total: int) -> None:
        self._before = self._done = done
        self._total = total
        self._started = time.monotonic()

    def say_done(self, what: str) -> None:
        self._done += 1
        each_s = (time.monotonic() - self._started) / (self._done - self._before)
        left = timedelta(seconds=round(each_s * (self._total - self._done)))
        say(f"[{self._done}/{self._total}, about {left} left] {what}")


def _train_and_measure(study: Study, seed: int, arm: Arm) -> ArmResult:
    say(f"seed {seed}: {arm.label}, in {study.place(seed) / arm.name}")
    policy = study.base(seed)
    phases: Sequence[Path] = ()
    if arm.phases:
        curriculum = _curriculum(study, arm, policy, seed)
        phases = [Path(phase.recipe.output) for phase in curriculum.phases]
        policy = train_curriculum(curriculum, study.run_phase)
    plan, suite = study.plan, study.suite
    on = Measuring(
        data=study.steps,
        instances=suite.instances,
        open_sandbox=study.open_sandbox,
        grading=study.folder / "grading",
        window=plan.window,
        max_steps=plan.max_steps,
        max_new_tokens=plan.max_new_tokens,
        harness=study.harness,
    )
    with study.measuring:
        say(f"seed {seed}: {arm.label} is measured")
        place = study.place(seed) / f"measured-{arm.name}"
        found = measure(policy, f"{arm.name}-{seed}", on, place)
    return ArmResult(
        arm=arm.name,
        seed=seed,
        similarity=found.similarity_mean,
        format_rate=found.format_rate,
        exact_rate=found.exact_rate,
        resolved_training=found.resolved_share(suite.training_ids),
        resolved_held_out=found.resolved_share(suite.held_out_ids),
        seconds=sum(map(_seconds, phases)),
    )


def _curriculum(study: Study, arm: Arm, base: Path, seed: int) -> CurriculumRecipe:
    """The arm's recipe with the study's budget, seed, window and places."""
    plan = study.plan
    lines = {
        "model": str(base),
        "data": str(study.steps),
        "bench": plan.suite,
        "output": str(study.place(seed) / arm.name),
    }
    for name, share in arm.phases:
        lines[f"phases.{name}.trainer.max_steps"] = str(max(1, round(plan.updates * share)))
        lines[f"phases.{name}.trainer.seed"] = str(seed)
        if name == "rlvr":
            lines[f"phases.{name}.limits.steps"] = str(plan.max_steps)
            lines[f"phases.{name}.window.observation_chars"] = str(plan.observation_chars)
    return load_curriculum(recipe_path(arm.recipe), lines)


def _seconds(phase: Path) -> float:
    """How long it trained, over all its starts that came to an end."""
    starts = load_run(phase).manifest.get("starts", [])
    spans = [(start["started"], start["ended"]) for start in starts if start["ended"]]
    return sum(
        (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
        for begin, end in spans
    )
