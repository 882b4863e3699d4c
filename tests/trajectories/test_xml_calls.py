from __future__ import annotations

import time

import pytest

from srl_swe.trajectories.chat_events import read_xml_calls
from srl_swe.types import Action

EDIT = (
    "I fix it.\n\n<function=str_replace_editor>\n<parameter=command>str_replace</parameter>\n"
    "<parameter=old_str>\n\n    x = 1\n\n</parameter>\n</function>"
)


def test_exactly_one_newline_is_stripped_on_each_side_of_a_value() -> None:
    thought, actions = read_xml_calls(EDIT)
    assert thought == "I fix it."
    assert actions == [
        Action("str_replace_editor", {"command": "str_replace", "old_str": "\n    x = 1\n"})
    ]


def test_two_blocks_are_two_calls_and_the_text_between_is_no_thought() -> None:
    text = "First.<function=a>\n</function>\nthen\n<function=b>\n</function>"
    assert read_xml_calls(text) == ("First.", [Action("a"), Action("b")])


def test_the_last_closing_tag_may_be_missing() -> None:
    text = "<function=finish>\n<parameter=message>Done.</parameter>\n"
    assert read_xml_calls(text) == ("", [Action("finish", {"message": "Done."})])


def test_a_closing_tag_within_a_value_belongs_to_the_value() -> None:
    text = "<function=bash>\n<parameter=command>echo '</function>'</parameter>\n</function>"
    assert read_xml_calls(text)[1] == [Action("bash", {"command": "echo '</function>'"})]


@pytest.mark.parametrize(
    "text",
    [
        "Just text.",
        "<function=>\n</function>",
        "<function=bash>\n<parameter=command>ls\n</function>",
        "<finish>\n<parameter=message>no function tag</parameter>\n</finish>",
    ],
)
def test_what_is_no_well_formed_call_is_none(text: str) -> None:
    assert read_xml_calls(text)[1] == []


def test_a_call_that_is_only_thought_about_is_none() -> None:
    text = "<think>Maybe <function=rm>\n</function>?</think><function=ls>\n</function>"
    assert read_xml_calls(text)[1] == [Action("ls")]


@pytest.mark.parametrize(
    "piece", ["<function=", "<function=a>", "<function=a><parameter=b>", "<parameter=b>", "\n"]
)
def test_no_text_takes_more_than_linear_time(piece: str) -> None:
    started = time.monotonic()
    read_xml_calls(piece * 100_000)
    assert time.monotonic() - started < 20
