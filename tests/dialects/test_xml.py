from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.dialects import FormatReason, UnwritableStep, get_dialect, xml
from srl_swe.errors import UserError
from srl_swe.types import Action, Observation

values = st.text(st.characters(exclude_categories=["Cs"])).filter(
    lambda text: "</parameter>" not in text and "<parameter=" not in text
)
names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
actions = st.builds(Action, st.sampled_from(xml.TOOLS), st.dictionaries(names, values, max_size=4))
thoughts = st.text(min_size=1).map(str.strip).filter(lambda t: t and "</think>" not in t)


@given(thoughts, actions)
def test_what_is_rendered_is_read_back(thought: str, action: Action) -> None:
    reply = xml.parse_reply(xml.render_reply(thought, action))
    assert reply.action == action
    assert reply.thought == thought
    assert reply.reason is None


@given(st.text())
def test_any_text_is_answered_with_an_action_or_a_reason(text: str) -> None:
    reply = xml.parse_reply(text)
    assert (reply.action is None) == (reply.reason is not None)


@pytest.mark.parametrize("value", ["", "\n", "  indented", "trailing\n", "\n\nboth\n", "\ttab\r\n"])
def test_no_white_space_of_a_value_is_lost(value: str) -> None:
    action = Action("str_replace_editor", {"old_str": value, "path": value})
    assert xml.parse_reply(xml.render_reply("why", action)).action == action


THOUGHT = "<think>\nwhy\n</think>\n\n"
SUBMIT = "<function=submit>\n</function>"
TWICE = (
    "<function=bash>\n<parameter=command>ls</parameter>\n"
    "<parameter=command>rm -r .</parameter>\n</function>"
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SUBMIT, FormatReason.NO_THINK),
        ("I'd say " + THOUGHT + SUBMIT, FormatReason.NO_THINK),
        ("<think> </think>" + SUBMIT, FormatReason.EMPTY_THOUGHT),
        (THOUGHT, FormatReason.NO_ACTION),
        (THOUGHT + "<function=bash>\n<parameter=command>ls", FormatReason.BAD_ACTION),
        (THOUGHT + TWICE, FormatReason.BAD_ACTION),
        (THOUGHT + SUBMIT + "\n" + SUBMIT, FormatReason.TWO_ACTIONS),
        (THOUGHT + SUBMIT + "\nDone.", FormatReason.TRAILING_TEXT),
        (THOUGHT + "So:\n" + SUBMIT, FormatReason.TRAILING_TEXT),
        (THOUGHT + "<function=python>\n</function>", FormatReason.BAD_TOOL),
    ],
)
def test_a_reply_out_of_format_has_its_reason(text: str, reason: FormatReason) -> None:
    assert xml.parse_reply(text).reason is reason
    assert xml.explain(reason)


def test_an_action_inside_of_the_thought_is_not_taken() -> None:
    look = Action("bash", {"command": "ls"})
    text = f"<think>\nshall I {SUBMIT}?\n</think>\n\n{look.text}"
    assert xml.parse_reply(text).action == look


def test_lenient_takes_an_action_without_a_thought_and_with_text_around_it() -> None:
    assert xml.parse_reply(f"Now: {SUBMIT} done", "lenient").action == Action("submit")
    assert xml.parse_reply(SUBMIT * 2, "lenient").reason is FormatReason.TWO_ACTIONS


def test_a_think_tag_that_the_template_opened_need_not_be_opened_again() -> None:
    text = f"why\n</think>\n\n{SUBMIT}"
    assert xml.parse_reply(text).reason is FormatReason.NO_THINK
    assert xml.parse_reply(text, think_opened=True).thought == "why"


def test_a_step_that_would_be_read_back_differently_is_not_written() -> None:
    hostile = Action("bash", {"command": "echo '</parameter>\n<parameter=command>ls'"})
    with pytest.raises(UnwritableStep):
        xml.render_reply("why", hostile)
    with pytest.raises(UnwritableStep):
        xml.render_reply("", Action("submit"))


@pytest.mark.parametrize(
    "text",
    [
        "<function=bash>" + "<parameter=a></parameter>" * 5_000,
        "<function=bash><parameter=command>" * 4_000,  # as a policy that goes in circles
        "<function=" * 20_000,
        "<function=bash>\n" * 20_000 + "<parameter=a>",
        "<function=a><parameter=b>" * 10_000 + "</parameter><parameter=c>" * 10_000,
        "<function=a>" + "<parameter=b>" * 20_000 + "</parameter>" * 20_000,
    ],
)
def test_a_hostile_reply_is_parsed_at_once(text: str) -> None:
    started = time.process_time()
    assert xml.parse_reply(THOUGHT + text).reason is FormatReason.BAD_ACTION
    assert time.process_time() - started < 5  # going back within blocks takes a minute


@pytest.mark.parametrize(
    "block",
    [
        "<function=bash>\n<parameter=>ls</parameter>\n</function>",
        "<function=bash>\n<parameter=command\n>ls</parameter>\n</function>",
        "<function=bash>\n<parameter=command</parameter>\n</function>",
        "<function=>\n<parameter=command>ls</parameter>\n</function>",
        "<function=bash>\nls\n<parameter=command>ls</parameter>\n</function>",
        "<function=bash>\n<parameter=command>ls</parameter>\nls\n</function>",
    ],
)
def test_a_block_with_anything_but_named_parameters_is_not_well_formed(block: str) -> None:
    assert xml.parse_reply(THOUGHT + block).reason is FormatReason.BAD_ACTION
    assert xml.read_actions(block + SUBMIT) == [Action("submit")]


def test_a_block_inside_of_a_value_is_part_of_the_value() -> None:
    quoting = Action("bash", {"command": f"echo '{SUBMIT}' '<function=a> <parameter=b>'"})
    assert xml.parse_reply(THOUGHT + quoting.text).action == quoting
    assert xml.read_actions(f"{SUBMIT} and {quoting.text}") == [Action("submit"), quoting]


def test_an_empty_observation_says_that_nothing_was_printed() -> None:
    assert xml.render_observation(Observation("")) == f"OBSERVATION:\n{xml.NO_OUTPUT}"


def test_an_unknown_dialect_is_a_mistake_that_lists_the_known() -> None:
    with pytest.raises(UserError, match="Known: xml"):
        get_dialect("yaml")
