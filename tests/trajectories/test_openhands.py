from __future__ import annotations

from typing import Any

import pytest

from srl_swe.trajectories import openhands
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory


def action(number: int, kind: str, source: str = "agent", **args: Any) -> dict[str, Any]:
    return {"id": number, "source": source, "message": "shown", "action": kind, "args": args}


def response(name: str, *calls: tuple[str, str, str]) -> dict[str, Any]:
    written = [
        {"id": i, "type": "function", "function": {"name": tool, "arguments": arguments}}
        for i, tool, arguments in calls
    ]
    message = {"role": "assistant", "content": "I look.", "tool_calls": written}
    return {"id": name, "model": "m", "choices": [{"message": message}]}


def metadata(call_id: str, reply: dict[str, Any]) -> dict[str, Any]:
    calls = len(reply["choices"][0]["message"]["tool_calls"])
    return {
        "tool_call_metadata": {
            "tool_call_id": call_id,
            "model_response": reply,
            "total_calls_in_response": calls,
        }
    }


def answer(cause: int | None, kind: str, content: str, **extras: Any) -> dict[str, Any]:
    event = {"id": 99, "source": "agent", "observation": kind, "content": content}
    return event | {"extras": extras} | ({"cause": cause} if cause is not None else {})


TASK = action(0, "message", "user", content="<issue_description>\nBug.\n</issue_description>")
FINISH = action(50, "finish", thought="Done.")


def read(*events: dict[str, Any], **other: Any) -> Trajectory:
    record = {"instance_id": "a__b-1", "history": [TASK, *events], **other}
    assert openhands.is_openhands(record)
    return openhands.read_openhands(record, "output.jsonl:1")


def test_events_of_one_response_are_one_turn_with_its_own_arguments() -> None:
    reply = response(
        "r1",
        ("t1", "execute_bash", '{"command": "ls"}'),
        ("t2", "str_replace_editor", '{"command": "view", "path": "/w/a.py"}'),
    )
    found = read(
        action(5, "run", command="ls", thought="shown thought") | metadata("t1", reply),
        answer(5, "run", "a.py"),
        action(7, "read", path="/w/a.py", impl_source="oh_aci") | metadata("t2", reply),
        answer(7, "read", "1\tx"),
        FINISH,
    )
    view = Action("str_replace_editor", {"command": "view", "path": "/w/a.py"})
    assert found.steps == (
        Step("I look.", Action("execute_bash", {"command": "ls"}), Observation("a.py"), True, 0),
        Step("I look.", view, Observation("1\tx"), True, 0),
        Step("Done.", Action("finish"), None, True, 1),
    )
    assert (found.model, found.problem_statement) == ("m", "Bug.")
    assert found.stop_reason is StopReason.SUBMITTED


def test_a_command_is_shown_with_the_frame_that_the_policy_saw() -> None:
    frame = {
        "exit_code": 2,
        "working_dir": "/w",
        "py_interpreter_path": "/py",
        "prefix": "",
        "suffix": "\n[The command completed with exit code 2.]",
    }
    found = read(action(5, "run", command="ls"), answer(5, "run", "no", metadata=frame), FINISH)
    assert found.steps[0].observation == Observation(
        "no\n[The command completed with exit code 2.]\n[Current working directory: /w]\n"
        "[Python interpreter: /py]\n[Command finished with exit code 2]",
        exit_code=2,
    )


def test_a_command_that_still_runs_has_no_exit_code_and_timed_out() -> None:
    suffix = "\n[The command has no new output after 30 seconds. You may wait longer]"
    frame = {"exit_code": -1, "working_dir": None, "suffix": suffix}
    found = read(action(5, "run", command="x"), answer(5, "run", "..", metadata=frame), FINISH)
    assert found.steps[0].observation == Observation(f"..{suffix}", timed_out=True)


def test_an_edit_is_shown_as_the_editor_printed_it_and_not_as_a_diff() -> None:
    printed = "File created successfully at: /w/a.py"
    edited = answer(5, "edit", "--- a\n+++ b", formatted_output_and_error=printed)
    found = read(action(5, "edit", path="/w/a.py", file_text="x"), edited, FINISH)
    assert found.steps[0].observation == Observation(printed)


