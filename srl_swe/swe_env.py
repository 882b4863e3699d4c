"""SweEnv: an instance, a sandbox and the tests as an environment for reinforcement learning.

The interface is Gymnasium's, without the package: ``reset`` returns an observation and an info,
``step`` five values. ``srl_swe_envs.adapters`` wraps it as a ``gymnasium.Env``.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, cast

from srl_swe.errors import EngineDiskFull, EngineUnavailable, ImageMissing, SandboxError, UserError
from srl_swe.evaluation.sandbox_tests import CachedTestRunner, check_testable
from srl_swe.rewards.outcome import TestReward, outcome_reward
from srl_swe.rollout.episode import Episode, Rules
from srl_swe.sandbox import OpenSandbox, Sandbox
from srl_swe.steps.prompt import CountTokens, OverBudget
from srl_swe.types import Action, Instance, Step, StopReason, Verdict

MACHINE_FAULTS = (EngineUnavailable, EngineDiskFull, ImageMissing)
"""Mistakes of the user's before the first training step. After it they break one sample only: if a
single rank raised, the others would wait for ever."""


def as_sandbox_errors(open_sandbox: OpenSandbox) -> OpenSandbox:
    """Sandboxes that raise SandboxError instead of :data:`MACHINE_FAULTS`.

    This includes the calls of an open sandbox, which an episode makes outside of any ``with``.
    """

    def opened(instance: Instance) -> AbstractContextManager[Sandbox]:
        with _blamed_on_the_sandbox():
            return _opened_blamed(open_sandbox(instance))

    return opened


@contextmanager
def _opened_blamed(opening: AbstractContextManager[Sandbox]) -> Iterator[Sandbox]:
    with _blamed_on_the_sandbox(), opening as sandbox:
        yield cast("Sandbox", _Blamed(sandbox))


@contextmanager
def _blamed_on_the_sandbox() -> Iterator[None]:
    try:
        yield
    except MACHINE_FAULTS as fault:
        raise SandboxError(str(fault)) from fault


class _Blamed:
    """A sandbox whose calls and attributes raise SandboxError for faults of the machine too."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def reopened(self, workdir: str) -> AbstractContextManager[Sandbox] | None:
        """See :mod:`srl_swe.sandbox.patches`."""
        reopen = getattr(self._sandbox, "reopened", None)
        with _blamed_on_the_sandbox():
            fresh = reopen(workdir) if reopen else None
        return None if fresh is None else _opened_blamed(fresh)

    def __getattr__(self, name: str) -> Any:
        with _blamed_on_the_sandbox():
            value = getattr(self._sandbox, name)
        return _blamed_on_the_sandbox()(value) if callable(value) else value


Info = dict[str, Any]
StepResult = tuple[str, float, bool, bool, Info]
"""Observation, reward, terminated, truncated, info."""


