"""The edits of an episode as small diffs, from its recorded calls.

Edits by shell commands are not recorded as such; only the final patch shows them.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from srl_swe.replay.compare import edit_succeeded
from srl_swe.replay.patches import parse_patch
from srl_swe.tools.own_calls import OwnStep
from srl_swe.view.records import Edit


def find_edits(calls: Sequence[OwnStep]) -> list[Edit | None]:
    """The edit of each step; None for a step without one. ``calls``: of ``make_own_steps``."""
    return [_edit_of(call) for call in calls]


def _edit_of(call: OwnStep) -> Edit | None:
    action, answer = call.step.action, call.step.observation
    if action is None or action.tool != "str_replace_editor" or not call.step.executed:
        return None
    given, command = action.arguments, action.arguments.get("command", "")
    path, head = given.get("path", ""), ""
    old, new = "", ""
    match command:
        case "create":
            new = given.get("file_text", "")
        case "str_replace":
            old, new = given.get("old_str", ""), given.get("new_str", "")
        case "insert":
            new, head = given.get("new_str", ""), f"@@ after line {given.get('insert_line', '?')}\n"
        case _:
            return None
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=3, lineterm=""))[2:]
    shown = [line for line in lines if not line.startswith("@@")]
    return Edit(
        path=path,
        command=command,
        diff=head + "\n".join(shown),
        added=sum(line.startswith("+") for line in shown),
        removed=sum(line.startswith("-") for line in shown),
        applied=None if answer is None else edit_succeeded(answer),
    )


def count_changes(patch: str) -> dict[str, tuple[int, int]]:
    r"""Added and removed lines by path of a unified diff; empty for text that is not a diff.

    >>> count_changes("--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n")
    {'x.py': (1, 1)}
    """
    counts = {}
    for path, file in parse_patch(patch).items():
        lines = file.body.split("\n")
        first = next((n for n, line in enumerate(lines) if line.startswith("@@")), len(lines))
        body = lines[first:]
        added = sum(line.startswith("+") for line in body)
        counts[path] = (added, sum(line.startswith("-") for line in body))
    return counts
