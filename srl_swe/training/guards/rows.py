"""Rows of step contexts that no trainer could take, found by column before anything is loaded."""

from __future__ import annotations

from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
from datasets import Dataset

from srl_swe.errors import UserError

_IMAGES = ("images", "image")
"""Columns by which TRL takes a row for one of a vision model."""


def check_rows(data: Dataset, folder: str) -> None:
    """Raise UserError that names the first row whose prompt, reply or place is missing."""
    for name in _IMAGES:
        if name in data.column_names:
            raise UserError(
                f"{folder} has a column {name!r}: step contexts are text alone; remove the column."
            )
    table = _table(data)
    for name in ("prompt", "completion"):
        _refuse(_without_messages(table.column(name), name, folder), f"no {name}", folder)
    for name in ("instance_id", "tool"):
        _refuse(pc.is_null(table.column(name)), f"no {name}", folder)
    steps, index = _numbers(table, "n_steps", folder), _numbers(table, "step_index", folder)
    _refuse(_either(pc.is_null(steps), pc.less(steps, 1)), "n_steps below 1", folder)
    outside = pc.or_(pc.less(index, 0), pc.greater_equal(index, steps))
    _refuse(_either(pc.is_null(index), outside), "a step_index outside of n_steps", folder)


def check_expert_actions(data: Dataset, folder: str) -> None:
    """Raise UserError for rows that no reply can be compared with; SFT takes them."""
    column = _table(data).column("expert_action").cast(pa.string())
    blank = pc.equal(pc.utf8_trim_whitespace(column), "")
    _refuse(_either(pc.is_null(column), blank), "no expert_action", folder)


def _numbers(table: Any, name: str, folder: str) -> Any:
    column = table.column(name)
    if not (pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        raise UserError(f"{folder}: {name} must be a whole number, not {column.type}.")
    return column


def _table(data: Dataset) -> Any:
    return data.data if data._indices is None else data.flatten_indices().data


def _without_messages(column: Any, name: str, folder: str) -> Any:
    """Whether each row is without a message, or has one without a text."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise UserError(f"{folder}: {name} must be a list of messages, not {column.type}.")
    empty = _either(pc.is_null(column), pc.equal(pc.list_value_length(column), 0))
    kind = column.type.value_type
    if not pa.types.is_struct(kind) or kind.get_field_index("content") < 0:
        raise UserError(f"{folder}: {name} must be messages of role and content, not {kind}.")
    contents = pc.struct_field(pc.list_flatten(column), "content")
    if not contents.null_count:
        return empty
    silent = pc.filter(pc.list_parent_indices(column), pc.is_null(contents))
    rows = pa.array(range(len(column)), silent.type)
    return pc.or_(empty, pc.is_in(rows, value_set=pa.array(silent.to_pylist(), silent.type)))


def _either(is_null: Any, is_wrong: Any) -> Any:
    return pc.or_(is_null, pc.fill_null(is_wrong, True))


def _refuse(wrong: Any, what: str, folder: str) -> None:
    count = pc.sum(wrong).as_py() or 0
    if count:
        first = pc.index(wrong, True).as_py()
        raise UserError(
            f"{folder}: {count} of {len(wrong)} rows have {what} (the first is row {first}); leave "
            "them out, or make the step contexts anew with `srl-swe steps`."
        )
