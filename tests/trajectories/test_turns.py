"""Calls, answers, and which calls ran."""

from __future__ import annotations

from typing import Any

import pytest

from srl_swe.trajectories import chat, openhands
from srl_swe.trajectories.turns import (
    Answer,
    Call,
    Turn,
    find_stop_reason,
    make_observation,
    make_steps,
    never_ran,
)
from srl_swe.types import Action, Observation, Step, StopReason

LS, CAT, SUBMIT = Action("ls"), Action("cat"), Action("submit")


def test_the_steps_of_one_message_share_its_thought_and_number() -> None:
    steps, notes = make_steps(
        [
            Turn("Look.", (Call(LS, "1"), Call(CAT, "2"))),
            Answer(Observation("of cat"), "2"),
            Answer(Observation("of ls"), "1"),
        ]
    )
    assert steps == (
        Step("Look.", LS, Observation("of ls"), executed=True, turn=0),
        Step("Look.", CAT, Observation("of cat"), executed=True, turn=0),
    )
    assert notes == ()


def test_an_answer_with_an_id_is_never_paired_by_position() -> None:
    steps, notes = make_steps([Turn("", (Call(LS, "1"),)), Answer(Observation("?"), "other")])
    assert steps[0].observation is None
    assert notes == ("1 recorded observations answer no recorded call",)


def test_an_id_that_is_used_again_belongs_to_the_later_call() -> None:
    steps, _ = make_steps(
        [
            Turn("a", (Call(LS, "call_0"),)),
            Turn("b", (Call(CAT, "call_0"),)),
            Answer(Observation("of cat"), "call_0"),
        ]
    )
    assert [step.observation for step in steps] == [None, Observation("of cat")]


def test_without_ids_answers_go_to_the_calls_in_order() -> None:
    steps, _ = make_steps(
        [Turn("", (Call(LS), Call(CAT))), Answer(Observation("1")), Answer(Observation("2"))]
    )
    assert [step.observation for step in steps] == [Observation("1"), Observation("2")]


def test_a_message_without_a_call_is_kept_with_what_the_harness_said_to_it() -> None:
    steps, _ = make_steps([Turn("I am done."), Answer(Observation("Please continue."))])
    assert steps == (Step("I am done.", None, Observation("Please continue."), False, 0),)


def test_a_call_without_an_observation_did_not_run_unless_it_is_in_the_last_message() -> None:
    steps, _ = make_steps(
        [
            Turn("", (Call(LS, "1"), Call(CAT, "2"))),
            Answer(Observation("out"), "1"),
            Turn("", (Call(SUBMIT, "3"),)),
        ]
    )
    assert [step.executed for step in steps] == [True, False, True]


def test_a_source_without_any_observation_does_not_say_what_ran() -> None:
    steps, _ = make_steps([Turn("", (Call(LS),)), Turn("", (Call(CAT),))])
    assert [step.executed for step in steps] == [True, True]


def test_one_text_for_all_calls_of_a_message_goes_to_the_last_and_all_ran() -> None:
    steps, _ = make_steps(
        [
            Turn("", (Call(LS), Call(CAT)), answered_as_one=True),
            Answer(Observation("screen")),
            Turn("", (Call(SUBMIT),)),
        ]
    )
    assert [step.observation for step in steps] == [None, Observation("screen"), None]
    assert all(step.executed for step in steps)


def test_a_refused_call_did_not_run() -> None:
    refusal = "Bash command 'git' is not allowed. Please use a different command or tool."
    steps, _ = make_steps([Turn("", (Call(LS),)), Answer(make_observation(refusal))])
    assert not steps[0].executed


@pytest.mark.parametrize(
    ("text", "truncated", "timed_out"),
    [
        ("a", False, False),
        ("a<response clipped><NOTE>To save on context", True, False),
        ("a\n<Observation truncated in middle for saving context>\nb", True, False),
        ("a [... Observation truncated due to length ...] b", True, False),
        ("The command took too long to execute (>90s)", False, True),
        ("EXECUTION TIMED OUT BECAUSE NO OUTPUT WAS PRODUCED FOR MORE THAN 25", False, True),
        ("a\n[The command has no new output after 30 seconds. You may wait", False, True),
        ("The command 'a' was cancelled because it took more than 30 seconds.", False, True),
    ],
)
def test_an_observation_says_whether_it_was_cut_or_ended(
    text: str, truncated: bool, timed_out: bool
) -> None:
    assert make_observation(text) == Observation(text, truncated=truncated, timed_out=timed_out)


def test_only_an_ending_tool_says_that_the_policy_ended_the_run() -> None:
    assert find_stop_reason([Step("", SUBMIT)]) is StopReason.SUBMITTED
    assert find_stop_reason([Step("", SUBMIT), Step("", LS)]) is None
    assert find_stop_reason([]) is None


