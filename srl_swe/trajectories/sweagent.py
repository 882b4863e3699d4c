"""SWE-agent's ``.traj`` files of every version, and its demonstrations.

``trajectory`` lists every step with its raw observation, those included that never ran;
``history`` is the conversation that was kept of it. Demonstrations have only a history.
Source: SWE-agent 0.1 to 1.1, ``sweagent/types.py`` and ``agent/agents.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from srl_swe.trajectories.fields import Fields
from srl_swe.trajectories.observed import never_ran, observed
from srl_swe.trajectories.recorded_patch import tidy_patch
from srl_swe.trajectories.row_facts import NamedInstance, named_instance
from srl_swe.trajectories.sweagent_commands import parse_command
from srl_swe.trajectories.sweagent_history import read_calls, read_history, read_issue
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory

NAME = "swe-agent"

PSEUDO_ACTIONS = frozenset(
    {
        "skip",
        "exit_api",
        "exit_context",
        "exit_cost",
        "exit_environment_error",
        "exit_error",
        "exit_forfeit",
        "exit_format",
    }
)
"""What 0.x writes as the action of a run that it ends itself: no commands."""

_STOP_REASONS = {
    "submitted": StopReason.SUBMITTED,
    "exit_context": StopReason.TOKEN_LIMIT,
    "exit_cost": StopReason.TOKEN_LIMIT,
    "exit_total_execution_time": StopReason.TIME_LIMIT,
    "exit_command_timeout": StopReason.TIME_LIMIT,
    "exit_format": StopReason.FORMAT_ERRORS,
    "exit_environment_error": StopReason.SANDBOX_ERROR,
}
_NO_NAMES = frozenset({"", "main", "swe_main"})
"""Values of ``environment`` that don't say which instance it was."""


def is_one(record: Any) -> bool:
    """Whether it has steps as SWE-agent writes them, or only a history of messages."""
    if not isinstance(record, Mapping):
        return False
    steps, history = record.get("trajectory"), record.get("history")
    if steps == [] and history == []:
        return isinstance(record.get("info"), Mapping)
    if steps:
        return _first_has(steps, "action", "observation")
    return _first_has(history, "role", "content") or _first_has(history, "role", "tool_calls")


def read_one(record: Any, where: str) -> Trajectory:
    """One run; the patch is its submission, the instance id its environment or the file."""
    row = Fields.of(record, where)
    history, info = row.items("history"), row.mapping("info")
    recorded = row.items("trajectory")
    steps, notes = _read_steps(recorded, history) if recorded else read_history(history)
    exit_status = info.optional_text("exit_status")
    submission = info.optional_text("submission")
    patch = clean_submission(_shown_at_the_end(steps) if submission is None else submission)
    environment = row.optional_text("environment") or ""
    named = named_instance(row) if environment in _NO_NAMES else NamedInstance(environment)
    return Trajectory(
        named.id,
        steps,
        read_issue(history),
        stop_reason_of(exit_status),
        patch,
        model=_model(row),
        source=NAME,
        exit_status=exit_status,
        notes=(*named.notes, *notes, *_notes(row, patch)),
    )


def stop_reason_of(exit_status: str | None) -> StopReason | None:
    """The ending; what a limit made it submit, ``submitted (exit_cost)``, ended by that limit.

    >>> stop_reason_of("submitted (exit_context)").value
    'token_limit'
    """
    inner = re.fullmatch(r"submitted \((.*)\)", exit_status or "")
    return _STOP_REASONS.get(inner[1] if inner else exit_status or "")


def clean_submission(submission: str | None) -> str | None:
    """The diff without the terminal's line ends; None where it is none (a flag, nothing)."""
    patch = tidy_patch(submission)
    is_diff = patch is not None and (not patch or patch.startswith(("diff --git ", "--- ")))
    return patch if is_diff else None


def _shown_at_the_end(steps: Sequence[Step]) -> str | None:
    """What ``submit`` answered, which is the patch: all that a demonstration has of it."""
    last = steps[-1] if steps else None
    if last is None or last.action is None or last.action.tool != "submit":
        return None
    return (last.observation and last.observation.text) or None


def _first_has(items: Any, *names: str) -> bool:
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, Mapping) and all(name in first for name in names)


def _read_steps(
    steps: Sequence[Fields], history: Sequence[Fields]
) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    calls = _calls_by_command(history)
    has_states = any(_state(step) for step in steps)
    read = []
    for turn, step in enumerate(steps):
        is_last = turn == len(steps) - 1
        ran = bool(_state(step)) or is_last or not has_states
        read.append(_read_step(turn, step, calls, ran=ran))
    return tuple(read), ()


def _read_step(turn: int, step: Fields, calls: Mapping[str, Action], *, ran: bool) -> Step:
    command = (step.optional_text("action") or "").strip("\n")
    printed = step.optional_text("observation") or ""
    thought = (step.optional_text("thought") or step.optional_text("response") or "").strip()
    if not command.strip() or command.strip() in PSEUDO_ACTIONS:
        observation = Observation(printed) if printed else None
        return Step(thought, None, observation, executed=False, turn=turn)
    observation = observed(printed) if printed or ran else None
    action = calls.get(command) or parse_command(command)
    return Step(thought, action, observation, ran and not never_ran(observation), turn)


def _calls_by_command(history: Sequence[Fields]) -> dict[str, Action]:
    """The calls as the policy made them, by the command line that SWE-agent made of each."""
    calls = {}
    for message in history:
        command = message.get("action")
        if isinstance(command, str) and not message.get("is_demo") and message.get("tool_calls"):
            for call in read_calls(message)[:1]:
                calls[command.strip("\n")] = call.action
    return calls


def _state(step: Fields) -> Mapping[str, Any]:
    """What SWE-agent asked the container after the step; empty where the step never ran."""
    return step.mapping("state").values


def _model(row: Fields) -> str | None:
    return row.mapping("replay_config").mapping("agent").mapping("model").optional_text("name")


def _notes(row: Fields, patch: str | None) -> tuple[str, ...]:
    notes = []
    if row.mapping("info").get("submission") and patch is None:
        notes.append("the submission is no diff")
    if row.get("attempts"):
        notes.append(f"the best of {len(row.items('attempts'))} attempts")
    return tuple(notes)
