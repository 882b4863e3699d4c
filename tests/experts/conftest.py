"""Episodes over the bundled instances, and an expert that continues them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.experts import Expert
from srl_swe.experts.reading import is_test_run
from srl_swe.instances import load_instances
from srl_swe.replay.patches import compare_patches
from srl_swe.rollout.episode import Episode, Rules
from srl_swe.sandbox import Sandbox
from srl_swe.types import Action, Instance, Observation, Step, StopReason
from srl_swe_envs.local import open_local_sandbox

INSTANCES = {i.instance_id.removeprefix("starter__"): i for i in load_instances("starter")}
RULES = Rules(ReplyFormat(get_dialect("xml"), "strict"))


class Play(Episode):
    """An episode in an open sandbox. Tests are not run: they pass, to save time."""

    def __init__(self, instance: Instance, sandbox: Sandbox) -> None:
        super().__init__(instance, sandbox, RULES)
        self.instance, self.sandbox = instance, sandbox

    def act(self, action: Action, thought: str = "") -> Step:
        if not is_test_run(action):
            return super().act(action, thought)
        step = Step(thought, action, Observation("30 passed in 0.10s", 0))
        self.steps.append(step)
        return step

    def finish(self, expert: Expert, most: int = 30) -> list[Step]:
        """The expert's steps from here to its submit."""
        start = len(self.steps)
        while self.stop_reason is not StopReason.SUBMITTED:
            assert len(self.steps) < start + most, [step.action for step in self.steps]
            answer = expert.act(self.instance, self.steps, self.sandbox)
            self.act(answer.action, answer.thought)
        self.submit()
        return self.steps[start:]

    @property
    def is_gold(self) -> bool:
        """Whether the patch has the edits of the gold patch and no others."""
        return compare_patches(self.instance.gold_patch, self.patch or "").equal


Begin = Callable[[str], Play]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begins an episode of a bundled instance, by its short name, in a local sandbox."""
    with ExitStack() as stack:

        def begin(name: str) -> Play:
            instance = INSTANCES[name]
            return Play(instance, stack.enter_context(open_local_sandbox(instance)))

        yield begin