MINIS = Action("bash", {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"})

REFUSALS = [
    "Cannot execute multiple commands at once.\nPlease run each command separately OR chain them",
    "ERROR: Cannot execute multiple commands at once.\nPlease run",
    "[An error occurred during execution.]\nCannot execute multiple commands at once.\nPlease",
    "Tool 'ipython' not found. Available: ['terminal', 'finish']",
    "Error validating tool 'file_editor': 1 validation error for FileEditorAction\npath",
    "Error validating args {\"a\": 1} for tool 'terminal': Field required",
    'Missing required argument "command" in tool call execute_bash',
    "Tool web is not registered. (arguments: {}). Please check the tool name",
    "Action rejected: Rather not.",
    "The user doesn't want to proceed with this tool use. The tool use was rejected",
    "[Request interrupted by user for tool use]",
    "exec command rejected by user",
    "<tool_use_error>File has not been read yet. Read it first before writing to it.",
    "Error: No such tool available: Foo",
    "InputValidationError: Bash failed due to the following issue",
    "Permission to use Bash with command rm -rf / has been denied.",
    "Claude requested permissions to write to /x, but you haven't granted it yet.",
    'Tool "foo" not found in registry.',
    "Error: Invalid parameters provided. Reason: params must have required property 'x'",
    "failed to parse function arguments: missing field `command`",
    "unsupported call: foo",
    "Bash command 'git' is not allowed. Please use a different command or tool.",
    "Your bash command contained syntax errors and was NOT executed. Please fix",
    "Operation 'vim a.py' is not supported by this environment.",
    "Your proposed edit has introduced new syntax error(s). Please read this error message",
    "action was not executed",
    "The user rejected permission to use this specific tool call.",
    'Tool execution for "Shell" requires user confirmation, which is not supported',
    'Error executing tool Shell: Tool execution for "Shell" requires user confirmation',
    "This Bash command contains multiple operations. The following part requires approval: rm",
    "File has not been read yet. Read it first before writing to it.",
    "You must read the file /a.py before overwriting it.",
    "patch rejected: writing outside of the project",
    "Missing required parameters for function 'execute_bash': {'command'}",
    "Parameter 'cmd' is not allowed for function 'execute_bash'.",
    "Command(s) not executed. The user rejected your command(s) with the following message:\n\nNo.",
    "Commands not executed. Switching to human mode",
    "The action has not been executed due to a runtime error. The runtime system may have crashed",
    "[Below is the output of the previous command.]\n1\n2\n"
    '[Your command "rm -rf build" is NOT executed. The previous command is still running - You '
    "CANNOT send new commands until the previous command is completed.]",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_known_in_the_words_of_every_harness(text: str) -> None:
    assert never_ran(make_observation(text))
    assert never_ran(make_observation(f"OBSERVATION:\n{text}"))


@pytest.mark.parametrize(
    "text",
    [
        "a.py: Tool 'x' not found. Available:",
        "     1\tCannot execute multiple commands at once.",
        "grep: Action rejected",
        "1\tBash command 'git' is not allowed",
        "User rejected by policy in 3 tests",
        "Traceback: InputValidationError: x",
        "ERROR:\nNo replacement was performed, old_str `x` did not appear verbatim in /a.",
        "",
    ],
)
def test_what_a_command_prints_about_refusals_is_not_one(text: str) -> None:
    assert not never_ran(make_observation(text))


def tool(call_id: str, name: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_refused_calls_of_a_chat_are_not_executed() -> None:
    calls = [tool(str(n), "bash", '{"command": "ls"}') for n, _ in enumerate(REFUSALS)]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Fix."}]
    for call, text in zip(calls, REFUSALS, strict=True):
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
    messages.append({"role": "assistant", "content": "", "tool_calls": [tool("x", "submit")]})
    steps = chat.CHAT.read(messages, "x.json").steps
    assert [step.executed for step in steps] == [False] * len(REFUSALS) + [True]


@pytest.mark.parametrize("kind", ["error", "user_rejected"])
def test_an_event_that_is_an_error_answers_a_call_that_never_ran(kind: str) -> None:
    history = [
        {"id": 1, "source": "user", "action": "message", "args": {"content": "Fix."}},
        {"id": 2, "source": "agent", "action": "run", "args": {"command": "ls"}},
        {"id": 3, "cause": 2, "observation": kind, "content": "In any words."},
        {"id": 4, "source": "agent", "action": "finish", "args": {}},
    ]
    steps = openhands.read_openhands({"instance_id": "a__b-1", "history": history}, "x").steps
    assert [step.executed for step in steps] == [False, True]


@pytest.mark.parametrize("end", [SUBMIT, MINIS, Action("finish")])
@pytest.mark.parametrize("answer", [None, "Skipped in some words."])
def test_what_follows_a_submit_in_the_same_message_did_not_run(
    end: Action, answer: str | None
) -> None:
    turn = Turn("t", (Call(LS, "1"), Call(end, "2"), Call(LS, "3")))
    answers = [Answer(Observation("a.py"), "1")]
    answers += [Answer(Observation(answer), "3")] if answer else []
    steps, _ = make_steps([turn, *answers])
    assert [step.executed for step in steps] == [True, True, False]
    assert find_stop_reason(steps) is StopReason.SUBMITTED


def test_a_submit_that_did_not_end_the_run_stops_nothing() -> None:
    """SWE-agent's first submit shows a review."""
    first = Turn("t", (Call(SUBMIT, "1"), Call(LS, "2")))
    answers = [Answer(Observation("Review."), "1"), Answer(Observation("a.py"), "2")]
    steps, _ = make_steps([first, *answers, Turn("t", (Call(SUBMIT, "3"),))])
    assert all(step.executed for step in steps)


def test_a_source_that_marks_a_refusal_is_believed() -> None:
    steps, _ = make_steps(
        [Turn("t", (Call(LS, "1"),)), Answer(Observation("Whatever."), "1", refused=True)]
    )
    assert not steps[0].executed
