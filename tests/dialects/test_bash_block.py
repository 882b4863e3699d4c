from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.dialects import FormatReason, UnwritableStep, bash_block, read_actions, xml
from srl_swe.dialects.bash_block import SUBMIT_COMMAND, find_blocks, render_block
from srl_swe.trajectories.turns import read_mini_output
from srl_swe.types import Action, Observation

pieces = st.sampled_from(["```", "````", "`", "\n", "bash", "```bash\n", "\n```\n", " ", "ls"])
commands = st.text() | st.lists(pieces).map("".join)
thoughts = st.text(min_size=1).map(str.strip).filter(lambda t: t and "</think>" not in t)


def bash(command: str) -> Action:
    return Action("bash", {"command": command})


@given(thoughts, commands.map(bash) | st.just(Action("submit")))
def test_what_is_rendered_is_read_back(thought: str, action: Action) -> None:
    reply = bash_block.parse_reply(bash_block.render_reply(thought, action))
    assert (reply.thought, reply.action, reply.reason) == (thought, action, None)


@given(st.text() | st.lists(pieces).map("".join))
def test_any_text_is_answered_with_an_action_or_a_reason(text: str) -> None:
    for strictness in ("strict", "lenient"):
        reply = bash_block.parse_reply(f"<think>why</think>\n{text}", strictness)
        assert (reply.action is None) == (reply.reason is not None)


@given(st.lists(commands.map(bash), min_size=1, max_size=4))
def test_what_the_actions_of_a_solution_say_is_read_back(actions: list[Action]) -> None:
    text = "\n\n".join(map(bash_block.render_action, actions))
    assert bash_block.parse_solution(f"<think>why</think>\n\n{text}").actions == tuple(actions)
    assert read_actions(text) == actions


def test_the_text_of_an_action_says_of_which_dialect_it_is() -> None:
    hostile = bash("<function=bash>\n<parameter=command>ls</parameter>\n</function>")
    assert read_actions(bash_block.render_action(hostile)) == [hostile]
    fenced = bash("cat <<E\n```bash\nls\n```\nE")
    assert read_actions(xml.render_action(fenced)) == [fenced]


@given(commands, st.text(alphabet="ab \n`"), st.text(alphabet="ab \n"))
def test_a_block_is_found_in_any_text_around_it(content: str, before: str, after: str) -> None:
    text = f"{before}\n{render_block(content, 'bash')}\n{after}"
    blocks = find_blocks(text, ["bash"])
    assert blocks.found == (content,)
    assert blocks.around == f"{before}\n{after}"


THOUGHT = "<think>\nwhy\n</think>\n\n"
LS = "```bash\nls\n```"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LS, FormatReason.NO_THINK),
        ("I'd say " + THOUGHT + LS, FormatReason.NO_THINK),
        ("<think> </think>" + LS, FormatReason.EMPTY_THOUGHT),
        (THOUGHT, FormatReason.NO_ACTION),
        (THOUGHT + "ls", FormatReason.NO_ACTION),
        (THOUGHT + "```bash\nls", FormatReason.BAD_ACTION),
        (THOUGHT + "````bash\nls\n```", FormatReason.BAD_ACTION),
        (THOUGHT + LS + "\n" + LS, FormatReason.TWO_ACTIONS),
        (THOUGHT + LS + "\nDone.", FormatReason.TRAILING_TEXT),
        (THOUGHT + "So:\n" + LS, FormatReason.TRAILING_TEXT),
        (THOUGHT + "```python\nprint()\n```", FormatReason.BAD_TOOL),
        (THOUGHT + "```mswea_bash_command\nls\n```", FormatReason.BAD_TOOL),
        (THOUGHT + bash("ls").text, FormatReason.NO_ACTION),
    ],
)
def test_a_reply_out_of_format_has_its_reason(text: str, reason: FormatReason) -> None:
    assert bash_block.parse_reply(text).reason is reason
    assert bash_block.explain(reason)


def test_a_block_inside_of_the_thought_is_not_taken() -> None:
    text = f"<think>\nshall I\n{LS}\n?\n</think>\n\n```bash\npwd\n```"
    assert bash_block.parse_reply(text).action == bash("pwd")


