"""The expert: the next action in any state of an episode.

It knows the gold patch and acts like a person who does not: it searches for words of the issue,
views the code, reproduces the symptom, edits, runs the tests and submits. The state is derived from
the steps so far and from the sandbox, whoever acted: an edit that is already made is not made
again, and a wrong one is undone.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from srl_swe.dialects import ReplyFormat, UnwritableStep, get_dialect
from srl_swe.errors import PolicyError, SandboxError, UserError
from srl_swe.experts.gold import Gold, read_tree
from srl_swe.experts.moves import BRIEF, Habits, Situation, next_move
from srl_swe.experts.reading import Issue, Seen
from srl_swe.experts.thoughts import write_thought
from srl_swe.rollout.episode import Episode, EpisodeLimits, OnReply, Rules
from srl_swe.sandbox import Sandbox
from srl_swe.types import Action, ExpertReply, Instance, Step, Trajectory

EXPERT_NAME, BRIEF_NAME = "gold-expert", "gold-expert-brief"
"""``model`` of its trajectories."""
EXPERT_VERSION = 2
"""Another version may act differently under the same seed."""
XML = get_dialect("xml")
"""The dialect whose tools the expert calls."""


@dataclass(frozen=True, slots=True)
class Expert:
    """Answers in any state; equal seeds, states and histories give equal answers.

    ``seed`` decides order, tools, phrases, and wrong turns that it leaves again. ``brief``: only
    the necessary steps, in one order and in the same words, for policies that learn little.
    """

    seed: int = 0
    brief: bool = False
    _golds: dict[tuple[str, str], Gold] = field(default_factory=dict, compare=False, repr=False)

    def act(self, instance: Instance, history: Sequence[Step], sandbox: Sandbox) -> ExpertReply:
        """The expert's next thought and action after ``history``, in the sandbox as it is now.

        The sandbox is only read. Its first call for an instance needs the objects of the base
        commit. Raises PolicyError for a gold patch that an expert can't use, and SandboxError if
        the infrastructure fails or the working tree can't be read.
        """
        seen = Seen(Issue(instance.problem_statement), history)
        gold = self._gold(instance, sandbox)
        habits = BRIEF if self.brief else Habits.of(self.seed, instance.instance_id)
        tree = read_tree(gold, instance, sandbox)
        here = Situation(instance, gold, tree, seen, habits, self._rng(instance, "turn"))
        move = next_move(here)
        action = _in_folder(move.action, instance, sandbox)
        thought = write_thought(move, seen, self._rng(instance, f"thought {len(history)}"))
        try:
            XML.render_reply(thought, action)
        except UnwritableStep:  # a quoted text holds a tag of the dialect
            thought = f"The next step is to {move.kind.replace('_', ' ')}."
        return ExpertReply(thought, action)

    def with_seed(self, seed: int) -> Expert:
        """The expert with other habits."""
        return replace(self, seed=seed)

    def _gold(self, instance: Instance, sandbox: Sandbox) -> Gold:
        key = (instance.instance_id, instance.gold_patch)
        if key not in self._golds:
            try:
                self._golds[key] = Gold.read(instance, sandbox)
            except UserError as error:
                raise PolicyError(str(error)) from None
        return self._golds[key]

    def _rng(self, instance: Instance, purpose: str) -> Random:
        if self.brief:
            return Random("brief")
        return Random(f"{self.seed}\0{instance.instance_id}\0{purpose}")


@dataclass(frozen=True, slots=True)
class ExpertAgent:
    """The attempt in which the expert acts alone (:class:`~srl_swe.rollout.episode.Attempt`)."""

    expert: Expert = field(default_factory=Expert)
    limits: EpisodeLimits = field(default_factory=EpisodeLimits)

    @property
    def name(self) -> str:
        """:data:`EXPERT_NAME` or :data:`BRIEF_NAME`."""
        return BRIEF_NAME if self.expert.brief else EXPERT_NAME

    def __call__(
        self, instance: Instance, sandbox: Sandbox, on_reply: OnReply = lambda completion: None
    ) -> Trajectory:
        """Resolve the instance; failures end as in ``rollout``, an unusable gold patch too."""
        episode = Episode(instance, sandbox, Rules(ReplyFormat(XML, "strict"), limits=self.limits))
        try:
            episode.note_enforced()
            while episode.stop_reason is None:
                reply = self.expert.act(instance, episode.steps, sandbox)
                episode.act(reply.action, reply.thought)
            episode.submit()
        except (SandboxError, PolicyError) as error:
            episode.fail(error)
        return episode.trajectory(self.name)

    def with_seed(self, seed: int) -> ExpertAgent:
        """The same attempt by an expert with other habits."""
        return replace(self, expert=self.expert.with_seed(seed))


def _in_folder(action: Action, instance: Instance, sandbox: Sandbox) -> Action:
    """The action; its command begins with ``cd`` if the shell is in another folder."""
    command = action.arguments.get("command", "")
    if action.tool != "bash" or command.startswith("cd "):
        return action
    folder = sandbox.exec("pwd", keep_state=False).output.strip()
    if folder in {"", instance.workdir}:
        return action
    return Action("bash", {"command": f"cd {shlex.quote(instance.workdir)} && {command}"})
