"""An expert's trajectory in the terms of a policy of ours: our tools, and one folder.

Each call becomes the call of our own tools that does the same: by another name for it
(:mod:`srl_swe.tools.own_calls`), as a replay has translated it (``Step.translation``), or as the
record itself shows (:mod:`srl_swe.tools.shown_files`). The folder that the record has the
repository in becomes the one that prompts name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

from srl_swe.tools.harnesses import HARNESSES
from srl_swe.tools.own_calls import as_own_call, is_own_call
from srl_swe.tools.recorded_paths import RecordedPaths, named_root
from srl_swe.tools.shown_files import translate_from_record
from srl_swe.tools.toolbox import WORKDIR
from srl_swe.tools.translation import Untranslated
from srl_swe.types import Action, Observation, Step, Trajectory, Translation


@dataclass(frozen=True, slots=True)
class OwnStep:
    """A step as our tools have it.

    ``translated`` names the expert's tool if the call is a translation; ``problem`` is why there
    is none, empty if ``step`` holds a call of our own. It holds the expert's call then.
    """

    step: Step
    translated: str = ""
    problem: str = ""


def own_steps(trajectory: Trajectory) -> tuple[Trajectory, tuple[OwnStep, ...]]:
    """The trajectory with our own calls and folder, and what became of each step."""
    harness = HARNESSES.get(trajectory.source)
    shown: list[Translation | None] = [None] * len(trajectory.steps)
    if harness is not None and harness.windows:
        shown = translate_from_record(trajectory)
    made = [
        _own_step(step, step.translation or from_record, trajectory.source)
        for step, from_record in zip(trajectory.steps, shown, strict=True)
    ]
    root = named_root(chain(trajectory.steps, (own.step for own in made)), WORKDIR)
    if root is not None:
        made = [replace(own, step=_moved(own.step, root)) for own in made]
    issue = trajectory.problem_statement
    own = replace(
        trajectory,
        steps=tuple(one.step for one in made),
        problem_statement=_moved_text(issue, root) if issue and root else issue,
    )
    return own, tuple(made)


def _own_step(step: Step, translation: Translation | None, family: str) -> OwnStep:
    if step.action is None:
        return OwnStep(step)
    if translation is not None and translation.action is not None:
        seen = translation.observation or step.observation
        own = replace(step, action=translation.action, observation=seen)
        return OwnStep(own, translated=step.action.tool)
    action = as_own_call(step.action, family, step.observation)
    own = replace(step, action=action)
    if translation is not None and translation.reason:
        return OwnStep(own, problem=translation.reason)
    if is_own_call(action) or HARNESSES.get(family) is None:
        return OwnStep(own)
    return OwnStep(own, problem=Untranslated.NO_EQUAL_TOOL.value)


def _moved(step: Step, root: str) -> Step:
    action, seen = step.action, step.observation
    return replace(
        step,
        thought=_moved_text(step.thought, root),
        action=action and _moved_call(action, root),
        observation=seen and _moved_answer(seen, root),
    )


def _moved_call(action: Action, root: str) -> Action:
    arguments = {name: _moved_text(value, root) for name, value in action.arguments.items()}
    return Action(action.tool, arguments)


def _moved_answer(seen: Observation, root: str) -> Observation:
    return replace(seen, text=_moved_text(seen.text, root))


def _moved_text(text: str, root: str) -> str:
    return RecordedPaths({root: WORKDIR}).to_sandbox(text)
