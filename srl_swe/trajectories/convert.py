"""Writes trajectories in other formats: a file or a folder, whole or not at all."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from srl_swe.errors import UserError, did_you_mean
from srl_swe.files import written_whole
from srl_swe.trajectories.atif import OWN
from srl_swe.trajectories.jsonl import render_line, save_rows
from srl_swe.trajectories.sweagent import parse_exit_status
from srl_swe.types import Action, Step, StopReason, Trajectory

# SWE-agent 1.x's files, for its inspector and its ``run-replay``.

_EXIT_STATUS = {
    StopReason.SUBMITTED: "submitted",
    StopReason.STEP_LIMIT: "exit_cost",
    StopReason.TOKEN_LIMIT: "exit_context",
    StopReason.TIME_LIMIT: "exit_total_execution_time",
    StopReason.FORMAT_ERRORS: "exit_format",
    StopReason.SANDBOX_ERROR: "exit_environment_error",
    StopReason.POLICY_ERROR: "exit_api",
}
_TYPED = frozenset({"view_range", "insert_line", "line_number", "start_line", "end_line"})
"""Arguments that SWE-agent's tools declare as numbers or lists of numbers."""


def render_traj(trajectory: Trajectory) -> dict[str, Any]:
    """The content of a ``.traj`` file, for :func:`~.sweagent.read_sweagent`.

    The format has no exit codes, no ``resolved``, and one action per message: each step becomes
    a message of its own.
    """
    history: list[dict[str, Any]] = [_message("user", trajectory.problem_statement or "")]
    steps = []
    for number, step in enumerate(trajectory.steps):
        history += _exchange(step, f"call_{number}")
        steps.append(
            {
                "action": render_command(step.action) if step.action else "",
                "observation": step.observation.text if step.observation else "",
                "response": step.thought,
                "thought": step.thought,
                "execution_time": 0.0,
                "state": {"working_dir": "/testbed"} if step.executed else {},
                "query": [],
                "extra_info": {},
            }
        )
    if steps and not trajectory.steps[-1].executed:  # the last is read as executed
        steps.append({"action": "", "state": {"working_dir": "/testbed"}})
    status, reason = trajectory.exit_status, trajectory.stop_reason
    if reason is not None and parse_exit_status(status) != reason:
        status = _EXIT_STATUS[reason]  # the source's own means something else to SWE-agent
    return {
        "environment": trajectory.instance_id,
        "trajectory": steps,
        "history": history,
        "info": {"exit_status": status, "submission": trajectory.patch},
        "replay_config": {"agent": {"model": {"name": trajectory.model}}},
    }


def render_command(action: Action) -> str:
    """SWE-agent's command line for the call.

    >>> render_command(Action("open", {"path": "a b.py", "line_number": "3"}))
    "open 'a b.py' 3"
    """
    values = dict(action.arguments)
    if action.tool == "bash":
        return values.get("command", "")
    if action.tool == "edit" and "start_line" in values:
        lines = f"{values['start_line']}:{values.get('end_line', '')}"
        text = [values["replacement_text"]] if "replacement_text" in values else []
        return "\n".join([f"edit {lines}", *text, "end_of_edit"])
    if action.tool != "str_replace_editor":
        return " ".join([action.tool, *map(shlex.quote, values.values())])
    words = ["str_replace_editor", values.pop("command", ""), shlex.quote(values.pop("path", ""))]
    for name, value in values.items():
        typed = _typed(name, value)
        numbers = typed if isinstance(typed, list) else [typed]
        words += [f"--{name}", *(shlex.quote(str(number)) for number in numbers)]
    return " ".join(words)


def _exchange(step: Step, call_id: str) -> list[dict[str, Any]]:
    """The policy's message and its answer; empty for a step that never ran."""
    if step.action is None or not step.executed:
        return []
    arguments = {name: _typed(name, value) for name, value in step.action.arguments.items()}
    function = {"name": step.action.tool, "arguments": json.dumps(arguments, ensure_ascii=False)}
    reply = _message(
        "assistant",
        step.thought,
        thought=step.thought,
        action=render_command(step.action),
        tool_calls=[{"id": call_id, "type": "function", "function": function}],
        message_type="action",
    )
    text = f"OBSERVATION:\n{step.observation.text}" if step.observation else ""
    answer = _message("tool", text, tool_call_ids=[call_id], message_type="observation")
    return [reply, answer] if step.observation else [reply]


def _message(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, "agent": "main", **more}


def _typed(name: str, value: str) -> Any:
    """The value in the tool's type, if the text can be converted without loss."""
    if name not in _TYPED:
        return value
    try:
        typed = json.loads(value)
    except ValueError:
        return value
    return typed if json.dumps(typed) == value else value


# ATIF 1.7, for Harbor's tools. The format has no fields for an instance, a patch, an exit code or a
# step that never ran: these go under ``srl_swe`` into the ``extra`` that it allows everywhere.


