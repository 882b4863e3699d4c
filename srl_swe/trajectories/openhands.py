"""OpenHands' ``output.jsonl`` (evaluation, resolver), its bare lists of events, and feedback.

``history`` is a list of events, or in older files of pairs of an action and its observation.
Those of the software agent SDK (V1) are other events in the same places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srl_swe.trajectories import openhands_events, openhands_v1_events
from srl_swe.trajectories.fields import Fields
from srl_swe.trajectories.issue_text import find_issue
from srl_swe.trajectories.recorded_patch import tidy_patch
from srl_swe.trajectories.row_facts import NamedInstance, named_instance, recorded_outcome
from srl_swe.trajectories.turns import ended_by_policy, make_steps
from srl_swe.types import StopReason, Trajectory

NAME = "openhands"

_STREAMS = ("history", "trajectory")


def is_one(record: Any) -> bool:
    """A list of events, or a record that holds one; it may be empty beside a ``test_result``."""
    if isinstance(record, list):
        return _are_events(record)
    if not isinstance(record, Mapping):
        return False
    nothing_ran = not record.get("history") and {"history", "test_result"} <= record.keys()
    return nothing_ran or any(_are_events(record.get(key)) for key in _STREAMS)


def read_one(record: Any, where: str) -> Trajectory:
    """One run; a bare list of events is named after its file."""
    row = Fields.of({"history": record} if isinstance(record, list) else record, where)
    events = _events(row, "history" if row.get("history") is not None else "trajectory")
    reader = openhands_v1_events if _are_v1(row.get("history")) else openhands_events
    steps, notes = make_steps(reader.read_events(events))
    task = reader.read_first_message(events) or row.optional_text("instruction")
    result, error = row.mapping("test_result"), row.optional_text("error")
    named = _named_instance(row)
    return Trajectory(
        named.id,
        steps,
        find_issue(task) if task is not None else None,
        _stop_reason(error) or ended_by_policy(steps),
        tidy_patch(result.optional_text("git_patch") or row.optional_text("git_patch")),
        _resolved(row),
        _model(row) or openhands_events.read_model(events),
        NAME,
        exit_status=error,
        notes=(*named.notes, *notes),
    )


def _are_v1(items: object) -> bool:
    return isinstance(items, list) and bool(items) and openhands_v1_events.is_event(items[0])


def _are_events(items: object) -> bool:
    """Whether the first items are events or pairs of them, and no steps of SWE-agent's."""
    if not isinstance(items, list) or not items:
        return False
    if _are_v1(items):
        return True
    first = items[0][0] if isinstance(items[0], list) and items[0] else items[0]
    if not isinstance(first, Mapping) or "role" in first:
        return False
    kinds = [first.get(name) for name in ("action", "observation") if name in first]
    is_step = len([kind for kind in kinds if isinstance(kind, str)]) == 2
    return bool(kinds) and not is_step


def _events(row: Fields, name: str) -> list[Fields]:
    """The events, pairs taken apart."""
    value = row.parsed(name)
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = [event for pair in value if isinstance(pair, list) for event in pair]
    return Fields({name: value}, row.where, row.path).items(name)


def _named_instance(row: Fields) -> NamedInstance:
    """The row's own, else the issue's of the resolver, else that of the feedback or the file."""
    issue = row.mapping("issue")
    owner, repo, number = (issue.get(name) for name in ("owner", "repo", "number"))
    if not row.get("instance_id") and owner and repo and number:
        return NamedInstance(f"{owner}__{repo}-{number}")
    return named_instance(row)


def _model(row: Fields) -> str | None:
    metadata = row.mapping("metadata")
    agent = row.mapping("base_state").mapping("agent")
    places = (metadata.mapping("llm_config"), metadata.mapping("llm"), agent.mapping("llm"))
    return next((model for place in places if (model := place.optional_text("model"))), None)


def _resolved(row: Fields) -> bool | None:
    """What the evaluation found; the resolver's ``success`` is its model's opinion only."""
    for report in (row.mapping("test_result").mapping("report"), row.mapping("report")):
        if report.get("resolved") is not None:
            return report.optional_bool("resolved")
    return recorded_outcome(row)


def _stop_reason(error: str | None) -> StopReason | None:
    limits = ("maximum iteration", "MaxIterationsReached", "max iterations")
    return StopReason.STEP_LIMIT if error and any(limit in error for limit in limits) else None
