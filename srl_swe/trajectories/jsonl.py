"""This project's own formats: JSON lines, rows for tables, and expert scripts.

Lines are versioned and checked against the types. Rows are for tables of the Hugging Face hub,
which need one type per column: ``steps`` is a list of flat records with a call's arguments as JSON
text.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from srl_swe.dialects import xml
from srl_swe.errors import UserError
from srl_swe.files import write_atomic
from srl_swe.trajectories.fields import (
    BrokenRecord,
    Fields,
    Reader,
    describe_type,
    first_line,
    name_record,
)
from srl_swe.types import Step, Trajectory

_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def check_name(name: str) -> None:
    """Raises UserError if the name is invalid for a data set on the hub."""
    if not _NAME.fullmatch(name):
        raise UserError(f"--push {name!r}: a data set of the hub is named OWNER/NAME.")


def push_rows(path: Path, name: str) -> None:
    """Push a parquet file of rows as the split ``train``; a new data set is private.

    Raises UserError if the hub refuses it; the file stays.
    """
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    check_name(name)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".push.") as cache:
            rows = datasets.Dataset.from_parquet(str(path), cache_dir=cache)
            rows.push_to_hub(name, private=True)
    except (OSError, ValueError, DatasetsError, HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f"{path} is written, but can't be pushed to {name} ({first_line(error)}); log in "
            "with `hf auth login`, check the network, and run it again with another OUT."
        ) from error


FORMAT = "srl-swe-trajectory-1"

_LATER_FIELDS = {"enforced", "exit_status", "notes", "normal_form", "turn", "translation", "expert"}
"""Left out if empty: older readers, and keys made of lines, do not know them."""


def load_jsonl(path: Path) -> list[Trajectory]:
    """All trajectories of the file. The first broken line raises BrokenRecord."""
    with path.open(encoding="utf-8") as lines:
        return [
            parse_line(line, f"{path}:{number}")
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]


def save_jsonl(path: Path, trajectories: Iterable[Trajectory]) -> None:
    """Replace the file, whole or not at all."""
    write_atomic(path, "".join(render_line(trajectory) for trajectory in trajectories))


def parse_line(line: str, where: str) -> Trajectory:
    """The trajectory of one line, exactly. Raises BrokenRecord."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BrokenRecord(where, "", f"not JSON ({error})") from None
    if not is_jsonl(record):
        raise BrokenRecord(where, "", f'not a trajectory; a line has "format": "{FORMAT}"')
    return read_jsonl(record, where)


def is_jsonl(record: Any) -> bool:
    """Whether the record is marked with this format and version."""
    return isinstance(record, dict) and record.get("format") == FORMAT


def read_jsonl(record: Any, where: str) -> Trajectory:
    """The trajectory of a parsed line."""
    try:
        return _adapter().validate_python(record)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        why = f"{first['msg']}; the schema is trajectories/schema.json"
        raise BrokenRecord(where, field, why) from None


JSONL = Reader("srl-swe", is_jsonl, read_jsonl)


