"""The plan of a study on generated instances: arms, budgets, and which instance serves for what.

Instances of some repositories are held out whole. Of the others, at most half gives the further
steps on which the arms are compared, and the rest gives the steps of the warm start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from srl_swe.errors import UserError, did_you_mean
from srl_swe.experiments.experiment import NamedArm, Plan, get_arms
from srl_swe.steps.prompt import Window
from srl_swe.types import Instance, Trajectory

GROUP = 8
"""Replies per expert step in SRL, episodes per instance in RLVR: those of the recipes."""
STEPS_PER_UPDATE = 8
"""Expert steps per update of SFT and SRL: those of the recipes."""


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
class GeneratedArm(NamedArm):
    """One way to continue from the warm start."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedPlan(Plan):
    """Everything that decides the results. Counts are upper limits; a small suite has fewer.

    ``held_out``: repositories that are held out; empty chooses a quarter of them, at least one.
    ``warm_steps``, ``further_steps``: expert steps of the warm start and of the arms.
    ``step_instances``: held-out instances with all steps evaluated; of ``edit_instances`` the last
    edit is executed; ``test_instances`` are rolled out. ``training_instances``: training
    instances for the same three. ``gate_instances``: held-out rollouts of the warm start by which
    the study continues or stops; 0 for no gate. ``episode_tokens``: experts' trajectories with
    more tokens are left out; None for no limit. ``gpu``: train on a GPU in bf16.
    """

    bench: str = ""
    trajectories: str = ""
    model: str = ""
    held_out: tuple[str, ...] = ()
    arms: tuple[str, ...] = tuple(arm.name for arm in ARMS)
    seeds: int = 3
    warm_steps: int = 240
    further_steps: int = 128
    step_instances: int = 10
    edit_instances: int = 100
    test_instances: int = 100
    training_instances: int = 5
    gate_instances: int = 40
    episode_tokens: int | None = 2500
    observation_chars: int = 1600
    max_steps: int = 14
    max_new_tokens: int = 256
    gpu: bool = False

    @property
    def window(self) -> Window:
        """All of the history with its thoughts: SFT and RLVR read an episode once."""
        return Window(None, self.observation_chars, thoughts=True)


