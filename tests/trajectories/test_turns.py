from __future__ import annotations

import pytest

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
    "text",
    [
        "Operation 'vim a.py' is not supported by this environment.",
        "Your bash command contained syntax errors and was NOT executed. Please fix",
        "Your proposed edit has introduced new syntax error(s). Please read this error message",
        "ERROR: Cannot execute multiple commands at once.\nPlease run each command SEPARATELY",
        "action was not executed",
    ],
)
def test_every_harness_has_words_of_its_own_for_not_running_something(text: str) -> None:
    assert never_ran(make_observation(text))


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


def test_a_file_that_quotes_a_refusal_is_no_refusal() -> None:
    assert not never_ran(make_observation("1\tBash command 'git' is not allowed"))


def test_only_an_ending_tool_says_that_the_policy_ended_the_run() -> None:
    assert find_stop_reason([Step("", SUBMIT)]) is StopReason.SUBMITTED
    assert find_stop_reason([Step("", SUBMIT), Step("", LS)]) is None
    assert find_stop_reason([]) is None
