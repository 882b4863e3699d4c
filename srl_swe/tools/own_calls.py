"""An expert's call as the same call of our own tools: ``bash``, ``str_replace_editor``, ``submit``.

A policy is trained to call tools that it has. Where a family only has other names for them, its
calls are those; where a tool does something else (``think``, a window of SWE-agent's, OpenHands's
``run_ipython``), there is none, and the call stays what it was.
"""

from __future__ import annotations

from srl_swe.dialects.bash_block import is_submit_command
from srl_swe.tools.harnesses import BUNDLED, HARNESSES
from srl_swe.types import Action

_WITHOUT_EFFECT = frozenset({"security_risk", "timeout", "description", "blocking"})
"""Arguments that change nothing in the container."""
_EDITS = frozenset({"view", "create", "str_replace", "insert", "undo_edit"})
_EDITOR_ARGUMENTS = frozenset(
    {"command", "path", "file_text", "old_str", "new_str", "insert_line", "view_range"}
)
_ENDS = frozenset({"submit", "finish", "mark_task_complete"})


_OWN_EDITS = _EDITS - {"undo_edit"}


def is_own_call(action: Action) -> bool:
    """Whether it is a call that our own tools carry out.

    >>> is_own_call(Action("submit")), is_own_call(Action("bash", {"restart": "true"}))
    (True, False)
    """
    given = action.arguments
    match action.tool:
        case "bash":
            return given.keys() == {"command"}
        case "str_replace_editor":
            return given.get("command") in _OWN_EDITS and given.keys() <= _EDITOR_ARGUMENTS
        case "submit":
            return not given
    return False


def as_own_call(action: Action, family: str) -> Action:
    """The same call by our names; ``action`` itself where it is one, or has no equal.

    >>> as_own_call(Action("execute_bash", {"command": "ls", "security_risk": "LOW"}), "openhands")
    Action(tool='bash', arguments={'command': 'ls'})
    >>> as_own_call(Action("finish", {"message": "Done."}), "openhands")
    Action(tool='submit', arguments={})
    """
    harness = HARNESSES.get(family)
    if harness is None:
        return action
    given = {n: v for n, v in action.arguments.items() if n not in _WITHOUT_EFFECT}
    if given.get("is_input") == "false":
        del given["is_input"]
    if action.tool in harness.shell_names and given.keys() == {"command"}:
        submits = harness is not BUNDLED and is_submit_command(given["command"])
        return Action("submit") if submits else Action("bash", given)
    edits = given.get("command") in _EDITS and given.keys() <= _EDITOR_ARGUMENTS
    if action.tool in harness.editors and edits:
        return Action("str_replace_editor", given)
    if action.tool in _ENDS and action.tool in harness.ends:
        return Action("submit")
    return action
