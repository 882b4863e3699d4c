"""SweEnv: an instance, a sandbox and the tests as an environment of reinforcement learning.

The shape is Gymnasium's, whose package is not needed: ``reset`` gives an observation and an
info, ``step`` gives five values. ``srl_swe_envs.adapters`` makes a ``gymnasium.Env`` of it.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from srl_swe.errors import EngineDiskFull, EngineUnavailable, ImageMissing, SandboxError, UserError
from srl_swe.evaluation.sandbox_tests import CachedTestRunner, check_testable
from srl_swe.rewards.outcome import TestReward, outcome_reward
from srl_swe.rollout.episode import Episode, Rules
from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult, OpenSandbox, Sandbox
from srl_swe.steps.prompt import CountTokens, OverBudget
from srl_swe.types import Action, Instance, Outcome, Step, StopReason, Verdict

# Sandboxes for training, where a failure of the machine is counted and never ends one rank.


MACHINE_FAULTS = (EngineUnavailable, EngineDiskFull, ImageMissing)
"""Before the first step these are the user's to mend. After it they are bad luck of a sample: a
rank that raised alone would leave the others waiting for ever."""


def as_sandbox_errors(open_sandbox: OpenSandbox) -> OpenSandbox:
    """Raises SandboxError in the place of what else can go wrong with a machine.

    So do the sandbox's own calls: an episode makes them outside of any ``with``.
    """

    @contextmanager
    def opened(instance: Instance) -> Iterator[Sandbox]:
        with _blamed_on_the_sandbox(), open_sandbox(instance) as sandbox:
            yield _Blamed(sandbox)

    return opened


@contextmanager
def _blamed_on_the_sandbox() -> Iterator[None]:
    try:
        yield
    except MACHINE_FAULTS as fault:
        raise SandboxError(str(fault)) from fault


class _Blamed:
    """A sandbox whose calls raise SandboxError for the machine's faults too."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def __getattr__(self, name: str) -> Any:
        """What is no part of the contract, such as what it was held to."""
        with _blamed_on_the_sandbox():
            return getattr(self._sandbox, name)

    def exec(
        self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S, keep_state: bool = True
    ) -> ExecResult:
        with _blamed_on_the_sandbox():
            return self._sandbox.exec(command, timeout_s, keep_state)

    def read_file(self, path: str) -> bytes:
        with _blamed_on_the_sandbox():
            return self._sandbox.read_file(path)

    def write_file(self, path: str, data: bytes) -> None:
        with _blamed_on_the_sandbox():
            self._sandbox.write_file(path, data)

    def close(self) -> None:
        with _blamed_on_the_sandbox():
            self._sandbox.close()


Info = dict[str, Any]
StepResult = tuple[str, float, bool, bool, Info]
"""Observation, reward, terminated, truncated, info."""


class SweEnv:
    """One episode at a time; many of them run side by side in threads, one SweEnv each.

    The reward is 0 until the episode ends, then what ``reward`` makes of the tests, which run in
    a sandbox of their own on nothing but the patch, without what hooks into the test runner. It
    ends ``terminated`` when the policy submits or can't keep to the format, ``truncated`` at a
    limit. A sandbox that breaks ends it truncated with reward NaN and ``info["broken"]`` saying
    why: Gymnasium wants a number, and no other would keep from being averaged as an answer.

    Observations are text: the issue, then what each action printed. ``info["messages"]`` is the
    prompt that a chat policy reads, cut to the rules' window. The last info has ``verdict``,
    ``reason`` (a StopReason) and ``trajectory``.
    """

    def __init__(
        self,
        instances: Sequence[Instance],
        open_sandbox: OpenSandbox,
        rules: Rules,
        *,
        reward: TestReward = outcome_reward,
        test_runner: CachedTestRunner | None = None,
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
        self._instances = {one.instance_id: one for one in instances}
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
        """Open a fresh sandbox: of ``options["instance_id"]``, or of any, by the seed.

        Raises SandboxError where that fails, as nothing has been asked of a policy yet, and
        UserError for an unknown instance.
        """
        self.close()
        if seed is not None:
            self._random = random.Random(seed)
        self._instance = self._pick((options or {}).get("instance_id"))
        with ExitStack() as opening:
            sandbox = opening.enter_context(self._open_sandbox(self._instance))
            episode = Episode(self._instance, sandbox, self._rules)
            episode.note_enforced()
            self._open = opening.pop_all()
        self._episode = episode
        return self.issue(self._instance.instance_id), self._info(episode)

    def issue(self, instance_id: str) -> str:
        """What :meth:`reset` will give as the observation of this instance."""
        return self._pick(instance_id).problem_statement.strip()

    def step(self, action: str | Action) -> StepResult:
        """A reply of the policy, as text that the dialect parses, or an action.

        Raises RuntimeError before a reset and after the end.
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
        """End the episode at a limit that only the caller sees, such as tokens, and test it."""
        episode = self._running()
        episode.stop(reason)
        return self._finish(episode, "")

    def close(self) -> None:
        """Remove the sandbox, if there is one; another reset opens another."""
        self._episode = None
        opened, self._open = self._open, ExitStack()
        with contextlib.suppress(SandboxError):  # whoever broke it is on record already
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
        """Take the patch, give the sandbox back, and let the tests decide."""
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
        broken = Verdict(self._instance.instance_id, Outcome.BROKEN_SANDBOX, detail=str(error))
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
