"""Trajectories as rows of a table, for the Hugging Face hub: one row a trajectory.

Every column has one type in all rows, as parquet and the hub's viewer want it; ``steps`` is a
list of flat records, with the arguments of a call as JSON text. :func:`read_one` gives back the
trajectory that a row was made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl_swe.trajectories import jsonl
from srl_swe.trajectories.fields import Fields
from srl_swe.types import Step, Trajectory

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped]

FORMAT = "srl-swe-rows-1"
NAME = jsonl.NAME

_ROWS_AT_ONCE = 64
"""Rows of a row group, which the hub's viewer reads whole; a row is often a megabyte."""
_ALIKE = (
    "instance_id",
    "source",
    "model",
    "resolved",
    "stop_reason",
    "exit_status",
    "problem_statement",
    "patch",
    "notes",
)
"""Columns that hold a field of the trajectory as it is."""


def is_one(record: Any) -> bool:
    """Whether the row says that it is of this format and version."""
    return isinstance(record, Mapping) and record.get("format") == FORMAT


def read_one(record: Any, where: str) -> Trajectory:
    """The trajectory that the row was made of. Raises BrokenRecord."""
    row = Fields.of(record, where)
    fields = {name: row.get(name) for name in _ALIKE if row.get(name) is not None}
    enforced = row.get("enforced") and dict(row.mapping("enforced").values)
    steps = [_read_step(step) for step in row.items("steps")]
    return jsonl.read_one({**fields, "enforced": enforced, "steps": steps}, where)


def _read_step(step: Fields) -> dict[str, Any]:
    action = observation = None
    if step.get("tool") is not None:
        action = {"tool": step.get("tool"), "arguments": step.mapping("arguments").values}
    if step.get("observation") is not None:
        observation = {
            "text": step.get("observation"),
            "exit_code": step.get("exit_code"),
            "truncated": bool(step.get("truncated")),
            "timed_out": bool(step.get("timed_out")),
        }
    same = {name: step.get(name) for name in ("thought", "executed", "turn")}
    return {**same, "action": action, "observation": observation}


def write_one(trajectory: Trajectory) -> dict[str, Any]:
    """The row, in plain types. Halves of surrogate pairs, which no table holds, become "?"."""
    enforced = None if trajectory.enforced is None else dict(trajectory.enforced)
    row = {name: getattr(trajectory, name) for name in _ALIKE}
    row["notes"] = list(trajectory.notes)
    row["enforced"] = None if enforced is None else json.dumps(enforced, ensure_ascii=False)
    row["n_steps"] = len(trajectory.steps)
    row["steps"] = [_write_step(step) for step in trajectory.steps]
    storable: dict[str, Any] = _storable({"format": FORMAT, **row})
    return storable


def _write_step(step: Step) -> dict[str, Any]:
    action, seen = step.action, step.observation
    return {
        "turn": step.turn,
        "thought": step.thought,
        "tool": action.tool if action else None,
        "arguments": json.dumps(dict(action.arguments), ensure_ascii=False) if action else None,
        "executed": step.executed,
        "observation": seen.text if seen else None,
        "exit_code": seen.exit_code if seen else None,
        "truncated": seen.truncated if seen else None,
        "timed_out": seen.timed_out if seen else None,
    }


def _storable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", errors="replace").decode("utf-8")
        case list():
            return [_storable(item) for item in value]
        case dict():
            return {name: _storable(item) for name, item in value.items()}
        case _:
            return value


def save_rows(path: Path, trajectories: Iterable[Trajectory]) -> int:
    """Write a parquet file, a few rows at a time; returns how many. Raises OSError."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    schema, count = _schema(), 0
    rows = (write_one(trajectory) for trajectory in trajectories)
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as table:
        while group := list(islice(rows, _ROWS_AT_ONCE)):
            table.write_table(pyarrow.Table.from_pylist(group, schema))
            count += len(group)
    return count


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    text, flag, number = pa.string(), pa.bool_(), pa.int64()
    step = {
        "turn": number,
        "thought": text,
        "tool": text,
        "arguments": text,
        "executed": flag,
        "observation": text,
        "exit_code": number,
        "truncated": flag,
        "timed_out": flag,
    }
    columns: dict[str, Any] = dict.fromkeys(("format", *_ALIKE, "enforced"), text)
    columns |= {"resolved": flag, "n_steps": number, "notes": pa.list_(text)}
    return pa.schema({**columns, "steps": pa.list_(pa.struct(step))})