def render_atif(trajectory: Trajectory) -> dict[str, Any]:
    """The JSON object, the inverse of :func:`srl_swe.trajectories.atif.read_atif`."""
    agent = {"name": trajectory.source, "version": "unknown", "model_name": trajectory.model}
    task = {"step_id": 1, "source": "user", "message": trajectory.problem_statement or ""}
    turns = groupby(trajectory.steps, lambda s: object() if s.turn is None else s.turn)
    own = {
        "instance_id": trajectory.instance_id,
        "source": trajectory.source,
        "problem_statement": trajectory.problem_statement,
        "stop_reason": trajectory.stop_reason,
        "patch": trajectory.patch,
        "resolved": trajectory.resolved,
        "exit_status": trajectory.exit_status,
        "enforced": trajectory.enforced,
        "normal_form": trajectory.normal_form,
    }
    return {
        "schema_version": "ATIF-v1.7",
        "session_id": trajectory.instance_id,
        "agent": _given(agent),
        "steps": [task, *(_write_turn(n, list(steps)) for n, (_, steps) in enumerate(turns, 2))],
        **({"notes": "\n".join(trajectory.notes)} if trajectory.notes else {}),
        "extra": {OWN: _given(own)},
    }


def _write_turn(step_id: int, steps: Sequence[Step]) -> dict[str, Any]:
    """The steps of one message as one of ATIF's."""
    calls, results = [], []
    for number, step in enumerate(steps, 1):
        call_id = f"call_{step_id}_{number}" if step.action else None
        if step.action is not None:
            plain = _step_adapter().dump_python(step, mode="json")
            own = _given({name: plain[name] for name in ("executed", "translation", "expert")})
            calls.append(
                {
                    "tool_call_id": call_id,
                    "function_name": step.action.tool,
                    "arguments": dict(step.action.arguments),
                    "extra": {OWN: own},
                }
            )
        if (seen := step.observation) is not None:
            code = {"exit_code": seen.exit_code}
            flags = {"truncated": seen.truncated, "timed_out": seen.timed_out}
            result = {"source_call_id": call_id, "content": seen.text}
            results.append(_given(result) | {"extra": {OWN: _given(code | flags)}})
    written = {"step_id": step_id, "source": "agent", "message": steps[0].thought}
    written |= {"tool_calls": calls} if calls else {}
    return written | ({"observation": {"results": results}} if results else {})


@cache
def _step_adapter() -> TypeAdapter[Step]:
    return TypeAdapter(Step)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


Writer = Callable[[Path, Iterable[Trajectory]], int]
"""Writes all trajectories to a path, one by one, and returns their number."""

_UNSAFE = re.compile(r"[^\w.-]", re.ASCII)
_LONGEST_NAME = 150
_FILES = frozenset({"jsonl", "parquet"})
"""Formats that are one file; the others are a folder."""


def convert(trajectories: Iterable[Trajectory], out: Path, to: str) -> int:
    """Write all trajectories to ``out`` in a format of :data:`WRITERS`; returns their number.

    Raises UserError, and leaves nothing behind, if the format is unknown, if ``out`` exists, has a
    wrong ending or can't be written, and without a trajectory.
    """
    write = find_writer(to)
    ending = f".{to}"
    if to in _FILES and out.suffix != ending:
        raise UserError(f"{out}: name a file that ends in {ending}; readers go by the ending.")
    if out.exists():
        raise UserError(f"{out} exists; remove it, or name another OUT.")
    try:
        with written_whole(out) as target:
            count = write(target, trajectories)
            if not count:
                raise UserError(f"{out}: not written, as there are no trajectories.")
    except OSError as error:
        raise UserError(f"{out} can't be written: {error}.") from error
    return count


def find_writer(to: str) -> Writer:
    """The writer of that name. Raises UserError."""
    if to not in WRITERS:
        hint = did_you_mean(to, WRITERS)
        raise UserError(f"unknown format {to!r}.{hint} Known: {', '.join(WRITERS)}.")
    return WRITERS[to]


def _save_lines(path: Path, trajectories: Iterable[Trajectory]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for trajectory in trajectories:
            file.write(render_line(trajectory))
            count += 1
    return count


def _one_file_each(render: Callable[[Trajectory], dict[str, Any]], ending: str) -> Writer:
    def write(folder: Path, trajectories: Iterable[Trajectory]) -> int:
        folder.mkdir()
        taken: set[str] = set()
        for trajectory in trajectories:
            text = json.dumps(render(trajectory), indent=2, ensure_ascii=False) + "\n"
            raw = text.encode("utf-8", errors="surrogateescape")  # bytes of a patch outside UTF-8
            name = _free_name(trajectory.instance_id, taken)
            (folder / f"{name}{ending}").write_bytes(raw)
        return len(taken)

    return write


def _free_name(instance_id: str, taken: set[str]) -> str:
    """A file name for the id, numbered if an instance has several attempts.

    >>> taken = set()
    >>> [_free_name(name, taken) for name in ("a__b-1", "a__b-1", "../etc/x")]
    ['a__b-1', 'a__b-1.2', '_etc_x']
    """
    plain = _UNSAFE.sub("_", instance_id).lstrip(".-")[:_LONGEST_NAME] or "trajectory"
    name, attempt = plain, 1
    while name in taken:
        attempt += 1
        name = f"{plain}.{attempt}"
    taken.add(name)
    return name


WRITERS: Mapping[str, Writer] = MappingProxyType(
    {
        "jsonl": _save_lines,
        "traj": _one_file_each(render_traj, ".traj"),
        "atif": _one_file_each(render_atif, ".json"),
        "parquet": save_rows,
    }
)
"""Writers by format. Our own JSONL and parquet keep everything; ATIF numbers unnumbered messages;
a ``.traj`` has no exit codes, no ``resolved``, no source but SWE-agent, one action per message."""
