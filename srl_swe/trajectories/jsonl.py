"""This project's own format: one JSON object a line, versioned, checked against the types."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from srl_swe.files import write_atomic
from srl_swe.trajectories.broken_record import BrokenRecord
from srl_swe.types import Trajectory

FORMAT = "srl-swe-trajectory-1"
NAME = "srl-swe"

_LATER_FIELDS = {"enforced", "exit_status", "notes", "turn", "translation"}
"""Left out where they say nothing, as older readers, and keys made of lines, don't know them."""


def load_jsonl(path: Path) -> list[Trajectory]:
    """All trajectories of the file; the first broken line raises BrokenRecord."""
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
    """Read one line, to the letter. Raises BrokenRecord, whose message begins with ``where``."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BrokenRecord(where, "", f"not JSON ({error})") from None
    if not is_one(record):
        raise BrokenRecord(where, "", f'no trajectory; a line has "format": "{FORMAT}"')
    return read_one(record, where)


def is_one(record: Any) -> bool:
    """Whether the record says that it is of this format and version."""
    return isinstance(record, dict) and record.get("format") == FORMAT


def read_one(record: Any, where: str) -> Trajectory:
    """The trajectory that the parsed line holds."""
    try:
        return _adapter().validate_python(record)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        why = f"{first['msg']}; the schema is trajectories/schema.json"
        raise BrokenRecord(where, field, why) from None


def render_line(trajectory: Trajectory) -> str:
    """The line that :func:`parse_line` reads back, its newline included."""
    record = {"format": FORMAT, **_adapter().dump_python(trajectory, mode="json")}
    for item in (record, *record["steps"]):
        for name in _LATER_FIELDS & item.keys():
            if item[name] is None or item[name] == []:
                del item[name]
    line = json.dumps(record, ensure_ascii=False)
    return (line if _is_utf8(line) else json.dumps(record)) + "\n"


def _is_utf8(text: str) -> bool:
    """False where bytes of a patch that were no UTF-8 stand in it as halves of surrogate pairs."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def json_schema() -> dict[str, Any]:
    """The JSON schema of one line, generated from the types."""
    schema = _adapter().json_schema()
    schema["properties"] = {"format": {"const": FORMAT}, **schema["properties"]}
    schema["required"] = ["format", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@cache
def _adapter() -> TypeAdapter[Trajectory]:
    return TypeAdapter(Trajectory)
