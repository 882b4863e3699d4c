"""The plan of a study on generated instances: arms, budgets, and which instance serves for what.

Instances of some repositories are held out whole. Of the others, a small share gives the steps of
the warm start, and the rest gives the further steps on which the arms are compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from srl_swe.errors import UserError, did_you_mean
from srl_swe.experiments.experiment import Plan
from srl_swe.files import append_line, damage_named, drop_torn_line, read_json_lines
from srl_swe.steps.prompt import Window
from srl_swe.types import Instance, Trajectory

GROUP = 8
"""Replies per expert step in SRL, episodes per instance in RLVR: those of the recipes."""
STEPS_PER_UPDATE = 8
"""Expert steps per update of SFT and SRL: those of the recipes."""
RESULTS_FILE = "results.jsonl"
_REMEDY = "delete that line, and its arm is evaluated again"


@dataclass(frozen=True, slots=True)
class ArmPhase:
    """One training of an arm, by the recipe ``generated-METHOD``.

    ``share``: of the arm's budget. ``same_tokens``: as many passes over the further steps as make
    the tokens of SRL, not one pass. ``on_policy``: the experts' answers in states that the warm
    start has reached, in place of the further steps.
    """

    method: Literal["sft", "srl", "rlvr"]
    share: float = 1.0
    reward: str = "similarity"
    filtered: bool = True
    same_tokens: bool = False
    on_policy: bool = False


@dataclass(frozen=True, slots=True)
class GeneratedArm:
    """One way to continue from the warm start."""

    name: str
    label: str
    phases: tuple[ArmPhase, ...] = ()


ARMS = (
    GeneratedArm("warm", "warm start"),
    GeneratedArm("sft", "SFT", (ArmPhase("sft"),)),
    GeneratedArm("sft-tokens", "SFT, tokens of SRL", (ArmPhase("sft", same_tokens=True),)),
    GeneratedArm("srl", "SRL", (ArmPhase("srl"),)),
    GeneratedArm(
        "srl-unfiltered", "SRL without dynamic sampling", (ArmPhase("srl", filtered=False),)
    ),
    GeneratedArm("srl-structural", "SRL, structural", (ArmPhase("srl", reward="structural"),)),
    GeneratedArm("srl-rule", "SRL, rule", (ArmPhase("srl", reward="rule"),)),
    GeneratedArm("srl-on-policy", "SRL on its own states", (ArmPhase("srl", on_policy=True),)),
    GeneratedArm("rlvr", "RLVR", (ArmPhase("rlvr"),)),
    GeneratedArm(
        "srl-rlvr", "SRL, then RLVR", (ArmPhase("srl", share=0.5), ArmPhase("rlvr", share=0.5))
    ),
)
HOUR_ARMS = ("warm", "sft", "srl")


def get_arms(names: Sequence[str]) -> list[GeneratedArm]:
    """The named arms in the order of :data:`ARMS`. Raises UserError for an unknown name."""
    known = [arm.name for arm in ARMS]
    if unknown := [name for name in names if name not in known]:
        hint = did_you_mean(unknown[0], known)
        raise UserError(f"no arm {unknown[0]!r}.{hint} Known: {', '.join(known)}.")
    return [arm for arm in ARMS if arm.name in names]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedPlan(Plan):
    """Everything that decides the results. Counts are upper limits; a small suite has fewer.

    ``held_out``: repositories that are held out; empty chooses a quarter of them, at least one.
    ``warm_steps``, ``further_steps``: expert steps of the warm start and of the arms.
    ``step_instances``: held-out instances with all steps evaluated; of ``edit_instances`` the last
    edit is executed; ``test_instances`` are rolled out. ``training_instances``: training
    instances for the same three. ``gate_instances``: held-out rollouts of the warm start by which
    the study continues or stops; 0 for no gate. ``gpu``: train on a GPU in bf16.
    """

    bench: str = ""
    trajectories: str = ""
    model: str = ""
    held_out: tuple[str, ...] = ()
    arms: tuple[str, ...] = tuple(arm.name for arm in ARMS)
    seeds: int = 3
    warm_steps: int = 320
    further_steps: int = 256
    step_instances: int = 30
    edit_instances: int = 100
    test_instances: int = 100
    training_instances: int = 10
    gate_instances: int = 40
    observation_chars: int = 900
    max_steps: int = 14
    max_new_tokens: int = 256
    gpu: bool = False

    @property
    def window(self) -> Window:
        """The whole history with its thoughts, since RLVR trains on an episode as one sequence."""
        return Window(pairs=None, observation_chars=self.observation_chars, thoughts=True)


Budget = Literal["hour", "night", "gpu"]
BUDGETS: Mapping[str, GeneratedPlan] = {
    "hour": GeneratedPlan(
        arms=HOUR_ARMS,
        seeds=1,
        warm_steps=120,
        further_steps=40,
        step_instances=6,
        edit_instances=16,
        test_instances=12,
        training_instances=2,
        gate_instances=12,
    ),
    "night": GeneratedPlan(),
    "gpu": GeneratedPlan(
        warm_steps=1024,
        further_steps=2048,
        step_instances=60,
        edit_instances=200,
        test_instances=200,
        training_instances=20,
        gpu=True,
    ),
}
QUICK = GeneratedPlan(
    arms=HOUR_ARMS,
    seeds=1,
    warm_steps=8,
    further_steps=8,
    step_instances=1,
    edit_instances=2,
    test_instances=2,
    training_instances=1,
    gate_instances=0,
    max_steps=2,
    max_new_tokens=24,
)
"""Every part of an hour's study, too short to learn anything; for tests."""


