"""The domain ``software``: issues of repositories; an answer is a patch, verified by tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from srl_swe.dialects import Reply, Strictness, xml
from srl_swe.evaluation.sandbox_tests import CachedTestRunner
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps.contexts import Dropped, StepContext
from srl_swe.steps.dataset import StepSettings, make_steps
from srl_swe.steps.prompt import CountTokens, make_messages
from srl_swe.trajectories.fields import Reader
from srl_swe.types import Instance, Message, Trajectory


@dataclass(frozen=True, slots=True)
class Software:
    """Trajectories in containers; steps are calls of tools."""

    name: str = "software"

    def reader(self, columns: Mapping[str, str]) -> Reader | None:
        """None: each harness has a format of its own."""
        return None

    def make_steps(
        self, solution: Trajectory, settings: StepSettings, count_tokens: CountTokens | None
    ) -> Iterator[StepContext | Dropped]:
        """As :func:`srl_swe.steps.contexts.make_step_contexts`."""
        return make_steps(solution, settings, count_tokens)

    def prompt(self, problem: Instance) -> list[Message]:
        """The prompt of an episode's first step, in the dialect ``xml``."""
        return make_messages(problem.problem_statement, [], xml, workdir=problem.workdir)

    def parse_reply(
        self, text: str, strictness: Strictness = "strict", *, think_opened: bool = False
    ) -> Reply:
        """A thought and one call of a tool, in the dialect ``xml``."""
        return xml.parse_reply(text, strictness, think_opened=think_opened)

    def verifier(self, open_sandbox: OpenSandbox, timeout_s: float) -> CachedTestRunner:
        """Runs the tests on a patch in fresh sandboxes."""
        return CachedTestRunner(open_sandbox, timeout_s)


SOFTWARE = Software()
