"""The settings of an evaluation by name, and the baselines among them, which ask no policy.

``agent`` is :class:`~srl_swe.rollout.episode.Agent`; ``oracle`` and ``agentless`` are those of
:mod:`srl_swe.rollout.agentless`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import cast

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet

from srl_swe.bundled import bundled
from srl_swe.errors import UserError, did_you_mean
from srl_swe.progress import say
from srl_swe.replay import as_recorded, replay_trajectory
from srl_swe.rollout.agentless import LOCALIZE_PROMPT
from srl_swe.rollout.episode import Attempt, OfPolicy, OnReply, PromptTooLong, ask
from srl_swe.rollout.prompting import version_of_text
from srl_swe.sandbox import Sandbox
from srl_swe.trajectories import Reading, ReadReport, stream_trajectories
from srl_swe.types import Instance, Message, Observation, Step, StopReason, Trajectory


class Setting(StrEnum):
    """How instances are attempted."""

    AGENT = "agent"
    """The policy acts step by step."""
    ORACLE = "oracle"
    """The policy edits the files of the gold patch in one reply (the paper, section 4)."""
    AGENTLESS = "agentless"
    """The policy names the files to edit, then edits them (the paper, end to end)."""
    GOLD = "gold"
    """The gold patch is the prediction."""
    EMPTY = "empty"
    """Nothing is changed."""
    REPLAY = "replay"
    """An expert's recorded actions are executed again."""
    ANSWER = "answer"
    """The policy solves the problem in one reply; in domains of worked solutions."""

    @property
    def asks_policy(self) -> bool:
        """Whether it needs a policy."""
        return self in {Setting.AGENT, Setting.ORACLE, Setting.AGENTLESS, Setting.ANSWER}

    @property
    def edits_files(self) -> bool:
        """Whether the policy edits whole files in one reply."""
        return self in {Setting.ORACLE, Setting.AGENTLESS}

    @property
    def opens_sandboxes(self) -> bool:
        """Whether its attempts use their sandboxes."""
        return self not in {Setting.GOLD, Setting.EMPTY, Setting.ANSWER}

    @property
    def max_new_tokens(self) -> int:
        """Tokens of a reply unless the user asks for others: Agentless-mini's for whole patches."""
        return 4096 if self.edits_files or self is Setting.ANSWER else 1024

    def decisive(self, trajectories: str) -> dict[str, object]:
        """Additions to a run's config; nothing for the agent, as in older folders.

        ``trajectories``: the source of the experts of ``replay``.
        """
        match self:
            case Setting.AGENT:
                return {}
            case Setting.AGENTLESS:
                return {
                    "setting": self.value,
                    "localize_prompt": version_of_text(LOCALIZE_PROMPT),
                }
            case Setting.REPLAY:
                return {"setting": self.value, "trajectories": trajectories}
            case Setting.ORACLE | Setting.GOLD | Setting.EMPTY | Setting.ANSWER:
                return {"setting": self.value}

    def check(self, instances: Sequence[Instance]) -> None:
        """Raise UserError if an instance lacks the gold patch that the setting needs."""
        if self not in {Setting.ORACLE, Setting.GOLD}:
            return
        for instance in instances:
            try:
                is_patch = bool(PatchSet(instance.gold_patch))
            except UnidiffParseError:
                is_patch = False
            if not is_patch:
                raise UserError(
                    f"{instance.instance_id} has no gold patch, which --setting {self} needs; "
                    "leave it out by --exclude, or use another setting."
                )


def find_setting(name: str) -> Setting:
    """The setting of that name. Raises UserError."""
    try:
        return Setting(name)
    except ValueError:
        known = [setting.value for setting in Setting]
        hint = did_you_mean(name, known)
        raise UserError(f"unknown setting {name!r}.{hint} Known: {', '.join(known)}.") from None


