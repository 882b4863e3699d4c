from __future__ import annotations

import pytest

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.rewards import find_step_reward, group_rewards, read_reply
from srl_swe.rewards.rule import rule_rewards
from srl_swe.types import Action

from .specimens import bash, editor, replace

TESTS = "python -m pytest -q tests/test_dates.py"
EDIT = ("    return first + second\n", "    return first - second\n")
FILE = "".join(f"line {number}\n" for number in range(20))


@pytest.mark.parametrize(
    ("candidate", "expert", "reward"),
    [
        (bash(TESTS), bash(TESTS), 1),
        (bash(f"{TESTS} -x"), bash(TESTS), 1),
        (bash(f"cd /testbed && {TESTS}"), bash(TESTS), 1),  # the program after cd
        (bash(TESTS.replace("dates", "times")), bash(TESTS), 0),  # no path in common
        (bash(TESTS.replace("python", "python3")), bash(TESTS), 0),  # another program
        (bash("grep -rn total src"), bash("grep -rn first src"), 0),  # below 0.8
        (bash("cat src/a.py"), editor("view", "src/a.py"), 0),  # another tool
        (editor("view", "/a/b.py"), editor("view", "/a/./b.py"), 1),
        (editor("view", "/a/c.py"), editor("view", "/a/b.py"), 0),
        (editor("view", "/a"), editor("view", "/a", view_range="[1, 10]"), 1),  # the whole file
        (editor("view", view_range="[1, 8]"), editor("view", view_range="[1, 10]"), 1),
        (editor("view", view_range="[1, 7]"), editor("view", view_range="[1, 10]"), 0),
        (editor("view", view_range="[20, 30]"), editor("view", view_range="[1, 10]"), 0),
        (editor("create", file_text=FILE[:-8]), editor("create", file_text=FILE), 1),
        (editor("create", file_text=FILE[:90]), editor("create", file_text=FILE), 0),
        (editor("view"), editor("create", file_text=FILE), 0),  # another command
        (replace(*EDIT), replace(*EDIT), 1),
        (replace(EDIT[0], EDIT[0]), replace(*EDIT), 1),  # a no-op of one character: its weakness
        (replace(*EDIT, "/a/b.py"), replace(*EDIT), 0),  # another file
        (replace("    return 1\n", EDIT[1]), replace(*EDIT), 0),  # another line, the right text
        (replace(EDIT[0], "    return 1\n"), replace(*EDIT), 0),  # the right line, another text
        (
            editor("insert", new_str=EDIT[1], insert_line="7"),
            editor("insert", new_str=EDIT[1], insert_line="8"),
            1,
        ),
        (editor("insert", new_str="x"), editor("insert", new_str=EDIT[1]), 0),
        (editor("undo_edit"), editor("undo_edit"), 1),
        (Action("submit").text, Action("submit").text, 1),
        (Action("submit").text, bash(TESTS), 0),
        ("no action", bash(TESTS), 0),
    ],
)  # fmt: skip
def test_an_action_agrees_by_the_rules_of_its_tool(
    candidate: str, expert: str, reward: float
) -> None:
    assert rule_rewards([candidate], expert) == [reward]


def test_a_reply_out_of_the_format_earns_minus_one_by_its_name_in_recipes() -> None:
    form = ReplyFormat(get_dialect("xml"), "strict")
    action = Action("bash", {"command": TESTS})
    texts = [form.dialect.render_reply("Run the tests.", action), "I would run the tests."]
    replies = [read_reply(text, form) for text in texts]
    assert group_rewards(replies, action.text, find_step_reward("rule")) == [1.0, -1.0]
