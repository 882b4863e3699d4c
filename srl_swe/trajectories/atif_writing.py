"""Writing trajectories as ATIF 1.7, so that Harbor's tools read them.

The format has no place for an instance, a patch, an exit code or a step that never ran; these
go under ``srl_swe`` in the ``extra`` that it allows everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from srl_swe.files import write_atomic
from srl_swe.trajectories.atif import OWN
from srl_swe.types import Observation, Step, Trajectory, Translation

VERSION = "ATIF-v1.7"


def save_atif(path: Path, trajectory: Trajectory) -> None:
    """Replace the file, whole or not at all; ATIF has one run a file."""
    write_atomic(path, json.dumps(write_one(trajectory), ensure_ascii=False, indent=2) + "\n")


def write_one(trajectory: Trajectory) -> dict[str, Any]:
    """The trajectory as the JSON object that :func:`srl_swe.trajectories.atif.read_one` reads."""
    agent = {"name": trajectory.source, "version": "unknown"}
    if trajectory.model is not None:
        agent["model_name"] = trajectory.model
    record: dict[str, Any] = {
        "schema_version": VERSION,
        "session_id": trajectory.instance_id,
        "agent": agent,
        "steps": list(_write_steps(trajectory)),
    }
    if trajectory.notes:
        record["notes"] = "\n".join(trajectory.notes)
    return record | {"extra": {OWN: _own_fields(trajectory)}}


def _write_steps(trajectory: Trajectory) -> Iterator[dict[str, Any]]:
    task = trajectory.problem_statement or ""
    yield {"step_id": 1, "source": "user", "message": task}
    for step_id, turn in enumerate(_turns(trajectory.steps), 2):
        yield _write_turn(step_id, turn)


def _turns(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """The steps, those of one message together."""
    turn: list[Step] = []
    for step in steps:
        if turn and (step.turn is None or step.turn != turn[-1].turn):
            yield turn
            turn = []
        turn.append(step)
    if turn:
        yield turn


def _write_turn(step_id: int, steps: Sequence[Step]) -> dict[str, Any]:
    written: dict[str, Any] = {
        "step_id": step_id,
        "source": "agent",
        "message": steps[0].thought,
    }
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, step in enumerate(steps, 1):
        call_id = f"call_{step_id}_{number}"
        if step.action is not None:
            calls.append(
                {
                    "tool_call_id": call_id,
                    "function_name": step.action.tool,
                    "arguments": dict(step.action.arguments),
                    "extra": {OWN: {"executed": step.executed} | _translation(step)},
                }
            )
        if step.observation is not None:
            results.append(_write_result(step.observation, call_id if step.action else None))
    written |= {"tool_calls": calls} if calls else {}
    return written | ({"observation": {"results": results}} if results else {})


def _translation(step: Step) -> dict[str, Any]:
    if step.translation is None:
        return {}
    return {"translation": TypeAdapter(Translation).dump_python(step.translation, mode="json")}


def _write_result(observation: Observation, call_id: str | None) -> dict[str, Any]:
    details = {"truncated": observation.truncated, "timed_out": observation.timed_out}
    code = {} if observation.exit_code is None else {"exit_code": observation.exit_code}
    answered = {} if call_id is None else {"source_call_id": call_id}
    return answered | {"content": observation.text, "extra": {OWN: code | details}}


def _own_fields(trajectory: Trajectory) -> dict[str, Any]:
    fields = {
        "instance_id": trajectory.instance_id,
        "source": trajectory.source,
        "problem_statement": trajectory.problem_statement,
        "stop_reason": trajectory.stop_reason,
        "patch": trajectory.patch,
        "resolved": trajectory.resolved,
        "exit_status": trajectory.exit_status,
        "enforced": trajectory.enforced,
    }
    return {name: value for name, value in fields.items() if value is not None}
