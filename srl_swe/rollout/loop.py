"""The loop: a policy acts in a sandbox until it submits or reaches a limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from srl_swe.context_window import PAPER_WINDOW, OverBudget, Window
from srl_swe.dialects import Dialect, Strictness
from srl_swe.errors import SandboxError
from srl_swe.rollout.episode import Episode, Limits, Rules, sandbox_error_step
from srl_swe.rollout.policy import Policy, PromptTooLong
from srl_swe.sandbox import Sandbox
from srl_swe.types import Instance, Step, StopReason, Trajectory

__all__ = ["Agent", "Limits", "rollout", "sandbox_error_step"]


@dataclass(frozen=True, slots=True)
class Agent:
    """A policy with all that turns it into an agent: dialect, window, limits."""

    policy: Policy
    dialect: Dialect
    window: Window = PAPER_WINDOW
    limits: Limits = field(default_factory=Limits)
    strictness: Strictness = "lenient"
    think_opened: bool = False

    @property
    def rules(self) -> Rules:
        """All but the policy."""
        return Rules(self.dialect, self.window, self.limits, self.strictness, self.think_opened)


def rollout(
    agent: Agent,
    instance: Instance,
    sandbox: Sandbox,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Trajectory:
    """One attempt at one instance. What the policy left in the working tree is its patch.

    Infrastructure failure ends it with SANDBOX_ERROR and patch None; nothing is raised for it.
    """
    episode = Episode(instance, sandbox, agent.rules)
    try:
        episode.note_enforced()
        while episode.stop_reason is None:
            _take_turn(agent.policy, episode, on_step)
        episode.hand_in()
    except SandboxError as error:
        episode.fail(error)
    return episode.trajectory(agent.policy.name)


def _take_turn(policy: Policy, episode: Episode, on_step: Callable[[Step], None]) -> None:
    try:
        text = policy.reply(episode.messages(policy.count_tokens)).text
    except (PromptTooLong, OverBudget):
        episode.stop(StopReason.TOKEN_LIMIT)
    else:
        on_step(episode.reply(text))
