"""SweEnv for Gymnasium and for TRL; importing this module needs neither.

:func:`as_gymnasium` makes a ``gymnasium.Env``. :class:`TrlEnvironments` is an
``environment_factory`` for policies with a tool-calling template::

    with TrlEnvironments(instances, open_sandbox, rules) as environments:
        trainer = GRPOTrainer(
            ...,
            train_dataset=tool_dataset(instances),
            environment_factory=environments,
        )

The methods of a TRL environment are its tools; its reward comes from the tests. They are
``async``: TRL 1.16 runs the async tools of a batch together and sync ones one by one.
``train_rlvr`` uses ``rollout_func`` instead, as its policies write our dialect.
"""

from __future__ import annotations

import asyncio
import json
import math
import string
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any, Self, TypeVar

from srl_swe.errors import SandboxError
from srl_swe.evaluation.sandbox_tests import DEFAULT_TESTS_TIMEOUT_S, CachedTestRunner
from srl_swe.rewards.outcome import TestReward, outcome_reward
from srl_swe.rollout import Rules
from srl_swe.sandbox import OpenSandbox
from srl_swe.swe_env import SweEnv, as_sandbox_errors
from srl_swe.types import Action, Instance, StopReason

if TYPE_CHECKING:
    import gymnasium
    from datasets import Dataset

Result = TypeVar("Result")

SYSTEM_PROMPT = resources.files("srl_swe").joinpath("prompts/tools_system.md").read_text("utf-8")
OVER = "The episode is over."

MAX_REPLY_CHARS = 100_000
MAX_OBSERVATION_CHARS = 1_000_000
"""More than any issue or observation; a longer text is outside the space but still returned."""


def as_gymnasium(env: SweEnv) -> gymnasium.Env[str, str]:
    """Wrap ``env`` as a :class:`gymnasium.Env` of texts; needs the extra ``gym``.

    See SweEnv for rewards, ends and infos. A reward of NaN means that the sandbox broke
    (``info["broken"]``): drop that episode. ``reset`` opens a fresh sandbox of
    ``options["instance_id"]``, or of any instance.
    """
    import gymnasium
    from gymnasium.spaces import Text

    class AnyText(Text):
        """Every string up to a length, in any script; samples are printable ASCII."""

        def __init__(self, max_length: int) -> None:
            super().__init__(max_length, min_length=0, charset=frozenset(string.printable))

        def contains(self, x: Any) -> bool:
            return isinstance(x, str) and len(x) <= self.max_length

    class GymnasiumSweEnv(gymnasium.Env[str, str]):
        def __init__(self) -> None:
            self.observation_space = AnyText(MAX_OBSERVATION_CHARS)
            self.action_space = AnyText(MAX_REPLY_CHARS)
            self.metadata = {"render_modes": []}

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[str, dict[str, Any]]:
            super().reset(seed=seed)
            return env.reset(seed=int(self.np_random.integers(2**31)), options=options)

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            return env.step(action)

        def close(self) -> None:
            env.close()

    return GymnasiumSweEnv()


def tool_dataset(instances: Sequence[Instance]) -> Dataset:
    """One row per instance; ``reset`` adds the issue to its prompt, the template adds the tools."""
    from datasets import Dataset

    prompt = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": ""}]
    return Dataset.from_list([{"prompt": prompt, "instance_id": i.instance_id} for i in instances])


class TrlEnvironments:
    """The factory; leaving its context closes its environments."""

    def __init__(
        self,
        instances: Sequence[Instance],
        open_sandbox: OpenSandbox,
        rules: Rules,
        *,
        reward: TestReward = outcome_reward,
        tests_timeout_s: float = DEFAULT_TESTS_TIMEOUT_S,
    ) -> None:
        """The limits of ``rules`` apply, and its dialect renders the output of tools.

        TRL keeps the whole history within its own length, so the window's budget does not apply.
        """
        safe = as_sandbox_errors(open_sandbox)
        rules = replace(rules, window=replace(rules.window, token_budget=None))
        test_runner = CachedTestRunner(safe, tests_timeout_s)
        self._make = partial(SweEnv, instances, safe, rules, reward=reward, test_runner=test_runner)
        self._made: list[SweToolEnvironment] = []

    def __call__(self) -> SweToolEnvironment:
        """Make an environment: TRL calls this once per rollout of a batch, and then resets them."""
        self._made.append(SweToolEnvironment(self._make()))
        return self._made[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for environment in self._made:
            environment._close()


class SweToolEnvironment:
    """One episode. All uses of its sandbox run on a thread of its own, in order."""

    def __init__(self, env: SweEnv) -> None:
        self._env = env
        self._thread = ThreadPoolExecutor(1, "swe-tools")
        self._over = True
        self._reward: float | None = None

    def reset(self, *, instance_id: str, **_: Any) -> str:
        """The issue of the row's instance, which TRL appends to the prompt.

        TRL resets one environment after the other, so the container is opened in the background.
        """
        self._over, self._reward = False, None
        self._thread.submit(self._open, instance_id)
        return self._env.issue(instance_id)

    async def bash(self, command: str) -> str:
        """Run a command in a persistent shell, in the repository at /testbed.

        Args:
            command: The command.

        Returns:
            The output of the command.
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
            The editor's answer.
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
            Confirmation that the changes were submitted.
        """
        return await self._act("submit")

    async def get_reward(self) -> float | None:
        """The reward of the tests, or None if the sandbox broke.

        TRL does not report the end of tool calls: an episode without a submission is tested too,
        and recorded as STEP_LIMIT.
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
