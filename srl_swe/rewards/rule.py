"""Rule reward: 1 if an action agrees with the expert's by the rules of its tool, else 0.

    bash      same first program, a path in common if both name any, and 2M/T(command) >= 0.8
    view      same file, and 80 % of the expert's lines if both name a range
    create    same file, and 2M/T(file_text) >= 0.8
    edit      str_replace: same file, and the lower of 2M/T(old_str), 2M/T(new_str) >= 0.8
              insert: same file, and 2M/T(new_str) >= 0.8
    others    same tool and, of the editor, the same command and file

PivotRL (arXiv 2603.21383) trains on single steps with a binary reward. These are the rules of
NVIDIA's verifier for it (NeMo-Gym, ``resources_servers/swe_pivot``) in its binary mode, with its
default threshold. Differences: our dialects have one editor and one shell, so the names of other
harnesses' tools are not grouped; the first program is the one after ``cd DIR &&``; paths are
compared whole, not by their last parts; characters are compared without ``autojunk`` and without
a limit of 2,000.

Weaknesses: a no-op edit, and a wrong word in the right lines, earn 1 if little changes, as the
texts are compared and not their difference (:mod:`srl_swe.rewards.structural`); a shorter
``old_str`` earns 0 for the right edit; most groups of a weak policy are all 0, and dynamic
sampling drops them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, partial

from srl_swe.dialects import read_actions
from srl_swe.rewards.similarity import similarity_reward
from srl_swe.rewards.structural import view_range
from srl_swe.rewards.words import normal_path, program, shell_words
from srl_swe.types import Action

THRESHOLD = 0.8
"""Lowest similarity of arguments that agree, and lowest share of viewed lines."""
_WORD = re.compile(r"[\w./-]+")


def rule_rewards(candidates: Iterable[str], expert: str) -> list[float]:
    """1.0 or 0.0 for each candidate's canonical text.

    >>> run = lambda command: Action("bash", {"command": command}).text
    >>> tests = ["pytest -q tests/test_a.py", "pytest -q -x tests/test_a.py", "pytest tests/b.py"]
    >>> rule_rewards(map(run, tests), run(tests[0]))
    [1.0, 1.0, 0.0]
    """
    return list(map(cache(partial(_agrees, expert=expert)), candidates))


def _agrees(candidate: str, expert: str) -> float:
    ours, theirs = read_actions(candidate), read_actions(expert)
    if candidate == expert or len(ours) != 1 or len(theirs) != 1:
        return float(candidate == expert)
    return float(ours[0].tool == theirs[0].tool and _same_step(ours[0], theirs[0]))


def _same_step(ours: Action, theirs: Action) -> bool:
    """Whether two calls of one tool agree."""

    def alike(name: str) -> bool:
        texts = ours.arguments.get(name, ""), theirs.arguments.get(name, "")
        return similarity_reward(*texts) >= THRESHOLD

    if ours.tool == "bash":
        return _same_program(ours, theirs) and alike("command")
    if ours.tool != "str_replace_editor":
        return True
    command = theirs.arguments.get("command", "")
    path, wanted = (normal_path(action.arguments.get("path", "")) for action in (ours, theirs))
    if ours.arguments.get("command", "") != command or path != wanted:
        return False
    match command:
        case "view":
            return _covers(ours, theirs)
        case "create":
            return alike("file_text")
        case "str_replace":
            return alike("old_str") and alike("new_str")
        case "insert":
            return alike("new_str")
        case _:
            return True


def _same_program(ours: Action, theirs: Action) -> bool:
    """The same first program, and a path in common if both commands name any."""
    commands = ours.arguments.get("command", ""), theirs.arguments.get("command", "")
    first, second = (
        {
            normal_path(part)
            for word in shell_words(command)
            for part in _WORD.findall(word)
            if "/" in part
        }
        for command in commands
    )
    apart = bool(first) and bool(second) and not first & second
    return program(commands[0]) == program(commands[1]) and not apart


def _covers(ours: Action, theirs: Action) -> bool:
    """Whether a view shows :data:`THRESHOLD` of the expert's lines."""
    seen, wanted = (view_range(action.arguments.get("view_range", "")) for action in (ours, theirs))
    if seen is None or wanted is None:
        return True
    common = min(seen[1], wanted[1]) - max(seen[0], wanted[0])
    return common >= THRESHOLD * max(1, wanted[1] - wanted[0])