def test_without_a_cause_the_latest_open_action_of_the_kind_is_answered() -> None:
    found = read(
        action(5, "delegate", agent="Planner"),
        action(6, "finish"),
        answer(None, "delegate", "planned"),
        action(8, "run", command="ls"),
        answer(None, "agent_state_changed", ""),
        answer(None, "run", "a.py", exit_code=0),
    )
    assert [step.observation for step in found.steps] == [
        Observation("planned"),
        None,
        Observation("a.py", exit_code=0),
    ]
    assert [step.executed for step in found.steps] == [True, False, True]


def test_the_oldest_files_have_flat_events_in_pairs() -> None:
    task = {"action": "message", "content": "Fix it."}
    run = {"action": "run", "command": "ls", "thought": "I look.", "keep_prompt": True}
    seen = {"observation": "run", "content": "a.py", "command": "ls", "exit_code": 0}
    null = {"observation": "null", "content": ""}
    record = {
        "issue": {"owner": "o", "repo": "r", "number": 5},
        "git_patch": "diff --git a/x b/x\r\n",
        "history": [[task, null], [run, seen], [{"action": "finish", "thought": "Done."}, null]],
    }
    assert openhands.is_openhands(record)
    found = openhands.read_openhands(record, "output.jsonl:1")
    assert found.instance_id == "o__r-5"
    assert found.problem_statement == "Fix it."
    assert found.patch == "diff --git a/x b/x\n"
    assert found.steps[0] == Step(
        "I look.", Action("execute_bash", {"command": "ls"}), Observation("a.py", 0), True, 0
    )


def test_a_message_without_a_call_is_answered_by_the_user() -> None:
    found = read(
        action(5, "message", content="Shall I?"),
        action(6, "message", "user", content="Yes."),
        FINISH,
    )
    assert found.steps[0] == Step("Shall I?", None, Observation("Yes."), False, 0)


def test_a_bare_list_of_events_is_named_after_its_file() -> None:
    found = openhands.read_openhands([TASK, FINISH], "runs/basic.json")
    assert (found.instance_id, len(found.steps)) == ("basic", 1)


def test_the_iteration_limit_is_the_reason_it_stopped() -> None:
    error = "RuntimeError: Agent reached maximum iteration in headless mode."
    found = read(action(5, "run", command="ls"), answer(5, "run", "a.py"), error=error)
    assert (found.stop_reason, found.exit_status) == (StopReason.STEP_LIMIT, error)


def test_an_error_about_a_reply_that_is_not_kept_is_noted() -> None:
    found = read(
        action(5, "run", command="ls"),
        answer(5, "run", "a.py"),
        answer(None, "error", "Parameter 'command' is expected to be one of"),
        FINISH,
    )
    assert found.notes == ("1 recorded observations answer no recorded call",)


def test_rows_that_name_their_source_are_no_events() -> None:
    assert not openhands.is_openhands([{"source": "swe-play", "messages": []}])
    assert not openhands.is_openhands(
        {"trajectory": [{"action": "ls", "observation": "x", "state": ""}]}
    )


@pytest.mark.parametrize(
    ("before", "existed", "command"),
    [("a = 1\nb = 2\n", True, "str_replace"), ("", False, "create"), (None, True, "create")],
)
def test_an_edit_by_a_model_of_its_own_is_what_the_event_shows_of_the_file(
    before: str | None, existed: bool, command: str
) -> None:
    action = {
        "id": 1,
        "source": "agent",
        "action": "edit",
        "args": {"path": "/workspace/x.py", "content": "# ...\nb = 3", "start": 1, "end": -1},
    }
    answer = {
        "id": 2,
        "cause": 1,
        "source": "agent",
        "observation": "edit",
        "content": "[File /workspace/x.py edited with 1 changes.]",
        "extras": {
            "path": "/workspace/x.py",
            "prev_exist": existed,
            "old_content": before,
            "new_content": "a = 1\nb = 3\n",
        },
    }
    (step,) = openhands.read_openhands(
        {"instance_id": "a__b-1", "history": [action, answer]}, "x.jsonl:1"
    ).steps
    assert step.translation is not None
    assert step.translation.action is not None
    assert step.translation.action.arguments["command"] == command
    editor = {**action, "args": {"path": "/workspace/x.py", "command": "str_replace"}}
    (step,) = openhands.read_openhands(
        {"instance_id": "a__b-1", "history": [editor, answer]}, "x.jsonl:1"
    ).steps
    assert step.translation is None
