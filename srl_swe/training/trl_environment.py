"""SweEnv as TRL's ``environment_factory`` wants it, for policies with a tool-calling template.

    with TrlEnvironments(instances, open_sandbox, rules) as environments:
        trainer = GRPOTrainer(
            ...,
            train_dataset=tool_dataset(instances),
            environment_factory=environments,
        )

The methods of an environment are its tools, and its reward is the tests'. They are ``async``: TRL
1.16 runs a batch's async tools together and sync ones one by one. ``train_rlvr`` goes another
way (srl_swe.training.rlvr_episodes), as its policies write our dialect.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import resources
from typing import Any, Self, TypeVar

from datasets import Dataset

from srl_swe.errors import SandboxError
from srl_swe.evaluation.sandbox_tests import DEFAULT_TESTS_TIMEOUT_S, CachedTestRunner
from srl_swe.rewards.outcome import TestReward, outcome_reward
from srl_swe.rollout import Rules
from srl_swe.sandbox import OpenSandbox
from srl_swe.swe_env import SweEnv, as_sandbox_errors
from srl_swe.types import Action, Instance, StopReason

Result = TypeVar("Result")

SYSTEM_PROMPT = resources.files("srl_swe").joinpath("prompts/tools_system.md").read_text("utf-8")
OVER = "The episode is over."


def tool_dataset(instances: Sequence[Instance]) -> Dataset:
    """A row an instance; ``reset`` adds the issue to its prompt, and the template the tools."""
    prompt = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": ""}]
    return Dataset.from_list([{"prompt": prompt, "instance_id": i.instance_id} for i in instances])


class TrlEnvironments:
    """The factory; leaving its context closes what its environments hold open."""

    def __init__(
        self,
        instances: Sequence[Instance],
        open_sandbox: OpenSandbox,
        rules: Rules,
        *,
        reward: TestReward = outcome_reward,
        tests_timeout_s: float = DEFAULT_TESTS_TIMEOUT_S,
    ) -> None:
        """Of ``rules`` the limits count and the dialect renders what tools print."""
        safe = as_sandbox_errors(open_sandbox)
        test_runner = CachedTestRunner(safe, tests_timeout_s)
        self._make = partial(SweEnv, instances, safe, rules, reward=reward, test_runner=test_runner)
        self._made: list[SweToolEnvironment] = []

    def __call__(self) -> SweToolEnvironment:
        """What TRL calls once for each rollout of a batch; it resets what it has."""
        self._made.append(SweToolEnvironment(self._make()))
        return self._made[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for environment in self._made:
            environment._close()


class SweToolEnvironment:
    """One episode. All that touches its sandbox runs on a thread of its own, in order."""

    def __init__(self, env: SweEnv) -> None:
        self._env = env
        self._thread = ThreadPoolExecutor(1, "swe-tools")
        self._over = True
        self._reward: float | None = None

    def reset(self, *, instance_id: str, **_: Any) -> str:
        """Begin with the row's instance; TRL puts what is returned behind the prompt.

        TRL resets one environment after the other, so the container is opened behind its back.
        """
        self._over, self._reward = False, None
        self._thread.submit(self._open, instance_id)
        return self._env.issue(instance_id)

    async def bash(self, command: str) -> str:
        """Run a command in a persistent shell, in the repository at /testbed.

        Args:
            command: The command.

        Returns:
            What it printed.
        """
        return await self._act("bash", command=command)

    async def str_replace_editor(
        self,
        command: str,
        path: str,
        file_text: str | None = None,
        old_str: str | None = None,
        new_str: str | None = None,
        insert_line: int | None = None,
        view_range: list[int] | None = None,
    ) -> str:
        """View and edit files.

        Args:
            command: One of view, create, str_replace, insert, undo_edit.
            path: The absolute path of a file or a folder.
            file_text: For create: the content.
            old_str: For str_replace: the text to replace, which stands in the file once.
            new_str: For str_replace and insert: the new text.
            insert_line: For insert: the line after which the new text goes.
            view_range: For view: the first and the last line to show.

        Returns:
            What the editor says.
        """
        return await self._act(
            "str_replace_editor",
            command=command,
            path=path,
            file_text=file_text,
            old_str=old_str,
            new_str=new_str,
            insert_line=insert_line,
            view_range=view_range,
        )

    async def submit(self) -> str:
        """Hand in the changes, when the issue is resolved and verified.

        Returns:
            A word that it was done.
        """
        return await self._act("submit")

    async def get_reward(self) -> float | None:
        """What the tests say; None where the sandbox broke. Whoever never submitted is tested too.

        TRL's own word for a policy that stops calling tools is none, so that the record says
        STEP_LIMIT.
        """
        return await self._on_thread(self._final_reward)

    async def _act(self, tool: str, **arguments: Any) -> str:
        given = {name: value for name, value in arguments.items() if value is not None}
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items()}
        return await self._on_thread(lambda: self._step(Action(tool, texts)))

    def _step(self, action: Action) -> str:
        if self._over:
            return OVER
        seen, reward, terminated, truncated, _ = self._env.step(action)
        self._over = terminated or truncated
        self._reward = None if math.isnan(reward) else reward
        return OVER if self._over else seen

    def _open(self, instance_id: str) -> None:
        try:
            self._env.reset(options={"instance_id": instance_id})
        except SandboxError:
            self._over = True

    def _final_reward(self) -> float | None:
        if not self._over:
            reward = self._env.stop(StopReason.STEP_LIMIT)[1]
            self._over, self._reward = True, None if math.isnan(reward) else reward
        return self._reward

    async def _on_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.wrap_future(self._thread.submit(work))

    def _close(self) -> None:
        self._thread.submit(self._env.close)
        self._thread.shutdown()
