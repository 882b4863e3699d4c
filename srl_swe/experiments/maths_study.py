"""A study on made problems of mathematics: the paper's arms and ablations at equal budgets.

FOLDER/problems/, FOLDER/data/     :mod:`srl_swe.experiments.maths_data`
FOLDER/base/final/                 where all arms start, under every seed
FOLDER/seed-0/ARM/01-WAY/          a run folder for each way of an arm
FOLDER/tuning/WAY-RATE/            short runs, to choose the rates
FOLDER/tuning.jsonl                one line per way: the rate used, and all rates tried
FOLDER/results.jsonl               one line per arm and seed, in the order in which they end
FOLDER/report.html, table.md       rewritten after each of them

A second run continues: finished trainings, rates and results are kept.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock

from srl_swe.domains import MATH
from srl_swe.experiments.experiment import (
    RESULTS_FILE,
    Stage,
    get_arms,
    load_results,
    run_stages,
    share_updates,
)
from srl_swe.experiments.maths_data import (
    load_held_out,
    load_single_steps,
    problem_file,
    sample_texts,
    save_data,
    save_demonstrations,
    save_problems,
)
from srl_swe.experiments.maths_evaluation import MathsPolicy, accuracy
from srl_swe.experiments.maths_plan import (
    MATHS_ARMS,
    TUNING_FILE,
    WAYS,
    CurvePoint,
    Data,
    MathsArm,
    MathsPlan,
    MathsResult,
    RateTried,
    Tuned,
    Way,
    best_rate,
    load_tuned,
    rates_to_try,
)
from srl_swe.experiments.maths_report import save_report
from srl_swe.experiments.study import training_seconds
from srl_swe.files import append_record, claim, held_alone
from srl_swe.progress import say
from srl_swe.reports.record import load_run
from srl_swe.training.curriculum import RunPhase, finish_phase, train_curriculum
from srl_swe.training.data import load_step_contexts, load_tokenizer
from srl_swe.training.load_recipe import load_recipe, recipe_path
from srl_swe.training.recipe import CurriculumRecipe, Phase, Recipe, SftRecipe
from srl_swe.training.tiny_policy import make_tiny_policy

_BASE_RECIPE = "study-math-base"
_TUNING_S = 150.0
"""To find the learning rate of a way, on two cores; only the ETA depends on it."""


def run_maths_study(
    plan: MathsPlan,
    folder: Path,
    run_phase: RunPhase,
    *,
    at_once: int = 1,
    run_alone: RunPhase | None = None,
) -> list[MathsResult]:
    """Train and evaluate the arms that ``folder`` lacks, ``at_once`` of them; returns all results.

    ``run_alone``: trains the base, for which the others wait; None means ``run_phase``. Raises
    UserError if the folder holds another plan, PhaseStopped if a training fails.
    """
    arms = get_arms(MATHS_ARMS, plan.arms)
    MATH.verified_by()  # fails early if math-verify is missing
    with held_alone(folder):
        for arm in arms:
            share_updates(plan.updates, [1 / max(1, len(arm.ways))] * len(arm.ways))
        claim(folder, asdict(plan))
        save_problems(plan, folder)
        study = MathsStudy(
            plan=plan, folder=folder, run_phase=run_phase, run_alone=run_alone or run_phase
        )
        kinds: set[Data] = {"rests", *(WAYS[name].data for arm in arms for name in arm.ways)}
        for kind in kinds:  # the rests also for the tokenizer
            if kind != "problems":
                save_data(kind, folder)
        ways = list(dict.fromkeys(name for arm in arms for name in arm.ways))
        stages: list[Stage[MathsResult | None]] = [
            Stage(_tuning_title(name), _TUNING_S, partial(study.tune, WAYS[name])) for name in ways
        ]
        stages += [
            Stage(_title(seed, arm), arm.expected_s, partial(study.train_and_evaluate, seed, arm))
            for seed in range(plan.seeds)
            for arm in arms
        ]
        by_name = {arm.name: arm for arm in arms}
        spent_s = {
            _title(done.seed, by_name[done.arm]): done.seconds
            for done in load_results(folder, MathsResult)
            if done.arm in by_name
        } | {_tuning_title(name): _TUNING_S for name in load_tuned(folder)}

        def keep(_: Stage[MathsResult | None], result: MathsResult | None) -> None:
            if result is not None:
                append_record(folder / RESULTS_FILE, result)
            save_report(plan, load_results(folder, MathsResult), load_tuned(folder), folder)

        run_stages("study", stages, spent_s, keep, at_once=at_once)
        results = load_results(folder, MathsResult)
        save_report(plan, results, load_tuned(folder), folder)
        return results


def _tuning_title(way: str) -> str:
    return f"learning rate of {WAYS[way].label}"


def _title(seed: int, arm: MathsArm) -> str:
    return f"seed {seed}: {arm.label}"


@dataclass(frozen=True, kw_only=True)
class MathsStudy:
    """The parts of a study; several may run at once.

    ``run_alone``: for a phase that no other runs beside. Locks: the first caller makes the
    ``base``, and finds the rate of a way (``rates``). ``randomness``: a tiny policy and
    evaluations draw the process's random numbers.
    """

    plan: MathsPlan
    folder: Path
    run_phase: RunPhase
    run_alone: RunPhase
    base: Lock = field(default_factory=Lock)
    rates: Mapping[str, Lock] = field(default_factory=lambda: defaultdict(Lock))
    randomness: Lock = field(default_factory=Lock)

    def base_policy(self) -> Path:
        """The start of all arms: a tiny policy, sure of the easy levels only."""
        plan, output = self.plan, self.folder / "base"
        tiny, data = self.folder / "untrained", self.folder / "demonstrations"
        with self.base:
            if not tiny.exists():
                save_demonstrations(plan, data)
                texts = sample_texts(self.folder, data)
                with self.randomness:
                    make_tiny_policy(
                        texts,
                        tiny,
                        vocab_size=1024,
                        hidden=plan.hidden,
                        layers=plan.layers,
                        whole_numbers=True,
                    )
            changes = {
                "model": str(tiny),
                "data": str(data),
                "output": str(output),
                "trainer.max_steps": str(plan.base_updates),
            }
            recipe = load_recipe(recipe_path(_BASE_RECIPE), changes)
            return finish_phase(recipe, self.run_alone)

    def tune(self, way: Way) -> None:
        """Find the learning rate of the way, unless it is known."""
        self.rate(way)

    def rate(self, way: Way) -> float:
        """The way's learning rate: the best of those tried on the validation problems."""
        with self.rates[way.name]:
            if known := load_tuned(self.folder).get(way.name):
                return known.rate
            base, tried = self.base_policy(), list[RateTried]()
            for rate in rates_to_try(way, self.plan.rates_tried):
                output = self.folder / "tuning" / f"{way.name}-{rate:g}"
                recipe = self.recipe(way, base, rate, self.plan.tuning_updates, 0, output)
                policy = self._train([Phase(f"01-{way.name}", recipe)], output)
                problems = load_held_out(self.folder, "validation")
                measured = MathsPolicy(policy, self.plan.max_new_tokens)
                whole, stepwise = map(
                    accuracy, (measured.greedy(problems), measured.stepwise(problems))
                )
                tried.append(RateTried(rate, whole, stepwise))
                say(f"{way.label} at {rate:g}: accuracy {whole:.3f}, step by step {stepwise:.3f}")
            found = Tuned(way.name, best_rate(tried), tuple(tried))
            append_record(self.folder / TUNING_FILE, found)
        return found.rate

    def train_and_evaluate(self, seed: int, arm: MathsArm) -> MathsResult:
        """The arm's result; makes the base policy and the rates if they are missing."""
        base = self.base_policy()
        rates = {name: self.rate(WAYS[name]) for name in arm.ways}
        updates = self.plan.updates // max(1, len(arm.ways))
        output = self.folder / f"seed-{seed}" / arm.name
        phases: list[Phase] = []
        start = base
        for index, name in enumerate(arm.ways, 1):
            place = output / f"{index:02}-{name}"
            recipe = self.recipe(WAYS[name], start, rates[name], updates, seed, place)
            phases.append(Phase(place.name, recipe))
            start = place / "final"
        policy = self._train(phases, output) if phases else base
        folders = [Path(phase.recipe.output) for phase in phases]
        say(f"seed {seed}: evaluating {arm.label}")
        curve, sampled = [CurvePoint(0, 0, self._accuracy(base))], 0
        for index, place in enumerate(folders):
            for step, checkpoint in checkpoints(place):
                spent = sampled + tokens_sampled(place, step)
                curve.append(CurvePoint(index * updates + step, spent, self._accuracy(checkpoint)))
            sampled += tokens_sampled(place)
        plan, last = self.plan, MathsPolicy(policy, self.plan.max_new_tokens)
        easy = accuracy(last.greedy(load_held_out(self.folder, "easy")))
        any_of_16 = None
        with self.randomness:
            hard, harder = (
                last.score(
                    load_held_out(self.folder, name),
                    load_single_steps(self.folder, name),
                    plan,
                    seed,
                )
                for name in ("hard", "harder")
            )
            if not phases:
                right = last.count_right(load_held_out(self.folder, "hard"), 16, seed)
                any_of_16 = accuracy([count > 0 for count in right])
        return MathsResult(
            arm=arm.name,
            seed=seed,
            rates=rates,
            updates=updates * len(phases),
            tokens_sampled=sampled,
            tokens_trained=sum(tokens_trained(phase.recipe) for phase in phases),
            seconds=sum(map(training_seconds, folders)),
            easy=easy,
            hard=hard,
            harder=harder,
            curve=tuple(curve),
            any_of_16=any_of_16,
        )

    def recipe(
        self, way: Way, start: Path, rate: float, updates: int, seed: int, output: Path
    ) -> Recipe:
        """The way's recipe with the study's places, learning rate, seed and budget."""
        source = (
            {"bench": str(problem_file(self.folder, "train"))}
            if way.data == "problems"
            else {"data": str(self.folder / "data" / way.data)}
        )
        changes = {
            **way.changes,
            **source,
            "model": str(start),
            "output": str(output),
            "trainer.learning_rate": repr(rate),
            "trainer.max_steps": str(updates),
            "trainer.save_steps": str(max(1, self.plan.updates // self.plan.points)),
            "trainer.seed": str(seed),
        }
        return load_recipe(recipe_path(way.recipe), changes)

    def _train(self, phases: list[Phase], output: Path) -> Path:
        return train_curriculum(CurriculumRecipe(tuple(phases), str(output)), self.run_phase)

    def _accuracy(self, policy: Path) -> float:
        problems = load_held_out(self.folder, "validation")
        return accuracy(MathsPolicy(policy, self.plan.max_new_tokens).greedy(problems))


def checkpoints(run: Path) -> Iterator[tuple[int, Path]]:
    """The checkpoints of a run in their order, with their steps."""
    found = [
        (int(path.name.removeprefix("checkpoint-")), path) for path in run.glob("checkpoint-*")
    ]
    yield from sorted(found)


def tokens_sampled(run: Path, until: float = math.inf) -> int:
    """Tokens of all replies that a finished run has sampled in its updates up to ``until``."""
    values = load_run(run).values("dynamic_sampling/tokens_sampled")
    return round(sum(value or 0 for step, value in values if step <= until))


def tokens_trained(recipe: Recipe) -> int:
    """Tokens of replies in the loss of a finished run."""
    held = load_run(Path(recipe.output))
    if isinstance(recipe, SftRecipe):
        rows, tokenizer = load_step_contexts(recipe.data), load_tokenizer(recipe.model, {})
        tokens = [len(tokenizer(row["completion"][0]["content"])["input_ids"]) for row in rows]
        seen = held.step * int(recipe.trainer["per_device_train_batch_size"])
        return round(seen * sum(tokens) / len(tokens))
    return round(sum(value or 0 for _, value in held.values("dynamic_sampling/tokens_trained")))
