"""A study on generated instances: arms from one warm start, measured on held-out repositories.

FOLDER/split.json                 repositories and instances by use, and the costs of a step
FOLDER/data/                      step contexts: warm, further, held-out, training; training.jsonl
FOLDER/seed-0/warm/final/         where all arms of that seed start
FOLDER/seed-0/ARM/01-srl/         a run folder for each phase of an arm
FOLDER/seed-0/measured-ARM/       its evaluation (:mod:`srl_swe.experiments.generated_evaluation`)
FOLDER/executed-edits.jsonl       executed edits, shared by all policies
FOLDER/results.jsonl              one line per arm and seed, in the order in which they end
FOLDER/report.html, table.md      rewritten after each of them; view.html at the end

A second run continues: finished trainings, rollouts, edits, verdicts and results are kept.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

from srl_swe.dialects import get_dialect, read_actions
from srl_swe.errors import UserError
from srl_swe.evaluation.executed_edits import last_edit
from srl_swe.evaluation.harness import Harness
from srl_swe.evaluation.sandbox_tests import CachedTestRunner
from srl_swe.experiments.experiment import (
    RESULTS_FILE,
    Stage,
    get_arms,
    load_results,
    measured,
    run_stages,
    save_episodes,
)
from srl_swe.experiments.generated_evaluation import (
    GeneratedEvaluation,
    GeneratedSettings,
    evaluate_generated,
    is_broken,
    reply_to_steps,
    roll_out,
)
from srl_swe.experiments.generated_plan import (
    ARMS,
    STEPS_PER_UPDATE,
    ArmPhase,
    Costs,
    GeneratedArm,
    GeneratedPlan,
    GeneratedResult,
    Split,
    check_gate,
    expected_seconds,
    split_instances,
)
from srl_swe.experiments.generated_report import save_report
from srl_swe.experiments.policy_evaluation import EvaluationSettings
from srl_swe.experiments.study import training_seconds
from srl_swe.experiments.warm_start import make_tiny_policy
from srl_swe.files import append_record, claim, damage_named, held_alone, write_atomic
from srl_swe.instances import evenly_spread, load_instances, row_from_instance
from srl_swe.progress import say
from srl_swe.reports.record import load_run, number
from srl_swe.rollout.tokens import TokenCounter
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps import StepSettings, save_step_contexts
from srl_swe.steps.contexts import StepContext, make_step_contexts, trajectory_id
from srl_swe.training.curriculum import RunPhase, finish_phase
from srl_swe.training.data import load_step_contexts, load_tokenizer
from srl_swe.training.load_recipe import load_recipe, recipe_path
from srl_swe.training.recipe import Recipe, SftRecipe, SrlRecipe
from srl_swe.training.sft_trainer import join_steps
from srl_swe.types import Instance, Message, Trajectory

LabelRollouts = Callable[[Path, Sequence[Instance], Path, int], Sequence[Trajectory]]
"""Rolls out a policy on instances, so many episodes each, keeping its work in a folder, and returns
trajectories whose steps are the states it reached with the experts' answers (DAgger, arXiv
1011.0686)."""

_CARD = "# Step contexts of a study on generated instances\n\nMade by `srl-swe study`: {name}.\n"
_TEST_TIMEOUT_S = 120.0
_WARM_CHANGES = {"trainer.learning_rate": "3.0e-4", "trainer.lr_scheduler_type": "linear"}
"""From the recipe of the arms to that of the warm start, which has many updates."""
SPLIT_FILE = "split.json"


def run_generated_study(
    plan: GeneratedPlan,
    instances: Sequence[Instance],
    trajectories: Sequence[Trajectory],
    folder: Path,
    open_sandbox: OpenSandbox,
    run_phase: RunPhase,
    label: LabelRollouts,
    *,
    at_once: int = 1,
    run_alone: RunPhase | None = None,
    gate: bool = True,
    harness: Harness | None = None,
) -> list[GeneratedResult]:
    """Train and evaluate the arms that ``folder`` lacks, ``at_once`` of them; returns all results.

    ``trajectories``: experts' that resolve instances. ``label``: for the arm on its own states.
    ``run_alone``: trains the first warm start, for which the others wait, and an arm that is left
    alone; None means ``run_phase``.
    ``gate``: False continues, here or in a folder where it has stopped, though it is closed.
    Raises UserError if the folder holds another plan, if the instances can't be split, or if the
    gate is closed (:func:`srl_swe.experiments.generated_plan.check_gate`); PhaseStopped if a
    training fails.
    """
    arms = get_arms(ARMS, plan.arms)
    with held_alone(folder):
        claim(folder, asdict(plan))
        jobs = [(seed, arm) for arm in arms[:1] for seed in range(plan.seeds)]
        jobs += [(seed, arm) for seed in range(plan.seeds) for arm in arms[1:]]
        finished = {
            (each.seed, each.arm)
            for each in load_results(folder, GeneratedResult)
            if not is_broken(folder / measured(each.arm, each.seed))
        }
        done = [job for job in jobs if (job[0], job[1].name) in finished]
        run_alone = run_alone or run_phase
        study = GeneratedStudy(
            plan=plan,
            split=split_instances(instances, trajectories, plan.held_out),
            instances={instance.instance_id: instance for instance in instances},
            experts={trajectory.instance_id: trajectory for trajectory in reversed(trajectories)},
            folder=folder,
            open_sandbox=open_sandbox,
            harness=harness,
            run_phase=run_phase if len(jobs) - len(done) > 1 else run_alone,
            run_alone=run_alone,
            gate=gate,
            label=label,
            starts={seed: Lock() for seed in range(plan.seeds)},
            test=CachedTestRunner(open_sandbox, _TEST_TIMEOUT_S),
        )
        costs = study.prepare()
        alone_s = {arm.name: expected_seconds(arm, plan, costs) for arm in arms}
        stages = [
            Stage(
                f"seed {seed}: {arm.label}",
                alone_s[arm.name] * at_once,  # as they share the cores
                partial(study.train_and_evaluate, seed, arm, costs),
            )
            for seed, arm in jobs
        ]
        expected = [f"{arm.label} {alone_s[arm.name] / 60:.0f}" for arm in arms]
        total = plan.seeds * sum(alone_s.values()) / 60
        say(
            f"expected minutes per seed, with 135M parameters on two cores: {', '.join(expected)}; "
            f"{total:.0f} in all"
        )
        spent_s = {
            stage.title: stage.expected_s
            for job, stage in zip(jobs, stages, strict=True)
            if job in done
        }
        report = partial(save_report, plan, study.split, costs, folder=folder)

        def keep(_: Stage[GeneratedResult], result: GeneratedResult) -> None:
            append_record(folder / RESULTS_FILE, result)
            report(load_results(folder, GeneratedResult))

        run_stages("study", stages, spent_s, keep, at_once=at_once)
        results = load_results(folder, GeneratedResult)
        places = [measured(result.arm, result.seed) for result in results]
        report(results, episodes=save_episodes(folder, study.instances, study.experts, places))
        return results


@dataclass(frozen=True, kw_only=True)
class GeneratedStudy:
    """The parts of a study; several may run at once.

    ``experts``: one trajectory per instance. Locks: ``starts``, one per seed's warm start;
    ``evaluating``: policies are evaluated one by one, as their verdicts share a folder.
    ``passed``: the gate has been passed.
    """

    plan: GeneratedPlan
    split: Split
    instances: Mapping[str, Instance]
    experts: Mapping[str, Trajectory]
    folder: Path
    open_sandbox: OpenSandbox
    harness: Harness | None
    run_phase: RunPhase
    run_alone: RunPhase
    gate: bool
    label: LabelRollouts
    starts: Mapping[int, Lock]
    test: CachedTestRunner
    evaluating: Lock = field(default_factory=Lock)
    passed: Event = field(default_factory=Event)

    # Data.

    @property
    def data(self) -> Path:
        """The folder of data sets."""
        return self.folder / "data"

    def prepare(self) -> Costs:
        """Write the data sets that are missing, and ``split.json``; returns the costs of a step.

        Raises UserError if there are fewer further steps than an update takes.
        """
        plan, split = self.plan, self.split
        half = len(split.training) // 2
        further, of_arms = self._take(split.training[half:], plan.further_steps)
        rest = split.training[:half] + split.training[half + of_arms :]
        warm, _ = self._take(rest, plan.warm_steps)
        further = further[: len(further) // STEPS_PER_UPDATE * STEPS_PER_UPDATE]
        if not further:
            raise UserError(
                f"the experts' trajectories leave fewer than {STEPS_PER_UPDATE} steps beside the "
                "warm start, and an update takes as many; add trajectories."
            )
        held_out = self._held_out_contexts()
        if not held_out:
            raise UserError(
                f"no expert trajectory of {', '.join(split.held_out_repos)}: steps of held-out "
                "repositories can't be evaluated; add some to --trajectories."
            )
        training, _ = self._take(split.training[: plan.training_instances], None)
        sets = {"warm": warm, "further": further, "held-out": held_out, "training": training}
        sizes = {name: len(contexts) for name, contexts in sets.items()}
        ids = "\n".join(map(trajectory_id, self.experts.values()))
        record = {
            **asdict(split),
            "steps": sizes,
            "experts": hashlib.sha256(ids.encode()).hexdigest(),
        }
        self._refuse_other_data(record)
        split_file = self.folder / SPLIT_FILE
        if not split_file.exists():  # before the data: a killed run is known by it
            write_atomic(split_file, json.dumps(record, indent=1) + "\n")
        for name, contexts in sets.items():
            self._save(contexts, self.data / name)
        of_further = split.training[half : half + of_arms]
        rows = [row_from_instance(self.instances[name]) for name in of_further]
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        write_atomic(self.data / "training.jsonl", lines)
        costs = self._costs(further)
        record["costs"] = asdict(costs)
        write_atomic(split_file, json.dumps(record, indent=1) + "\n")
        return costs

    def _refuse_other_data(self, record: Mapping[str, Any]) -> None:
        """Raises UserError if the folder holds the data of other instances or trajectories."""
        path = self.folder / SPLIT_FILE
        if path.exists():
            with damage_named(str(path), "name another folder"):
                # folders of 0.2 lack the experts
                held = {"experts": record["experts"], **json.loads(path.read_text("utf-8"))}
                is_other = json.loads(json.dumps(record)) != {name: held[name] for name in record}
            if is_other:
                raise UserError(
                    f"{self.folder} holds a study on other instances or trajectories than these "
                    "files have now; name another folder."
                )

    def _held_out_contexts(self) -> list[StepContext]:
        """All steps of the first held-out instances, and last edits until there are enough."""
        contexts: list[StepContext] = []
        edits, trials = 0, self.trials()
        shown = [name for name in self.split.held_out if name in self.experts]
        for place, name in enumerate(shown):
            is_whole = place < self.plan.step_instances
            if not is_whole and edits >= self.plan.edit_instances:
                break
            for context in self._contexts([self.experts[name]]):
                is_edit = (context.trajectory_id, context.step_index) in trials
                edits += is_edit
                if is_edit or is_whole:
                    contexts.append(context)
        return contexts

    def trials(self) -> dict[tuple[str, int], tuple[Instance, Trajectory]]:
        """Instance and expert's trajectory of the last edit of each held-out trajectory."""
        return {
            (trajectory_id(expert), place): (self.instances[name], expert)
            for name in self.split.held_out
            if (expert := self.experts.get(name)) and (place := last_edit(expert)) is not None
        }

    def _take(self, names: Sequence[str], most: int | None) -> tuple[list[StepContext], int]:
        """The steps of whole instances until there are ``most``, cut; and how many instances."""
        contexts: list[StepContext] = []
        used = 0
        for name in names:
            if most is not None and len(contexts) >= most:
                break
            contexts += self._contexts([self.experts[name]])
            used += 1
        return contexts[:most], used

    def _contexts(self, trajectories: Iterable[Trajectory]) -> list[StepContext]:
        """The step contexts, without edits of text that the prompt does not show."""
        dialect, window = get_dialect("xml"), self.plan.window
        return [
            item
            for trajectory in trajectories
            for item in make_step_contexts(trajectory, dialect, window, include_last=True)
            if isinstance(item, StepContext) and shows_edit(item)
        ]

    def _save(self, contexts: Sequence[StepContext], folder: Path) -> None:
        if not folder.exists():
            settings = asdict(StepSettings(window=self.plan.window, include_last=True))
            save_step_contexts(contexts, folder, _CARD.format(name=folder.name), settings)

    def _costs(self, further: Sequence[StepContext]) -> Costs:
        """Mean tokens under the tokenizer of the model."""
        tokenizer = load_tokenizer(str(self.model(seed=0)), {})
        count = TokenCounter(tokenizer, {})
        replies = [tokenizer(context.expert_reply)["input_ids"] for context in further]
        joined = join_steps(load_step_contexts(str(self.data / "further")), tokenizer)
        return Costs(
            prompt=statistics.fmean(count(context.prompt) for context in further),
            reply=statistics.fmean(map(len, replies)),
            imitation=sum(map(len, joined["input_ids"])) / len(further),
            turns=statistics.fmean(context.n_steps for context in further),
        )

    # Policies.

    def place(self, seed: int) -> Path:
        """The folder of one seed."""
        return self.folder / f"seed-{seed}"

    def model(self, seed: int) -> Path:
        """The pretrained policy: the plan's, or a tiny one with random weights, for tests."""
        if self.plan.model:
            return Path(self.plan.model)
        tiny = self.place(seed) / "untrained"
        return tiny if tiny.exists() else make_tiny_policy(self.data / "further", tiny, seed)

    def warm_start(self, seed: int) -> Path:
        """The start of all arms of the seed; the first caller trains it.

        Raises UserError, for every caller, if that of seed 0 does not pass the gate.
        """
        if seed:  # the first one is alone, and asks the gate
            self.warm_start(0)
        with self.starts[seed]:
            output = self.place(seed) / "warm"
            recipe = self._recipe("sft", self.model(seed), output, seed, data="warm")
            policy = finish_phase(recipe, self.run_phase if seed else self.run_alone)
            if self.gate and seed == 0 and self.plan.gate_instances and not self.passed.is_set():
                with self.evaluating:
                    self._check_gate(policy, f"warm-{seed}", self.folder / measured("warm", seed))
                self.passed.set()
            return policy

    def train_and_evaluate(self, seed: int, arm: GeneratedArm, costs: Costs) -> GeneratedResult:
        """The arm's result; makes the seed's warm start if it is missing."""
        policy, result = self.train(seed, arm, costs)
        name, folder = f"{arm.name}-{seed}", self.folder / measured(arm.name, seed)
        with self.evaluating:
            say(f"seed {seed}: evaluating {arm.label}")
            evaluate_generated(policy, name, self._settings(), folder)
        return result

    def train(self, seed: int, arm: GeneratedArm, costs: Costs) -> tuple[Path, GeneratedResult]:
        """The arm's final policy and its cost; finished phases are not trained again."""
        policy = self.warm_start(seed)
        if not arm.phases:
            seconds = training_seconds(self.place(seed) / "warm")
            return policy, GeneratedResult(arm.name, seed, 0, 0, round(seconds, 1))
        steps, tokens, seconds = 0, 0, 0.0
        for count, phase in enumerate(arm.phases, 1):
            output = self.place(seed) / arm.name / f"{count:02d}-{phase.method}"
            recipe = self.recipe(phase, policy, output, seed, costs)
            policy = finish_phase(recipe, self.run_phase)
            if isinstance(recipe, SrlRecipe):
                seen = recipe.trainer["max_steps"] * STEPS_PER_UPDATE
                steps += min(seen, len(load_step_contexts(recipe.data)))
            elif isinstance(recipe, SftRecipe):
                steps += len(load_step_contexts(recipe.data))
            tokens += _tokens(output)
            seconds += training_seconds(output)
        return policy, GeneratedResult(arm.name, seed, steps, tokens, round(seconds, 1))

    def recipe(
        self, phase: ArmPhase, policy: Path, output: Path, seed: int, costs: Costs
    ) -> Recipe:
        """The recipe of a phase: its data, budget and reward."""
        recipe = self._recipe(phase.method, policy, output, seed)
        if phase.method == "sft":
            passes = costs.passes if phase.same_tokens else 1
            return replace(recipe, trainer={**recipe.trainer, "num_train_epochs": passes})
        updates = max(1, round(phase.share * self._further_steps() / STEPS_PER_UPDATE))
        if phase.method == "rlvr":
            updates = costs.rlvr_updates(self._further_steps(), phase.share)
        recipe = replace(recipe, trainer={**recipe.trainer, "max_steps": updates})
        if isinstance(recipe, SrlRecipe):
            sampling = recipe.dynamic_sampling if phase.filtered else None
            recipe = replace(recipe, rewards={phase.reward: 1.0}, dynamic_sampling=sampling)
            if phase.on_policy:
                recipe = replace(recipe, data=str(self._on_policy(seed)))
        return recipe

    def _recipe(
        self, method: str, policy: Path, output: Path, seed: int, data: str = "further"
    ) -> Recipe:
        """The bundled recipe with the study's places, seed and limits."""
        plan = self.plan
        changes = {"model": str(policy), "output": str(output), "trainer.seed": str(seed)}
        if plan.gpu:
            changes |= {"trainer.use_cpu": "false", "trainer.bf16": "true"}
        if method == "rlvr":
            changes["bench"] = str(self.data / "training.jsonl")
            changes["limits.steps"] = str(plan.max_steps)
            changes["window.observation_chars"] = str(plan.observation_chars)
        else:
            changes["data"] = str(self.data / data)
        if data == "warm":
            changes |= _WARM_CHANGES
        if method != "sft":
            changes["trainer.max_completion_length"] = str(plan.max_new_tokens)
        return load_recipe(recipe_path(f"generated-{method}"), changes)

    def _further_steps(self) -> int:
        record = json.loads((self.folder / SPLIT_FILE).read_text("utf-8"))
        return int(record["steps"]["further"])

    def _on_policy(self, seed: int) -> Path:
        """Step contexts in the states of the warm start, at most as many as the further steps."""
        folder, wanted = self.place(seed) / "on-policy", self._further_steps()
        if (folder / "steps").exists():
            return folder / "steps"
        further = load_instances(str(self.data / "training.jsonl"))
        states: dict[str, StepContext] = {}
        for episodes in (1, 2, 4, 8):
            found = self.label(self.warm_start(seed), further, folder / "rollouts", episodes)
            states = {repr(each.prompt): each for each in self._contexts(found)}
            say(f"the warm start has reached {len(states)} states, {wanted} are wanted")
            if len(states) >= wanted:
                break
        if len(states) < STEPS_PER_UPDATE:
            raise UserError(
                f"the warm start has reached {len(states)} states, and an update takes "
                f"{STEPS_PER_UPDATE}: raise --warm-steps, or leave srl-on-policy out."
            )
        chosen = [[*states.values()][index] for index in evenly_spread(len(states), wanted)]
        self._save(chosen, folder / "steps")
        return folder / "steps"

    # Evaluation.

    def _settings(self) -> GeneratedSettings:
        plan, split = self.plan, self.split
        names = [
            *split.held_out[: plan.test_instances],
            *split.training[: plan.training_instances],
        ]
        rollouts = EvaluationSettings(
            data=self.data / "held-out",
            instances=[self.instances[name] for name in names],
            open_sandbox=self.open_sandbox,
            grading=self.folder / "grading",
            window=plan.window,
            max_steps=plan.max_steps,
            max_new_tokens=plan.max_new_tokens,
            harness=self.harness,
        )
        return GeneratedSettings(
            rollouts, self.data / "training", self.trials(), self.folder, self.test
        )

    def _check_gate(self, policy: Path, name: str, folder: Path) -> None:
        on = self._settings()
        tried = self.split.held_out[: min(self.plan.gate_instances, self.plan.test_instances)]
        say(f"gate: rolling out the warm start on {len(tried)} held-out instances")
        tested = [self.instances[name] for name in tried]
        verdicts = roll_out(policy, name, on.rollouts, tested, folder)
        replies = reply_to_steps(policy, on, folder)
        found = GeneratedEvaluation(name, "", tuple(replies), tuple(verdicts))
        check_gate(found.resolved(tried).values(), found.executed().values())