class SweEnv:
    """Runs one episode at a time; for parallel episodes use threads with one SweEnv each.

    The reward is 0 until the episode ends, and then ``reward`` of the tests' verdict. The tests run
    on the patch alone, in a fresh sandbox with the files of the test runner restored. An episode
    ends ``terminated`` if the policy submits or breaks the format too often, ``truncated`` at a
    limit. A broken sandbox ends it truncated, with the reason in ``info["broken"]`` and the reward
    NaN: Gymnasium requires a number, and any other would be averaged as an answer.

    Observations are text: first the issue, then the output of each action. ``info["messages"]`` is
    the prompt for a chat policy, cut to the rules' window. The last info has ``verdict``,
    ``reason`` (a StopReason) and ``trajectory``.
    """

    def __init__(
        self,
        instances: Sequence[Instance],
        open_sandbox: OpenSandbox,
        rules: Rules,
        *,
        reward: TestReward = outcome_reward,
        test_runner: Callable[[Instance, str], Verdict] | None = None,
        count_tokens: CountTokens | None = None,
    ) -> None:
        """Many environments can share one ``test_runner`` and its cache; None makes a new one.

        ``count_tokens`` is needed if the rules' window has a token budget. Raises UserError for
        an instance whose tests can't run in a sandbox.
        """
        if not instances:
            raise UserError("an environment needs at least one instance.")
        for instance in instances:
            check_testable(instance)
        self._instances = {instance.instance_id: instance for instance in instances}
        self._open_sandbox = open_sandbox
        self._rules = rules
        self._reward = reward
        self._test_runner = test_runner or CachedTestRunner(open_sandbox)
        self._count_tokens = count_tokens
        self._random = random.Random()
        self._open = ExitStack()
        self._instance = instances[0]
        self._episode: Episode | None = None

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Open a fresh sandbox for ``options["instance_id"]``, or for a random instance.

        Raises SandboxError if that fails, as no policy has acted yet, UserError for an unknown
        instance, and OverBudget if its issue alone is over the budget of the rules' window.
        """
        self.close()
        if seed is not None:
            self._random = random.Random(seed)
        self._instance = self._pick((options or {}).get("instance_id"))
        with ExitStack() as opening:
            sandbox = opening.enter_context(self._open_sandbox(self._instance))
            episode = Episode(self._instance, sandbox, self._rules)
            episode.note_enforced()
            info = self._info(episode)
            self._open = opening.pop_all()
        self._episode = episode
        return self.issue(self._instance.instance_id), info

    def issue(self, instance_id: str) -> str:
        """The first observation of this instance, as of :meth:`reset`."""
        return self._pick(instance_id).problem_statement.strip()

    def step(self, action: str | Action) -> StepResult:
        """Execute an action, or a reply that the dialect parses.

        Raises RuntimeError before a reset and after the end of an episode.
        """
        episode = self._running()
        try:
            step = episode.reply(action) if isinstance(action, str) else episode.act(action)
        except SandboxError as error:
            return self._break(episode, error)
        if episode.stop_reason is not None:
            return self._finish(episode, self._seen(step))
        try:
            return self._seen(step), 0.0, False, False, self._info(episode)
        except OverBudget:
            episode.stop(StopReason.TOKEN_LIMIT)
            return self._finish(episode, self._seen(step))

    def stop(self, reason: StopReason) -> StepResult:
        """End the episode at a limit of the caller's, such as tokens, and run the tests."""
        episode = self._running()
        episode.stop(reason)
        return self._finish(episode, "")

    def close(self) -> None:
        """Remove the sandbox, if there is one; the next reset opens another."""
        self._episode = None
        opened, self._open = self._open, ExitStack()
        with contextlib.suppress(SandboxError):  # the first failure is recorded already
            opened.close()

    def _pick(self, instance_id: str | None) -> Instance:
        if instance_id is None:
            return self._random.choice(list(self._instances.values()))
        if instance_id not in self._instances:
            raise UserError(f"this environment has no instance {instance_id!r}.")
        return self._instances[instance_id]

    def _running(self) -> Episode:
        if self._episode is None or self._episode.stop_reason is not None:
            raise RuntimeError("the episode is over, or has not begun: call reset() first")
        return self._episode

    def _finish(self, episode: Episode, seen: str) -> StepResult:
        """Take the patch, close the sandbox, and run the tests."""
        try:
            episode.submit()
        except SandboxError as error:
            return self._break(episode, error)
        self.close()
        verdict = self._test_runner(self._instance, episode.patch or "")
        reward = self._reward(self._instance, verdict)
        info = self._last_info(episode, verdict)
        truncated = episode.stop_reason is not None and episode.stop_reason.truncated
        if reward is None:
            info["broken"] = verdict.detail
            return seen, math.nan, False, True, info
        return seen, reward, not truncated, truncated, info

    def _break(self, episode: Episode, error: SandboxError) -> StepResult:
        episode.fail(error)
        self.close()
        broken = Verdict.broken(self._instance.instance_id, str(error))
        info = {**self._last_info(episode, broken), "broken": str(error)}
        return "", math.nan, False, True, info

    def _seen(self, step: Step) -> str:
        if step.observation is None:
            return ""
        return self._rules.replies.dialect.render_observation(step.observation)

    def _info(self, episode: Episode) -> Info:
        return {
            "instance_id": self._instance.instance_id,
            "messages": episode.messages(self._count_tokens),
        }

    def _last_info(self, episode: Episode, verdict: Verdict) -> Info:
        return {
            "instance_id": self._instance.instance_id,
            "verdict": verdict,
            "reason": episode.stop_reason,
            "trajectory": episode.trajectory(),
        }