@pytest.mark.parametrize("language", ["bash", "mswea_bash_command"])
def test_lenient_takes_a_reply_as_mini_swe_agent_writes_it(language: str) -> None:
    text = f"THOUGHT: I look around.\n\n```{language}\nls -la\n```\nThat is all."
    reply = bash_block.parse_reply(text, "lenient")
    assert (reply.thought, reply.action) == ("THOUGHT: I look around.", bash("ls -la"))
    assert bash_block.parse_reply(f"{LS}\n{LS}", "lenient").reason is FormatReason.TWO_ACTIONS


def test_a_think_tag_that_the_template_opened_need_not_be_opened_again() -> None:
    text = f"why\n</think>\n\n{LS}"
    assert bash_block.parse_reply(text).reason is FormatReason.NO_THINK
    assert bash_block.parse_reply(text, think_opened=True).thought == "why"


@pytest.mark.parametrize(
    "command",
    [
        SUBMIT_COMMAND,
        f"{SUBMIT_COMMAND} && git add -A && git diff --cached",
        f"{SUBMIT_COMMAND} && cat patch.txt\n",
    ],
)
def test_what_mini_swe_agent_hands_in_with_is_the_tool_submit(command: str) -> None:
    assert bash_block.parse_reply(f"{THOUGHT}```bash\n{command}\n```").action == Action("submit")


@pytest.mark.parametrize(
    "command",
    [f"{SUBMIT_COMMAND} && make", f"ls && {SUBMIT_COMMAND}", f"{SUBMIT_COMMAND}; rm -r src"],
)
def test_a_command_that_does_more_than_to_hand_in_is_a_command(command: str) -> None:
    assert bash_block.parse_reply(f"{THOUGHT}```bash\n{command}\n```").action == bash(command)


@pytest.mark.parametrize(
    "action",
    [
        Action("str_replace_editor", {"command": "view", "path": "/testbed"}),
        Action("bash", {"command": "ls", "timeout": "3"}),
        Action("bash"),
        Action("submit", {"flag": "x"}),
    ],
)
def test_what_is_no_command_has_no_form(action: Action) -> None:
    with pytest.raises(UnwritableStep):
        bash_block.render_action(action)


@pytest.mark.parametrize(
    ("thought", "action"),
    [("", bash("ls")), ("</think>", bash("ls")), ("why", bash(SUBMIT_COMMAND))],
)
def test_a_step_that_would_be_read_back_differently_is_not_written(
    thought: str, action: Action
) -> None:
    with pytest.raises(UnwritableStep):
        bash_block.render_reply(thought, action)


def test_a_hostile_reply_is_parsed_at_once() -> None:
    for text in ("```bash\n" * 100_000, "```bash\n```\n" * 50_000, "`" * 1_000_000):
        assert bash_block.parse_reply(THOUGHT + text).reason is not None


@given(st.text().filter(lambda t: "\r" not in t and "</output>" not in t), st.integers(0, 255))
def test_an_observation_is_in_the_form_that_the_reader_of_mini_swe_agent_knows(
    text: str, exit_code: int
) -> None:
    printed = f"{text}\n" if text else ""
    read = read_mini_output(bash_block.render_observation(Observation(printed, exit_code)))
    assert (read.text, read.exit_code) == (printed, exit_code)


def test_an_observation_says_what_is_known_of_how_the_command_ended() -> None:
    render = bash_block.render_observation
    assert render(Observation("", 0)) == "<returncode>0</returncode>\n<output>\n</output>"
    assert render(Observation("hi")) == "<output>\nhi\n</output>"
    assert render(Observation("hi\n", timed_out=True)) == (
        "<exception>the command timed out and was ended</exception>\n"
        "<returncode>-1</returncode>\n<output>\nhi\n</output>"
    )


def test_the_prompts_show_replies_that_can_be_read() -> None:
    system = bash_block.SYSTEM_PROMPT
    shown = system[system.index("<think>") : system.index("You then read")]
    assert bash_block.parse_reply(shown).action == bash("the command")
    assert read_actions(system)[-1] == Action("submit")
    solution = bash_block.SOLUTION_PROMPT
    shown = solution[solution.index("<think>") : solution.index("Every command")]
    assert len(bash_block.parse_solution(shown).actions) == 2
