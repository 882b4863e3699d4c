"""Executed edits: whether a policy's edit, made where the expert made its own, lets the tests pass.

The expert's steps before the edit are replayed in a sandbox, the policy's action is carried out
in that state, and the tests judge the resulting patch in a fresh sandbox. Only the last edit of an
expert's trajectory is such a place: before it, no single edit could be enough. The similarity of
two texts can't see a no-op, nor another right edit; this metric sees both.

``executed-edits.jsonl`` keeps each result under the digest of the trajectory, the step and the
action: policies that make the same edit share it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from srl_swe.errors import ImageMissing, SandboxError
from srl_swe.files import append_record, load_records
from srl_swe.parallel import run_parallel
from srl_swe.progress import progress
from srl_swe.replay import replay_steps
from srl_swe.sandbox import OpenSandbox, take_patch
from srl_swe.steps.contexts import trajectory_id
from srl_swe.tools import open_toolbox
from srl_swe.types import Action, Instance, Outcome, Trajectory, Verdict

EDITS_FILE = "executed-edits.jsonl"
_REMEDY = "delete that line, and its edit is executed again"
_CHANGES = frozenset({"str_replace", "insert"})

TestPatch = Callable[[Instance, str], Verdict]
"""Runs an instance's tests on a patch, such as
:class:`srl_swe.evaluation.sandbox_tests.CachedTestRunner`; BROKEN_SANDBOX if that fails."""


@dataclass(frozen=True, slots=True)
class EditTrial:
    """A policy's action in the place of the expert's at ``step_index``.

    ``action``: None for a reply out of format, which changes nothing. ``trajectory``: the expert's.
    """

    instance: Instance
    trajectory: Trajectory
    step_index: int
    action: Action | None

    @property
    def key(self) -> str:
        """Thirty-two hex digits of the trajectory, the step and the action."""
        text = self.action.text if self.action else ""
        whole = f"{trajectory_id(self.trajectory)}\0{self.step_index}\0{text}"
        return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ExecutedEdit:
    """The result of a trial: RESOLVED if the tests pass; ``changed``: whether it changed a file."""

    key: str
    instance_id: str
    outcome: Outcome
    changed: bool
    detail: str = ""


def last_edit(trajectory: Trajectory) -> int | None:
    """The index of the last executed edit of existing text; None without one.

    A created file is not counted, as experts create scripts to reproduce an issue.
    """
    for index in reversed(range(len(trajectory.steps))):
        step = trajectory.steps[index]
        if step.action is None or not step.executed or step.action.tool != "str_replace_editor":
            continue
        if step.action.arguments.get("command") in _CHANGES:
            return index
    return None


def execute_edit(trial: EditTrial, open_sandbox: OpenSandbox, test: TestPatch) -> ExecutedEdit:
    """Replay, act, and test the patch. A broken sandbox is BROKEN_SANDBOX, never a wrong edit."""
    instance, name = trial.instance, trial.instance.instance_id
    if trial.action is None:
        return ExecutedEdit(trial.key, name, Outcome.EMPTY_PATCH, False, "out of format")
    values = trial.action.arguments
    if values.get("old_str") is not None and values["old_str"] == values.get("new_str"):
        return ExecutedEdit(trial.key, name, Outcome.EMPTY_PATCH, False, "a no-op")
    try:
        with open_sandbox(instance) as sandbox:
            replay_steps(trial.trajectory, instance, sandbox, until=trial.step_index)
            before = take_patch(sandbox, instance.base_commit, instance.workdir)
            toolbox = open_toolbox(workdir=instance.workdir)
            answer = toolbox.perform(trial.action, sandbox).text
            after = take_patch(sandbox, instance.base_commit, instance.workdir)
    except (SandboxError, ImageMissing) as error:
        return ExecutedEdit(trial.key, name, Outcome.BROKEN_SANDBOX, False, str(error))
    if before.text is None or after.text is None:
        why = before.detail or after.detail
        return ExecutedEdit(trial.key, name, Outcome.PATCH_FAILED, True, why)
    if before.text == after.text:
        first = next(iter(answer.splitlines()), "")[:200]
        return ExecutedEdit(trial.key, name, Outcome.EMPTY_PATCH, False, first)
    verdict = test(instance, after.text)
    return ExecutedEdit(trial.key, name, verdict.outcome, True, verdict.detail)


def execute_edits(
    trials: Sequence[EditTrial],
    folder: Path,
    open_sandbox: OpenSandbox,
    test: TestPatch,
    *,
    workers: int = 2,
) -> list[ExecutedEdit]:
    """The result of each trial, in order; those in ``folder`` are kept, broken ones tried again."""
    path = folder / EDITS_FILE
    known = load_executed_edits(path)
    missing = list({trial.key: trial for trial in trials if trial.key not in known}.values())
    broken: dict[str, ExecutedEdit] = {}
    with progress("executed edits", len(missing)) as advance:

        def keep(trial: EditTrial, edit: ExecutedEdit) -> None:
            if edit.outcome is Outcome.BROKEN_SANDBOX:
                broken[edit.key] = edit
            else:
                known[edit.key] = edit
                append_record(path, edit)
            advance(f"{trial.instance.instance_id}: {edit.outcome}")

        run_parallel(
            lambda trial: execute_edit(trial, open_sandbox, test), missing, keep, workers=workers
        )
    return [(known | broken)[trial.key] for trial in trials]


def load_executed_edits(path: Path) -> dict[str, ExecutedEdit]:
    """The kept results by key. Raises UserError for a damaged line."""
    return {edit.key: edit for edit in load_records(path, ExecutedEdit, _REMEDY)}
