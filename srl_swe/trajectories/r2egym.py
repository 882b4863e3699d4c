"""R2E-Gym's own log of a run (its ``Trajectory`` model), one JSON object a line.

A step's thought and action are apart already. A call's values were stripped of all white space
around them before they were executed, and so they are here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from srl_swe.trajectories.fields import Fields
from srl_swe.trajectories.recorded_patch import tidy_patch
from srl_swe.trajectories.row_facts import NO_INSTANCE, as_outcome
from srl_swe.trajectories.text_forms import R2E_GYM, plain_thought, read_r2e_answer
from srl_swe.trajectories.turns import Answer, Turn, make_steps
from srl_swe.types import StopReason, Trajectory

NAME = "r2e-gym"

_STOP_REASONS = {
    "agent": StopReason.SUBMITTED,
    "max_step_limit": StopReason.STEP_LIMIT,
    "agent_max_step_limit": StopReason.STEP_LIMIT,
    "abs_step_limit": StopReason.STEP_LIMIT,
    "token_limit": StopReason.TOKEN_LIMIT,
    "traj_time_limit": StopReason.TIME_LIMIT,
}
"""``llm_query_error``, the only other ``exit_reason``, has no counterpart."""


def is_one(record: Any) -> bool:
    """By its list of steps, which may be empty."""
    return isinstance(record, Mapping) and isinstance(record.get("trajectory_steps"), list)


def read_one(record: Any, where: str) -> Trajectory:
    """One run; a reward of 1 means resolved. Without a step it may still have a patch."""
    row = Fields.of(record, where)
    steps, notes = make_steps(_read_steps(row))
    exit_reason = row.optional_text("exit_reason")
    task = row.mapping("ds")
    name = task.optional_text("instance_id") or row.optional_text("docker_image")
    return Trajectory(
        name or row.file_name,
        steps,
        row.optional_text("problem_statement"),
        _STOP_REASONS.get(exit_reason or ""),
        tidy_patch(row.optional_text("output_patch")),
        as_outcome(row.get("reward")),
        row.mapping("agent_args").optional_text("llm_name"),
        NAME,
        exit_status=exit_reason,
        notes=notes if name else (NO_INSTANCE, *notes),
    )


def _read_steps(row: Fields) -> Iterator[Turn | Answer]:
    for step in row.items("trajectory_steps"):
        thought = plain_thought(step.optional_text("thought") or "")
        yield Turn(thought, R2E_GYM.read_reply(step.optional_text("action") or "").calls)
        observation = step.optional_text("observation")
        if observation is not None:
            yield Answer(read_r2e_answer(observation))
