"""Gated similarity: the paper's reward, for the right tool on the right target only.

    r = similarity                 if tool and target are the expert's
    r = 0.25 x similarity          else, hence never above 0.25

The target of the editor is its command and path; that of bash is the first program it runs,
after ``cd DIR &&`` and settings like ``NAME=value``. Ours: in the paper's reward (section 3) the
wrapper of a tool call pays 0.55-0.7 to any short command, ``rm -rf`` included. Outside the gate
it is scaled, not cut: a group in which all miss still has an order.

Weaknesses: inside the gate it is similarity, which can't see a no-op edit and
undervalues a minimal ``old_str`` (see :mod:`srl_swe.rewards.structural`). ``pytest x`` and
``python -m pytest x`` are two programs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from srl_swe.dialects import read_actions
from srl_swe.rewards.similarity import similarity_reward
from srl_swe.rewards.words import normal_path, program

OUTSIDE = 0.25


def gated_rewards(candidates: Iterable[str], expert: str) -> list[float]:
    """Each candidate's canonical text against the expert's, from 0 to 1.

    >>> from srl_swe.types import Action
    >>> ls, rm = (Action("bash", {"command": f"{name} src"}).text for name in ("ls", "rm"))
    >>> gated_rewards([ls, rm], ls) == [1.0, 0.25 * similarity_reward(rm, ls)]
    True
    """
    target = _target(expert)

    @cache
    def reward(text: str) -> float:
        ratio = similarity_reward(text, expert)
        return ratio if _target(text) == target else OUTSIDE * ratio

    return list(map(reward, candidates))


def _target(text: str) -> tuple[str, ...]:
    """The tool and target of an action; equal for actions of the same kind on the same target."""
    actions = read_actions(text)
    if len(actions) != 1:
        return ()
    action = actions[0]
    match action.tool:
        case "bash":
            return ("bash", program(action.arguments.get("command", "")))
        case "str_replace_editor":
            values = action.arguments
            return ("edit", values.get("command", ""), normal_path(values.get("path", "")))
        case _:
            return (action.tool,)
