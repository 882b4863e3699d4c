"""Rollouts of a policy in which an expert answers in every state (DAgger, arXiv 1011.0686)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from srl_swe.errors import PolicyError, SandboxError
from srl_swe.experts.expert import Expert
from srl_swe.rollout.episode import Agent, Episode, OnReply, PromptTooLong, ask
from srl_swe.sandbox import Sandbox
from srl_swe.steps.prompt import OverBudget
from srl_swe.types import Instance, StopReason, Trajectory

SOURCE = "on-policy"
"""``source`` of these trajectories, by which data cards count them."""


@dataclass(frozen=True, slots=True)
class LabellingAgent:
    """The agent acts, and the expert's answer before each step is recorded with the step.

    ``expert_actions``: the chance, per step, that the expert's action is executed in place of the
    policy's (the paper's beta); 0 visits the policy's own states only.
    """

    agent: Agent
    expert: Expert
    expert_actions: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.agent.name

    def __call__(
        self, instance: Instance, sandbox: Sandbox, on_reply: OnReply = lambda completion: None
    ) -> Trajectory:
        """The policy's episode with the expert's answers; failures as in ``rollout``."""
        rng = Random(f"{self.seed}\0{instance.instance_id}\0beta")
        episode = Episode(instance, sandbox, self.agent.rules)
        try:
            episode.note_enforced()
            while episode.stop_reason is None:
                answer = self.expert.act(instance, episode.steps, sandbox)
                try:
                    if rng.random() < self.expert_actions:
                        step = episode.act(answer.action, answer.thought)
                    else:
                        policy = self.agent.policy
                        prompt = episode.messages(policy.count_tokens)
                        step = episode.reply(ask(policy, prompt, on_reply).text)
                except (PromptTooLong, OverBudget):
                    episode.stop(StopReason.TOKEN_LIMIT)
                else:
                    episode.steps[-1] = replace(step, expert=answer)
            episode.submit()
        except (SandboxError, PolicyError) as error:
            episode.fail(error)
        return replace(episode.trajectory(self.name), source=SOURCE)

    def with_seed(self, seed: int) -> LabellingAgent:
        """The same agent and expert, both with this seed."""
        agent, expert = self.agent.with_seed(seed), self.expert.with_seed(seed)
        return replace(self, agent=agent, expert=expert, seed=seed)
