"""Rows that ask for all remaining actions at once, for rewards that compare whole solutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from srl_swe.dialects import Dialect
from srl_swe.errors import UserError
from srl_swe.rewards.holistic import solution_text
from srl_swe.types import Message

PROFILE_COLUMN = "profile_mean"
"""A data set with it holds only those steps of a trajectory that were worth keeping."""

_OF_TRAJECTORY = ("trajectory_id", "instance_id", "n_steps")
_USED = (*_OF_TRAJECTORY, "step_index", "expert_action")


def with_solutions(data: Dataset, dialect: Dialect) -> Dataset:
    """The rows with a column ``expert_solution``, and prompts that ask for one.

    The solution of a row is its action and those of the later rows of its trajectory, so that
    what made no row, the last ``submit`` above all, is not part of it. Raises UserError if rows
    of the trajectories were left out since.
    """
    if "expert_solution" in data.column_names:
        return data
    if PROFILE_COLUMN in data.column_names:
        raise UserError(
            "whole solutions need every step of a trajectory, and a profile has left some out; "
            "train on the data that it was made from, or profile with this reward."
        )
    columns = [name for name in _USED if name in data.column_names]
    solutions = _solutions(data.select_columns(columns).to_list())

    def ask(row: Mapping[str, Any], index: int) -> dict[str, Any]:
        prompt = solution_prompt(row["prompt"], dialect)
        return {"prompt": prompt, "expert_solution": solutions[index]}

    return data.map(ask, with_indices=True, load_from_cache_file=False)


def solution_prompt(prompt: Sequence[Message], dialect: Dialect) -> list[Message]:
    """The prompt of a step with the system prompt that asks for all remaining actions."""
    asked: Message = {"role": "system", "content": dialect.SOLUTION_PROMPT}
    has_system = bool(prompt) and prompt[0]["role"] == "system"
    return [asked, *prompt[1 if has_system else 0 :]]


def _solutions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each row the actions from there to the end of its trajectory, as one text."""
    solutions: list[str] = []
    following: list[str] = []
    for index in reversed(range(len(rows))):
        if index + 1 == len(rows) or not _continues(rows[index], rows[index + 1]):
            following = []
        following.insert(0, rows[index]["expert_action"])
        solutions.append(solution_text(following))
    return solutions[::-1]


def _continues(row: Mapping[str, Any], following: Mapping[str, Any]) -> bool:
    """Whether two neighbours are of one trajectory: its rows are in order, one after another."""
    same = all(row[name] == following[name] for name in _OF_TRAJECTORY if name in row)
    return bool(same and row["step_index"] < following["step_index"])