def fitting(trajectories: Sequence[Trajectory], plan: GeneratedPlan) -> list[Trajectory]:
    """Those whose last prompt and reply fit into the plan's ``episode_tokens``."""
    if plan.episode_tokens is None:
        return list(trajectories)
    dialect, count = get_dialect("xml"), TokenCounter(load_tokenizer(plan.model, {}), {})
    kept = []
    for trajectory in trajectories:
        made = list(make_step_contexts(trajectory, dialect, plan.window, include_last=True))
        if made and isinstance(last := made[-1], StepContext):
            reply: Message = {"role": "assistant", "content": last.expert_reply}
            if count([*last.prompt, reply]) <= plan.episode_tokens:
                kept.append(trajectory)
    left_out = len(trajectories) - len(kept)
    say(f"left out: {left_out} trajectories of over {plan.episode_tokens} tokens")
    return kept


def shows_edit(context: StepContext) -> bool:
    """Whether the prompt shows each line that the expert's edit replaces; any other step does."""
    shown = "\n".join(message["content"] for message in context.prompt)
    old = (action.arguments.get("old_str", "") for action in read_actions(context.expert_action))
    return all(line.strip() in shown for text in old for line in text.splitlines())


def _tokens(output: Path) -> int:
    """Tokens that a run has forwarded, a prompt once per group; as TRL counts them for SFT.

    Fewer are computed than needed if the turns of an episode are read from the last one on.
    """
    rows = load_run(output).rows
    needed = [
        min(number(value) or 0.0, number(row.get(name.replace("_needed", "_computed"))) or 0.0)
        for row in rows
        for name, value in row.items()
        if name.startswith("tokens/") and name.endswith("_needed")
    ]
    if needed:
        return round(sum(needed))
    counted = [number(row.get("num_tokens")) or 0.0 for row in rows]
    return round(max(counted, default=0.0))
