"""Experts at work as a whole: verified trajectories, and the states of a policy with their answers.

``make_expert_trajectories`` is ``srl-swe experts``; ``label_rollouts`` is the first half of
``srl-swe steps --on-policy``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from srl_swe.engines import GraderSettings, SandboxSettings, harness_for, sandboxes_for
from srl_swe.errors import UserError
from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.verdicts import needing_tests
from srl_swe.evaluation_run import SAMPLE_FOLDER
from srl_swe.experts import Expert, ExpertAgent, LabellingAgent, find_leak
from srl_swe.experts.expert import EXPERT_VERSION
from srl_swe.experts.gold import check_gold
from srl_swe.files import claim, held_alone, refuse_other
from srl_swe.progress import say
from srl_swe.rollout import Attempt, Sample, predictions, rollout_samples
from srl_swe.rollout.agents import AgentSettings, opening, policy_name
from srl_swe.rollout.attempts import Setting
from srl_swe.rollout.batch import ROLLOUTS_FILE, load_rollouts
from srl_swe.rollout.endpoint import Endpoint, VllmSettings, find_endpoint, is_served
from srl_swe.rollout.episode import Agent, EpisodeLimits
from srl_swe.trajectories.jsonl import save_jsonl
from srl_swe.types import Instance, Outcome, StopReason, Trajectory, Verdict


@dataclass(frozen=True, slots=True)
class ExpertSettings:
    """How experts act and how their patches are graded.

    ``per_instance``: trajectories of an instance, by the seeds ``seed``, ``seed`` + 1 and so on.
    ``brief``: see :class:`srl_swe.experts.Expert`. ``bench`` names the instances in the run's
    config. ``grader``: the runner of the tests.
    """

    per_instance: int = 1
    seed: int = 0
    brief: bool = False
    max_steps: int = 40
    bench: str = ""
    workers: int = 2
    sandboxes: SandboxSettings = field(default_factory=SandboxSettings)
    grader: GraderSettings = field(default_factory=lambda: GraderSettings("sandbox"))
    test_timeout_s: int = 1800


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A trajectory that was not written, and why."""

    instance_id: str
    seed: int
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ExpertTrajectories:
    """The written trajectories, in the order of the instances, and those left out."""

    kept: tuple[Trajectory, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many were left out, by reason."""
        return Counter(left.reason for left in self.left_out)


def make_expert_trajectories(
    instances: Sequence[Instance], out: Path, settings: ExpertSettings
) -> ExpertTrajectories:
    """Let experts resolve the instances in sandboxes, and write the trajectories to ``out``.

    The folder ``NAME-run`` beside ``out`` holds rollouts and verdicts: a second call keeps them,
    and may ask for more per instance. Left out are trajectories that the tests do not resolve,
    that use an unseen part of the gold patch before an edit, or that repeat another. Raises
    UserError for an instance without tests, and if the folder holds a run of another config.
    """
    settings.grader.check(instances)
    folder = out.with_name(f"{out.stem}-run")
    config = {
        "bench": settings.bench,
        "expert": EXPERT_VERSION,
        "seed": settings.seed,
        "max_steps": settings.max_steps,
        **({"brief": True} if settings.brief else {}),
        **settings.sandboxes.decisive,
    }
    expert, limits = Expert(brief=settings.brief), EpisodeLimits(steps=settings.max_steps)
    agent = ExpertAgent(expert, limits)
    seeds = range(settings.seed, settings.seed + settings.per_instance)
    with held_alone(folder):
        claim(folder, config)
        attempts = [agent.with_seed(seed) for seed in seeds]
        rollouts = _roll_out(folder, attempts, instances, settings.sandboxes, settings.workers)
        verdicts = [_grade(instances, sample, folder / "grade", settings) for sample in rollouts]
        made = _choose(instances, dict(zip(seeds, rollouts, strict=True)), verdicts)
        save_jsonl(out, made.kept)
    return made


def _choose(
    instances: Sequence[Instance],
    rollouts: Mapping[int, Sequence[Trajectory]],
    verdicts: Sequence[Mapping[str, Verdict]],
) -> ExpertTrajectories:
    """The rollouts to keep, by seed; ``verdicts`` are in the same order."""
    kept, left_out, known = list[Trajectory](), list[LeftOut](), set[tuple[str, ...]]()
    for place, instance in enumerate(instances):
        for (seed, sample), of_sample in zip(rollouts.items(), verdicts, strict=True):
            rollout, name = sample[place], instance.instance_id
            verdict = of_sample.get(name) or Verdict.broken(name, _why_failed(rollout))
            calls = (name, *(step.action.text for step in rollout.steps if step.action))
            if rollout.stop_reason is StopReason.POLICY_ERROR:
                left_out.append(LeftOut(name, seed, "unusable_gold_patch", verdict.detail))
            elif verdict.outcome is not Outcome.RESOLVED:
                left_out.append(LeftOut(name, seed, verdict.outcome.value, verdict.detail))
            elif leak := find_leak(rollout, instance.gold_patch):
                left_out.append(LeftOut(name, seed, "leak", leak))
            elif calls in known:
                left_out.append(LeftOut(name, seed, "repeated"))
            else:
                kept.append(replace(rollout, resolved=True))
            known.add(calls)
    return ExpertTrajectories(tuple(kept), tuple(left_out))


def _why_failed(rollout: Trajectory) -> str:
    last = rollout.steps[-1].observation if rollout.steps else None
    return last.text.removeprefix("policy error: ") if last else "it has no verdict"


def _grade(
    instances: Sequence[Instance],
    rollouts: Sequence[Trajectory],
    folder: Path,
    settings: ExpertSettings,
) -> dict[str, Verdict]:
    """The verdicts of one sample; equal patches are tested once per instance."""
    submitted = predictions(rollouts, "gold-expert")
    ids = {prediction.instance_id for prediction in submitted}
    attempted = [instance for instance in instances if instance.instance_id in ids]
    verdicts = grade(
        attempted,
        submitted,
        folder,
        max_workers=settings.workers,
        timeout_s=settings.test_timeout_s,
        report=say,
        harness=harness_for(needing_tests(attempted, submitted), settings.grader),
    )
    return {verdict.instance_id: verdict for verdict in verdicts}


@dataclass(frozen=True, slots=True)
class OnPolicySettings:
    """How a policy is rolled out while an expert is asked in its states.

    ``agent``: prompting, sampling and limits. ``episodes``: rollouts of an instance, by the seeds
    ``agent.seed``, + 1 and so on. ``expert_actions``: the chance, per step, that the expert's
    action is executed in place of the policy's. ``brief``: see :class:`srl_swe.experts.Expert`.
    ``bench`` names the instances in the config.
    """

    agent: AgentSettings
    bench: str = ""
    episodes: int = 1
    expert_actions: float = 0.0
    brief: bool = False
    workers: int = 2
    batch_size: int | None = None
    sandboxes: SandboxSettings = field(default_factory=SandboxSettings)
    vllm: VllmSettings | None = None

    def config(self, policy: str | Endpoint) -> dict[str, object]:
        """Everything that decides the rollouts and their labels."""
        decisive = {"bench": self.bench, **self.agent.of(policy), **self.sandboxes.decisive}
        if self.vllm is not None:
            decisive["serve"] = "vllm"
        if self.brief:
            decisive["brief"] = True
        return {**decisive, "expert": EXPERT_VERSION, "expert_actions": self.expert_actions}


def label_rollouts(
    policy: str | Endpoint, instances: Sequence[Instance], folder: Path, settings: OnPolicySettings
) -> list[Trajectory]:
    """Roll the policy out in ``folder``, an expert being asked before each step.

    Rollouts that the folder holds are kept, except those that infrastructure has ended, which are
    left out of the result. The policy is opened only if a rollout is missing. Raises UserError if
    the folder holds a run of another config, if several episodes would be equal, or for an instance
    whose gold patch an expert can't use.
    """
    if settings.episodes > 1 and not settings.agent.temperature:
        raise UserError(
            f"{settings.episodes} episodes at temperature 0 are equal: raise --temperature, for "
            "instance to 1.0, or take one episode."
        )
    for instance in instances:
        check_gold(instance)
    policy = find_endpoint(policy) if is_served(policy) else policy
    name, config = policy_name(policy), settings.config(policy)
    batch = settings.batch_size or settings.workers
    refuse_other(folder, config)
    with (
        held_alone(folder),
        opening(
            policy, settings.agent, Setting.AGENT, batch, settings.vllm, folder / "logs"
        ) as open_attempt,
    ):
        folders = [_sample_folder(folder, number) for number in range(settings.episodes)]
        held = [load_rollouts(where / ROLLOUTS_FILE, name) for where in folders]
        left = [i for i in instances if any(i.instance_id not in kept for kept in held)]
        if left:
            agent = open_attempt()
            assert isinstance(agent, Agent)
            claim(folder, config)
            asked = LabellingAgent(agent, Expert(brief=settings.brief), settings.expert_actions)
            seeds = range(settings.agent.seed, settings.agent.seed + settings.episodes)
            attempts = [asked.with_seed(seed) for seed in seeds]
            rollouts = _roll_out(folder, attempts, instances, settings.sandboxes, settings.workers)
        else:
            rollouts = [[kept[i.instance_id] for i in instances] for kept in held]
    ended = [rollout for sample in rollouts for rollout in sample]
    whole = [r for r in ended if r.stop_reason is None or not r.stop_reason.is_failure]
    if len(whole) < len(ended):
        say(
            f"warning: infrastructure has ended {len(ended) - len(whole)} of {len(ended)} "
            "rollouts; run the same command again to try these again."
        )
    return whole


def _roll_out(
    folder: Path,
    attempts: Sequence[Attempt],
    instances: Sequence[Instance],
    sandboxes: SandboxSettings,
    workers: int,
) -> list[list[Trajectory]]:
    """The rollouts of each attempt; images are built or pulled only if a rollout is missing."""
    samples = [Sample(_sample_folder(folder, n), attempt) for n, attempt in enumerate(attempts)]
    held = [load_rollouts(one.folder / ROLLOUTS_FILE, one.attempt.name) for one in samples]
    left = [i for i in instances if any(i.instance_id not in kept for kept in held)]
    open_sandbox = sandboxes_for(left, sandboxes, all_images=False)
    return rollout_samples(samples, instances, open_sandbox, workers=workers)


def _sample_folder(folder: Path, number: int) -> Path:
    """The folder of a seed, counted from 0; a single seed has one too, as more may follow."""
    return folder / f"{SAMPLE_FOLDER}{number + 1}"