Budget = Literal["hour", "night", "gpu"]
BUDGETS: Mapping[str, GeneratedPlan] = {
    "hour": GeneratedPlan(
        arms=HOUR_ARMS,
        seeds=1,
        warm_steps=200,
        further_steps=32,
        step_instances=4,
        edit_instances=100,
        test_instances=12,
        training_instances=1,
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
        episode_tokens=6000,
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
    episode_tokens=None,
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


def held_out_by_rows(instances: Sequence[Instance], splits: Mapping[str, str]) -> tuple[str, ...]:
    """The repositories whose rows state the split ``test``; empty if no row states ``train``.

    ``splits``: by instance. Raises UserError if no row states ``test`` though some are of
    ``train``, or if a repository has rows of both.
    """
    repos = {
        split: {i.repo for i in instances if splits.get(i.instance_id) == split}
        for split in ("train", "test")
    }
    if not repos["train"]:
        return ()
    if both := sorted(repos["train"] & repos["test"]):
        raise UserError(
            f"{both[0]} has rows of the splits train and test: a repository that is held out must "
            "not be trained on; choose by --held-out."
        )
    if not repos["test"]:
        raise UserError(
            "nothing is held out: no row is of the split test; name all.parquet of `srl-swe "
            "generate`, made with --hold-out, or choose by --held-out."
        )
    return tuple(sorted(repos["test"]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Costs:
    """Mean tokens of the further steps, and the ``turns`` of an expert's episode.

    ``imitation``: tokens that a step adds to those before it, all of it if its prompt leaves out
    some of them. Each is read once, in SFT and in rollouts.
    """

    prompt: float
    reply: float
    imitation: float
    turns: float

    @property
    def episode(self) -> float:
        """Tokens of a whole episode."""
        return self.turns * self.imitation

    @property
    def of_srl(self) -> float:
        """Tokens of one expert step in SRL, sampled and then trained on, its prompt once each."""
        return 2 * (self.prompt + GROUP * self.reply)

    @property
    def passes(self) -> int:
        """Passes of SFT over the steps that take SRL's tokens."""
        return max(1, round(self.of_srl / self.imitation))

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


GATE = (0.05, 0.8)
"""The lowest and the highest share of the warm start, of rollouts or of executed edits."""


def check_gate(resolved: Collection[bool], edits: Collection[bool]) -> None:
    """Raises UserError if a comparison of arms from this warm start could show nothing.

    ``resolved``: held-out rollouts of the warm start; ``edits``: whether its executed edits pass.
    One of the two shares within :data:`GATE` is enough.

    >>> check_gate([False] * 12, [True, False])
    """
    shares = [sum(found) / len(found) for found in (resolved, edits) if found]
    if not shares:
        raise UserError("no sandbox of the warm start's evaluation held; run the command again.")
    if any(GATE[0] <= share <= GATE[1] for share in shares):
        return
    found = (
        f"the warm start resolves {sum(resolved)} of {len(resolved)} held-out instances, and "
        f"{sum(edits)} of {len(edits)} of its edits pass"
    )
    if max(shares) < GATE[0]:
        raise UserError(
            f"{found}, below {GATE[0]:.0%}: every arm would stay near 0. Raise --warm-steps, take "
            "a larger --model, or generate easier instances (one edit each); --no-gate continues."
        )
    raise UserError(
        f"{found}, above {GATE[1]:.0%}: no arm could gain much. Lower --warm-steps, or "
        "generate harder instances (two edits, over two files); --no-gate continues."
    )


_TRAIN_S, _SAMPLE_S, _READ_S = 1 / 100, 1 / 90, 1 / 850
"""Seconds per token of SmolLM2-135M on two cores (docs/study.md)."""
_NEW_SHARE = 0.8
"""Share of an evaluated step's prompt that no earlier prompt began with."""
_SANDBOX_S = 3.0
"""Seconds of containers and tests per executed edit and per rollout."""


def expected_seconds(arm: GeneratedArm, plan: GeneratedPlan, costs: Costs) -> float:
    """Seconds of an arm's training and evaluation on two cores, for the ETA; the model is 135M."""
    step_s = costs.imitation * _TRAIN_S
    group_s = costs.of_srl / 2 * _TRAIN_S + GROUP * costs.reply * _SAMPLE_S
    group_s += costs.prompt * _READ_S
    rollout_s = costs.episode * _READ_S + costs.turns * costs.reply * _SAMPLE_S + _SANDBOX_S
    episode_s = rollout_s + costs.episode * _TRAIN_S
    total = 0.0
    for phase in arm.phases:
        steps = phase.share * plan.further_steps
        match phase.method:
            case "sft":
                total += steps * step_s * (costs.passes if phase.same_tokens else 1)
            case "srl":
                total += steps * group_s
                total += phase.on_policy * steps / costs.turns * rollout_s
            case "rlvr":
                updates = costs.rlvr_updates(plan.further_steps, phase.share)
                total += updates * GROUP * episode_s
    if not arm.phases:
        total += plan.warm_steps * step_s
    replies = costs.turns * (plan.step_instances + plan.training_instances) + plan.edit_instances
    total += replies * (_NEW_SHARE * costs.prompt * _READ_S + costs.reply * _SAMPLE_S)
    total += plan.edit_instances * _SANDBOX_S
    return total + (plan.test_instances + plan.training_instances) * rollout_s


def with_arms(plan: GeneratedPlan, names: Sequence[str]) -> GeneratedPlan:
    """The plan with these arms and the warm start, in the order of :data:`ARMS`."""
    return replace(plan, arms=tuple(arm.name for arm in get_arms(ARMS, ["warm", *names])))
