"""Final answer: 1 if a whole solution ends in the expert's last edit, however it got there.

    r = [last edit of the reply = last edit of the expert]

The reply holds all remaining actions, as for :mod:`srl_swe.rewards.holistic`, and everything
but its end is ignored (paper, ablation of how finely the reward is given: "final answer";
mathematics only there, 24.5 against 27.6 step by step). The paper compares a number. A solution
in software ends in a patch; the nearest equivalent in a text is its last edit: the same file
and the same diff (:mod:`srl_swe.rewards.words`). A created file is not an edit, as experts
create scripts to try things out. If no edit of the expert remains, the last actions must be
equal.

Weaknesses: it is nearly always 0 with several steps to go; it ignores a wrong earlier edit; a
different right patch earns 0. If tests can run, prefer RLVR, which rewards the outcome itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from srl_swe.dialects import read_actions
from srl_swe.rewards.words import make_change, normal_path


def final_answer_rewards(solutions: Iterable[str], expert: str) -> list[float]:
    r"""1.0 or 0.0 for each solution.

    >>> from srl_swe.types import Action
    >>> edit = Action("str_replace_editor", {"command": "str_replace", "path": "/a.py",
    ...               "old_str": "x = 1\ny = 2", "new_str": "x = 1\ny = 3"}).text
    >>> small = edit.replace("x = 1\n", "")
    >>> test = Action("bash", {"command": "pytest"}).text
    >>> final_answer_rewards([small, f"{test}\n{small}\n{test}", test], f"{edit}\n{test}")
    [1.0, 1.0, 0.0]
    """
    target = _answer(expert)
    return [float(text == expert or _answer(text) == target) for text in solutions]


def _answer(text: str) -> tuple[object, ...]:
    """File and diff of the last edit, else the last action, else the text."""
    actions = read_actions(text)
    for action in reversed(actions):
        values = action.arguments
        match action.tool, values.get("command"):
            case "str_replace_editor", "str_replace":
                change = make_change(values.get("old_str", ""), values.get("new_str", ""))
            case "str_replace_editor", "insert":
                change = make_change("", values.get("new_str", ""))
            case _:
                continue
        if change.lines:
            place = values.get("insert_line", "")
            return normal_path(values.get("path", "")), place, change.lines
    return (actions[-1].text,) if actions else (text,)