@dataclass(frozen=True, slots=True)
class Split:
    """Instances by use; all ids of training instances have an expert trajectory.

    ``held_out``: those of ``held_out_repos``, with an expert trajectory first.
    """

    held_out_repos: tuple[str, ...]
    training: tuple[str, ...]
    held_out: tuple[str, ...]


def split_instances(
    instances: Sequence[Instance], trajectories: Sequence[Trajectory], held_out: Sequence[str]
) -> Split:
    """Split by repository; instances are in an order that depends on their names alone.

    ``held_out`` empty: a quarter of the repositories, those with the lowest digests, at least
    one. Raises UserError for an unknown repository, or if nothing is left on one of the sides.
    """
    repos = sorted({instance.repo for instance in instances})
    if unknown := sorted(set(held_out) - set(repos)):
        hint = did_you_mean(unknown[0], repos)
        raise UserError(f"--held-out {unknown[0]}: no such repository.{hint} {', '.join(repos)}.")
    apart = set(held_out) or set(sorted(repos, key=_digest)[: max(1, len(repos) // 4)])
    shown = {trajectory.instance_id for trajectory in trajectories}
    ordered = sorted(instances, key=lambda instance: _digest(instance.instance_id))
    held = [instance.instance_id for instance in ordered if instance.repo in apart]
    held.sort(key=lambda name: name not in shown)
    training = [i.instance_id for i in ordered if i.repo not in apart and i.instance_id in shown]
    if len(training) < 2 or not held:
        raise UserError(
            f"{len(training)} training instances with a trajectory and {len(held)} held-out "
            "instances: a study needs two and one; add repositories, or choose by --held-out."
        )
    return Split(tuple(sorted(apart)), tuple(training), tuple(held))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Costs:
    """Mean tokens of the further steps, and of a whole episode of an expert."""

    prompt: float
    reply: float
    episode: float

    @property
    def of_imitation(self) -> float:
        """Tokens of one expert step in SFT: prompt and reply."""
        return self.prompt + self.reply

    @property
    def of_srl(self) -> float:
        """Tokens of one expert step in SRL, sampled and then trained on, its prompt once each."""
        return 2 * (self.prompt + GROUP * self.reply)

    @property
    def passes(self) -> int:
        """Passes of SFT over the steps that take SRL's tokens."""
        return max(1, round(self.of_srl / self.of_imitation))

    def rlvr_updates(self, further_steps: int, share: float = 1.0) -> int:
        """Updates of RLVR, each with a group of episodes, that take SRL's tokens."""
        tokens = share * further_steps * self.of_srl
        return max(1, round(tokens / (2 * GROUP * self.episode)))


@dataclass(frozen=True, slots=True)
class GeneratedResult:
    """The costs of one arm under one seed; its evaluation is in its folder.

    ``expert_steps``: distinct expert steps trained on after the warm start. ``tokens``: forwarded
    in sampling and in training, a prompt once per group. ``seconds``: of training.
    """

    arm: str
    seed: int
    expert_steps: int
    tokens: int
    seconds: float


def append_result(folder: Path, result: GeneratedResult) -> None:
    """Add a line to the results."""
    append_line(folder / RESULTS_FILE, json.dumps(asdict(result)))


def load_results(folder: Path) -> list[GeneratedResult]:
    """All results in the folder, in file order. Raises UserError for a damaged line."""
    path = folder / RESULTS_FILE
    drop_torn_line(path)
    adapter, results = TypeAdapter(GeneratedResult), []
    for where, record in read_json_lines(path, _REMEDY):
        with damage_named(where, _REMEDY):
            results.append(adapter.validate_python(record))
    return results


GATE = (0.05, 0.8)
"""The lowest and the highest share that the warm start may resolve."""


def check_gate(resolved: int, of: int) -> None:
    """Raises UserError if a comparison of arms from this warm start could show nothing.

    >>> check_gate(2, 40)
    """
    share = resolved / of if of else 0.0
    found = f"the warm start resolves {resolved} of {of} held-out instances"
    if share < GATE[0]:
        raise UserError(
            f"{found}, below {GATE[0]:.0%}: every arm would stay near 0. Raise --warm-steps, take "
            "a larger --model, or generate easier instances (one edit each); --no-gate continues."
        )
    if share > GATE[1]:
        raise UserError(
            f"{found}, above {GATE[1]:.0%}: no arm could gain much. Lower --warm-steps, or "
            "generate harder instances (two edits, over two files); --no-gate continues."
        )


_SECONDS_PER_TOKEN = {"train": 1 / 200, "sample": 1 / 90, "read": 1 / 850}
"""Of SmolLM2-135M on two cores (docs/study.md)."""
_ROLLOUT_S = 40.0


def expected_seconds(arm: GeneratedArm, plan: GeneratedPlan, costs: Costs) -> float:
    """Seconds of an arm's training and evaluation on two cores, for the ETA; the model is 135M."""
    train, sample, read = _SECONDS_PER_TOKEN.values()
    step_s = costs.of_imitation * train
    group_s = costs.of_srl / 2 * train + GROUP * costs.reply * sample + costs.prompt * read
    episode_s = costs.episode * (train + read) + 8 * costs.reply * sample
    total = 0.0
    for phase in arm.phases:
        steps = phase.share * plan.further_steps
        match phase.method:
            case "sft":
                total += steps * step_s * (costs.passes if phase.same_tokens else 1)
            case "srl":
                total += steps * group_s
            case "rlvr":
                updates = costs.rlvr_updates(plan.further_steps, phase.share)
                total += updates * GROUP * episode_s
    if not arm.phases:
        total += plan.warm_steps * step_s
    replies = 8 * (plan.step_instances + plan.training_instances) + plan.edit_instances
    total += replies * (costs.prompt * read + costs.reply * sample)
    total += (plan.test_instances + plan.training_instances) * _ROLLOUT_S
    return total


def with_arms(plan: GeneratedPlan, names: Sequence[str]) -> GeneratedPlan:
    """The plan with these arms and the warm start, in the order of :data:`ARMS`."""
    return replace(plan, arms=tuple(arm.name for arm in get_arms(["warm", *names])))
