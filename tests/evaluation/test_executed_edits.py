from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.bundled import bundled
from srl_swe.errors import SandboxError
from srl_swe.evaluation.executed_edits import (
    EDITS_FILE,
    EditTrial,
    execute_edit,
    execute_edits,
    last_edit,
)
from srl_swe.evaluation.sandbox_tests import CachedTestRunner
from srl_swe.instances import load_instances
from srl_swe.sandbox import Sandbox
from srl_swe.trajectories import load_trajectories
from srl_swe.types import Action, Instance, Outcome, Step, Trajectory, Verdict
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.slow

STARTER = {instance.instance_id: instance for instance in load_instances("starter")}
EXPERTS = load_trajectories(bundled("trajectories") / "starter.jsonl")


def expert_edit(trajectory: Trajectory) -> Action:
    action = trajectory.steps[last_edit(trajectory) or 0].action
    assert action is not None
    return action


EXPERT = next(each for each in EXPERTS if "old_str" in expert_edit(each).arguments)
PLACE = last_edit(EXPERT) or 0
OLD, NEW = (expert_edit(EXPERT).arguments[name] for name in ("old_str", "new_str"))


def edited(**changes: str) -> Action:
    return replace(expert_edit(EXPERT), arguments={**expert_edit(EXPERT).arguments, **changes})


def trial(action: Action | None, trajectory: Trajectory = EXPERT) -> EditTrial:
    instance = STARTER[trajectory.instance_id]
    return EditTrial(instance, trajectory, last_edit(trajectory) or 0, action)


@pytest.mark.parametrize(
    ("action", "outcome", "changed", "detail"),
    [
        (expert_edit(EXPERT), Outcome.RESOLVED, True, ""),
        (edited(new_str=NEW + "  # another right edit"), Outcome.RESOLVED, True, ""),
        (edited(new_str=OLD), Outcome.EMPTY_PATCH, False, ""),
        (edited(old_str="not in the file"), Outcome.EMPTY_PATCH, False, "No replacement"),
        (edited(new_str="    raise SystemExit"), Outcome.UNRESOLVED, True, ""),
        (Action("bash", {"command": "ls"}), Outcome.EMPTY_PATCH, False, ""),
        (Action("no_such_tool"), Outcome.EMPTY_PATCH, False, ""),
        (None, Outcome.EMPTY_PATCH, False, "out of format"),
    ],
    ids=[
        "expert's",
        "another",
        "no-op",
        "missing text",
        "wrong",
        "a look",
        "unknown tool",
        "no action",
    ],
)
def test_an_edit_is_judged_by_the_tests_in_the_state_of_its_context(
    action: Action | None, outcome: Outcome, changed: bool, detail: str
) -> None:
    test = CachedTestRunner(open_local_sandbox)
    edit = execute_edit(trial(action), open_local_sandbox, test)
    assert (edit.outcome, edit.changed) == (outcome, changed), edit
    assert detail in edit.detail


def test_the_place_is_the_last_executed_edit_of_existing_text() -> None:
    created = Step("", Action("str_replace_editor", {"command": "create", "path": "/testbed/x"}))
    skipped = replace(EXPERT.steps[PLACE], executed=False)
    longer = replace(EXPERT, steps=(*EXPERT.steps, created, skipped))
    assert last_edit(longer) == PLACE
    assert last_edit(replace(EXPERT, steps=(created,))) is None


def test_results_are_kept_but_not_those_of_a_broken_sandbox(tmp_path: Path) -> None:
    opened: list[str] = []

    @contextmanager
    def breaking(instance: Instance) -> Iterator[Sandbox]:
        opened.append(instance.instance_id)
        raise SandboxError("the engine is gone")
        yield

    def passing(instance: Instance, patch: str) -> Verdict:
        return Verdict(instance.instance_id, Outcome.RESOLVED)

    trials = [trial(expert_edit(EXPERT)), trial(None), trial(expert_edit(EXPERT))]
    first, second, third = execute_edits(trials, tmp_path, breaking, passing)
    assert first == third
    assert (first.outcome, second.outcome) == (Outcome.BROKEN_SANDBOX, Outcome.EMPTY_PATCH)
    assert len(opened) == 1, "equal actions are executed once"
    again = execute_edits(trials, tmp_path, open_local_sandbox, passing)
    assert [edit.outcome for edit in again] == [
        Outcome.RESOLVED, Outcome.EMPTY_PATCH, Outcome.RESOLVED,
    ]  # fmt: skip
    with (tmp_path / EDITS_FILE).open("a") as file:
        file.write('{"key": "torn')
    assert execute_edits(trials, tmp_path, breaking, passing) == again
    assert len(opened) == 1


@pytest.mark.docker
def test_experts_own_edits_pass_in_containers(tmp_path: Path) -> None:
    editing = [expert for expert in EXPERTS if last_edit(expert) is not None][:2]
    trials = [trial(expert_edit(expert), expert) for expert in editing]
    test = CachedTestRunner(open_docker_sandbox)
    edits = execute_edits(trials, tmp_path, open_docker_sandbox, test)
    assert {edit.outcome for edit in edits} == {Outcome.RESOLVED}, edits