def render_line(trajectory: Trajectory) -> str:
    """The line with its newline, the inverse of :func:`parse_line`."""
    record = {"format": FORMAT, **_adapter().dump_python(trajectory, mode="json")}
    for item in (record, *record["steps"]):
        for name in _LATER_FIELDS & item.keys():
            if item[name] is None or item[name] == []:
                del item[name]
    line = json.dumps(record, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:  # halves of surrogate pairs: bytes of a patch outside UTF-8
        line = json.dumps(record)
    return line + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON schema of one line, generated from the types."""
    schema = _adapter().json_schema()
    schema["properties"] = {"format": {"const": FORMAT}, **schema["properties"]}
    schema["required"] = ["format", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@cache
def _adapter() -> TypeAdapter[Trajectory]:
    return TypeAdapter(Trajectory)


HUB_FORMAT = "srl-swe-rows-1"

_ROWS_AT_ONCE = 64
"""Rows per row group, which the hub's viewer reads whole; a row is often a megabyte."""
_SAME = (
    "instance_id",
    "source",
    "model",
    "resolved",
    "stop_reason",
    "exit_status",
    "problem_statement",
    "patch",
    "notes",
    "normal_form",
)
"""Columns that hold a field of the trajectory unchanged."""
_AS_JSON = ("translation", "expert")
"""Columns of a step that hold its field as JSON; files of earlier versions lack them."""


def is_hub_row(record: Any) -> bool:
    """Whether the row is marked with this format and version."""
    return isinstance(record, Mapping) and record.get("format") == HUB_FORMAT


def read_hub_row(record: Any, where: str) -> Trajectory:
    """The trajectory of a row, the inverse of :func:`render_row`. Raises BrokenRecord."""
    row = Fields.of(record, where)
    fields = {name: row.get(name) for name in _SAME if row.get(name) is not None}
    enforced = row.get("enforced") and dict(row.mapping("enforced").values)
    steps = [_read_step(step) for step in row.items("steps")]
    return read_jsonl({**fields, "enforced": enforced, "steps": steps}, where)


HUB_ROWS = Reader(JSONL.name, is_hub_row, read_hub_row)


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
    same |= {name: step.parsed(name) for name in _AS_JSON}
    return {**same, "action": action, "observation": observation}


def render_row(trajectory: Trajectory) -> dict[str, Any]:
    """The row in plain types. Halves of surrogate pairs, which tables can't hold, become "?"."""
    enforced = trajectory.enforced
    row = {
        "format": HUB_FORMAT,
        **{name: getattr(trajectory, name) for name in _SAME},
        "enforced": None if enforced is None else json.dumps(dict(enforced), ensure_ascii=False),
        "n_steps": len(trajectory.steps),
        "steps": [_render_step(step) for step in trajectory.steps],
    }
    text = json.dumps(row, ensure_ascii=False).encode("utf-8", errors="replace")
    storable: dict[str, Any] = json.loads(text)
    return storable


def _render_step(step: Step) -> dict[str, Any]:
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
        **{
            name: json.dumps(asdict(value), ensure_ascii=False) if value is not None else None
            for name in _AS_JSON
            for value in [getattr(step, name)]
        },
    }


def save_rows(path: Path, trajectories: Iterable[Trajectory]) -> int:
    """Write a parquet file, a few rows at a time; returns their number. Raises OSError."""
    import pyarrow as pa
    import pyarrow.parquet

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
        **dict.fromkeys(_AS_JSON, text),
    }
    columns: dict[str, Any] = dict.fromkeys(("format", *_SAME, "enforced"), text)
    columns |= {"resolved": flag, "n_steps": number, "notes": pa.list_(text)}
    schema = pa.schema({**columns, "steps": pa.list_(pa.struct(step))})
    count, rows = 0, map(render_row, trajectories)
    with pa.parquet.ParquetWriter(path, schema, compression="zstd") as table:
        while group := list(islice(rows, _ROWS_AT_ONCE)):
            table.write_table(pa.Table.from_pylist(group, schema))
            count += len(group)
    return count


# Expert scripts: thoughts and actions in the XML dialect, written by hand, without observations.
# ``srl-swe replay --record`` executes a script and records the observations.

_REPLY = re.compile(r"<think>.*?\n</function>", re.DOTALL)


def is_expert_script(record: Any) -> bool:
    """Whether it is plain text with a call in it: no other format is plain text."""
    return isinstance(record, str) and "<function=" in record


def read_expert_script(record: Any, where: str) -> Trajectory:
    """The text of a script; the instance is the file's name."""
    if not isinstance(record, str):
        raise BrokenRecord(where, "", f"expected a text, found {describe_type(record)}")
    leftover = _REPLY.sub("", record).strip()
    if leftover:
        raise BrokenRecord(where, "", f"text outside of a reply: {leftover[:60]!r}")
    steps = []
    for number, text in enumerate(_REPLY.findall(record)):
        reply = xml.parse_reply(text)
        if reply.action is None:
            raise BrokenRecord(where, f"reply {number}", f"{reply.reason}: {text[:60]!r}")
        steps.append(Step(reply.thought, reply.action))
    return Trajectory(name_record(where), tuple(steps), model="expert", source=EXPERT_SCRIPT.name)


EXPERT_SCRIPT = Reader("expert-script", is_expert_script, read_expert_script)