@dataclass(frozen=True, slots=True)
class Baseline:
    """Predicts the gold patch, or with ``gold`` False, an empty one; uses no sandbox."""

    gold: bool

    @property
    def name(self) -> str:
        """``gold`` or ``empty``."""
        return "gold" if self.gold else "empty"

    def __call__(
        self, instance: Instance, sandbox: Sandbox, on_reply: OnReply = lambda completion: None
    ) -> Trajectory:
        """A trajectory without steps."""
        return Trajectory(
            instance.instance_id,
            (),
            problem_statement=instance.problem_statement,
            stop_reason=StopReason.SUBMITTED,
            patch=instance.gold_patch if self.gold else "",
            model=self.name,
        )

    def with_seed(self, seed: int) -> Baseline:
        """Itself: nothing is sampled."""
        return self


@dataclass(frozen=True, slots=True)
class Answering(OfPolicy):
    """Asks a policy for a whole solution; its ``patch`` is the answer in the reply.

    ``prompt``: the messages of a problem. ``read_answer``: None for a reply without an answer.
    """

    prompt: Callable[[Instance], list[Message]]
    read_answer: Callable[[str], str | None]

    def __call__(
        self, instance: Instance, sandbox: Sandbox, on_reply: OnReply = lambda completion: None
    ) -> Trajectory:
        """A trajectory of one step, the reply. Raises PolicyError."""
        record = Trajectory(
            instance.instance_id, (), instance.problem_statement, StopReason.TOKEN_LIMIT, ""
        )
        record = replace(record, model=self.name)
        try:
            reply = ask(self.policy, self.prompt(instance), on_reply)
        except PromptTooLong:
            return record
        answer = self.read_answer(reply.text)
        found = "no answer in the reply" if answer is None else f"answer: {answer}"
        return replace(
            record,
            steps=(Step(reply.text, None, Observation(found)),),
            stop_reason=StopReason.TOKEN_LIMIT if reply.truncated else StopReason.SUBMITTED,
            patch=answer or "",
        )


def no_sandbox(instance: Instance) -> AbstractContextManager[Sandbox]:
    """In place of a sandbox, for attempts that use none: opens nothing."""
    return nullcontext(cast(Sandbox, None))


@dataclass(frozen=True, slots=True)
class Experts:
    """Executes an expert's recorded trajectory of the instance, and takes its patch."""

    trajectories: Mapping[str, Trajectory]
    """By instance id."""

    @classmethod
    def load(cls, source: str, instances: Sequence[Instance]) -> Experts:
        """One trajectory per instance: the first recorded as resolved, else the first.

        Raises UserError if ``source`` has none of these instances.
        """
        ids = {instance.instance_id for instance in instances}
        chosen: dict[str, Trajectory] = {}
        path = bundled("trajectories") / "starter.jsonl" if source == "starter" else source
        for trajectory in stream_trajectories(path, Reading(), ReadReport()):
            if trajectory.instance_id in ids:
                held = chosen.get(trajectory.instance_id)
                if held is None or (trajectory.resolved and not held.resolved):
                    chosen[trajectory.instance_id] = trajectory
        if not chosen:
            raise UserError(
                f"{source} has no trajectory of these instances to replay; name another source by "
                "--trajectories."
            )
        if left := len(ids) - len(chosen):
            say(f"{left} of {len(ids)} instances have no trajectory in {source}")
        return cls(chosen)

    @property
    def name(self) -> str:
        """``replay``."""
        return Setting.REPLAY.value

    def __call__(
        self, instance: Instance, sandbox: Sandbox, on_reply: OnReply = lambda completion: None
    ) -> Trajectory:
        """The trajectory with fresh observations and a fresh patch. Raises SandboxError."""
        expert = self.trajectories[instance.instance_id]
        replayed = replay_trajectory(expert, instance, sandbox)
        fresh = as_recorded(expert, instance, replayed)
        return replace(fresh, model=self.name, resolved=None)

    def with_seed(self, seed: int) -> Experts:
        """Itself: nothing is sampled."""
        return self


def make_baseline(
    setting: Setting, source: str, instances: Sequence[Instance]
) -> tuple[Attempt, Sequence[Instance]]:
    """The attempt of a setting that asks no policy, and the instances that it can attempt.

    ``source``: of the trajectories that ``replay`` executes. Raises UserError as
    :meth:`Experts.load`.
    """
    if setting is not Setting.REPLAY:
        return Baseline(gold=setting is Setting.GOLD), instances
    experts = Experts.load(source, instances)
    return experts, [i for i in instances if i.instance_id in experts.trajectories]
