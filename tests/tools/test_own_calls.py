from __future__ import annotations

import pytest

from srl_swe.tools.own_calls import as_own_call
from srl_swe.types import Action

LS = Action("bash", {"command": "ls"})
VIEW = {"command": "view", "path": "/testbed"}


@pytest.mark.parametrize(
    ("family", "tool", "arguments", "own"),
    [
        ("swe-smith", "bash", {"command": "ls"}, LS),
        ("r2e-gym", "execute_bash", {"command": "ls"}, LS),
        ("openhands", "execute_bash", {"command": "ls", "is_input": "false", "timeout": "9"}, LS),
        ("r2e-gym", "file_editor", VIEW, Action("str_replace_editor", VIEW)),
        ("r2e-gym", "finish", {"command": "submit"}, Action("submit")),
        ("openhands", "finish", {"message": "Done."}, Action("submit")),
    ],
)
def test_another_name_for_what_we_have_is_the_same_call(
    family: str, tool: str, arguments: dict[str, str], own: Action
) -> None:
    assert as_own_call(Action(tool, arguments), family) == own


@pytest.mark.parametrize(
    ("family", "tool", "arguments"),
    [
        ("openhands", "execute_bash", {"command": "C-c", "is_input": "true"}),
        ("openhands", "think", {"thought": "hm"}),
        ("openhands", "edit", {"path": "x", "start": "1", "content": "y"}),
        ("swe-agent", "execute_bash", {"command": "ls"}),
        ("r2e-gym", "file_editor", {**VIEW, "concise": "True"}),
        ("unheard-of", "execute_bash", {"command": "ls"}),
    ],
)
def test_what_has_no_equal_stays_as_it_was(
    family: str, tool: str, arguments: dict[str, str]
) -> None:
    action = Action(tool, arguments)
    assert as_own_call(action, family) is action
