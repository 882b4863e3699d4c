from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srl_swe.trajectories import load_trajectories, openhands
from srl_swe.trajectories.row_facts import NO_INSTANCE
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory

TASK = {
    "id": "e1",
    "source": "user",
    "kind": "MessageEvent",
    "llm_message": {
        "role": "user",
        "content": [{"type": "text", "text": "<issue_description>\nBug.\n</issue_description>"}],
    },
}
SYSTEM = {"id": "e0", "source": "agent", "kind": "SystemPromptEvent", "tools": []}


def text(said: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": said}]


def action(call_id: str, tool: str, thought: str = "", **other: Any) -> dict[str, Any]:
    arguments = other.pop("arguments", {"command": "ls"})
    return {
        "id": f"a-{call_id}",
        "source": "agent",
        "kind": "ActionEvent",
        "thought": text(thought) if thought else [],
        "action": {**arguments, "kind": "TerminalAction"},
        "tool_name": tool,
        "tool_call_id": call_id,
        "tool_call": {"id": call_id, "name": tool, "arguments": json.dumps(arguments)},
        "llm_response_id": call_id,
        **other,
    }


def seen(call_id: str, said: str, **observation: Any) -> dict[str, Any]:
    return {
        "source": "environment",
        "kind": "ObservationEvent",
        "tool_call_id": call_id,
        "action_id": f"a-{call_id}",
        "observation": {"content": text(said), "kind": "TerminalObservation", **observation},
    }


FINISH = action("f", "finish", "Done.", arguments={"message": "Fixed."})


def read(*events: dict[str, Any], **row: Any) -> Trajectory:
    record = {"instance_id": "a__b-1", "history": [SYSTEM, TASK, *events], **row}
    assert openhands.is_openhands(record)
    return openhands.read_openhands(record, "output.jsonl:1")


def test_calls_of_one_response_are_one_turn() -> None:
    found = read(
        action("1", "terminal", "I look.", llm_response_id="r", reasoning_content="Hm."),
        action("2", "terminal", llm_response_id="r", arguments={"command": "pwd"}),
        seen("2", "/w", exit_code=0),
        seen("1", "a.py", exit_code=1),
        FINISH,
        metadata={"llm": {"model": "m"}},
        test_result={"git_patch": "diff --git a/x b/x", "report": {"resolved": True}},
    )
    thought, ls, pwd = "Hm.\n\nI look.", {"command": "ls"}, {"command": "pwd"}
    assert found == Trajectory(
        "a__b-1",
        (
            Step(thought, Action("terminal", ls), Observation("a.py", 1), True, 0),
            Step(thought, Action("terminal", pwd), Observation("/w", 0), True, 0),
            Step("Done.", Action("finish", {"message": "Fixed."}), None, True, 1),
        ),
        "Bug.",
        StopReason.SUBMITTED,
        "diff --git a/x b/x\n",
        True,
        "m",
        "openhands",
    )


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "AgentErrorEvent", "source": "agent", "tool_call_id": "1", "error": "Any words."},
        {
            "kind": "UserRejectObservation",
            "source": "environment",
            "action_id": "a-1",
            "rejection_reason": "Not that.",
        },
        seen("1", "In words of a later version.", is_error=True, exit_code=-1),
        seen("1", "Cannot execute multiple commands at once.\nProvided commands:", exit_code=-1),
    ],
)
def test_a_call_that_was_refused_did_not_run_whatever_the_words(answer: dict[str, Any]) -> None:
    found = read(action("1", "terminal"), answer, FINISH)
    assert [step.executed for step in found.steps] == [False, True]
    assert found.steps[0].observation is not None


def test_a_command_that_failed_did_run() -> None:
    found = read(action("1", "terminal"), seen("1", "no", is_error=True, exit_code=2), FINISH)
    assert found.steps[0].executed


def test_a_call_that_could_not_be_parsed_has_no_action_and_did_not_run() -> None:
    found = read(action("1", "ipython", action=None), FINISH)
    assert (found.steps[0].action, found.steps[0].executed) == (
        Action("ipython", {"command": "ls"}),
        False,
    )


def test_the_frame_of_a_command_is_shown_as_the_policy_saw_it() -> None:
    metadata = {"exit_code": 0, "working_dir": "/w", "prefix": "", "suffix": "\n[Done.]"}
    found = read(action("1", "terminal"), seen("1", "a.py", metadata=metadata), FINISH)
    assert found.steps[0].observation == Observation(
        "a.py\n[Done.]\n[Current working directory: /w]\n[Command finished with exit code 0]", 0
    )


def test_a_message_without_a_call_is_a_step_that_the_user_answers() -> None:
    said = {"source": "agent", "kind": "MessageEvent", "llm_message": {"content": text("Shall I?")}}
    yes = {"source": "user", "kind": "MessageEvent", "llm_message": {"content": text("Yes.")}}
    assert read(said, yes, FINISH).steps[0] == Step("Shall I?", None, Observation("Yes."), False, 0)


def events() -> list[dict[str, Any]]:
    """More than ten of them, so that their order by name is not that of their numbers."""
    calls = [(action(str(n), "terminal"), seen(str(n), str(n), exit_code=0)) for n in range(12)]
    return [SYSTEM, TASK, *(event for pair in calls for event in pair), FINISH]


@pytest.mark.parametrize("pad", [1, 5])
def test_a_folder_of_events_is_one_conversation(tmp_path: Path, pad: int) -> None:
    folder = tmp_path / "django__django-11119" / "events"
    folder.mkdir(parents=True)
    for number, event in enumerate(events()):
        (folder / f"event-{number:0{pad}d}-x.json").write_text(json.dumps(event))
    state = {"agent": {"llm": {"model": "m"}}}
    (folder.parent / "base_state.json").write_text(json.dumps(state))
    for source in (tmp_path, folder.parent, folder, f"{folder}/*.json"):
        (found,) = load_trajectories(source)
        assert (found.instance_id, found.model) == ("django__django-11119", "m")
        shown = [step.observation.text for step in found.steps if step.observation]
        assert shown == [str(n) for n in range(12)]


def test_a_file_with_an_event_per_line_is_one_conversation(tmp_path: Path) -> None:
    lines = "\n".join(map(json.dumps, events()))
    (tmp_path / "events.jsonl").write_text(lines)
    (found,) = load_trajectories(tmp_path / "events.jsonl")
    assert (len(found.steps), found.notes) == (13, (NO_INSTANCE,))


def test_a_row_in_which_nothing_ran_is_read() -> None:
    record = {"instance_id": "a__b-1", "history": [], "test_result": {}, "error": "No sandbox."}
    assert openhands.is_openhands(record)
    found = openhands.read_openhands(record, "output.jsonl:1")
    assert (found.steps, found.exit_status) == ((), "No sandbox.")


def test_a_folder_called_events_may_hold_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    folder.mkdir()
    record = {"instance_id": "a__b-1", "history": [SYSTEM, TASK, FINISH]}
    for number in (1, 2):
        (folder / f"{number}.json").write_text(json.dumps(record))
    assert [found.instance_id for found in load_trajectories(tmp_path)] == ["a__b-1"] * 2
