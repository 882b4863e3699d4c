"""``verdicts.jsonl``: every verdict the harness gave, by the key of what decided it."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from srl_swe.files import append_line, drop_torn_line
from srl_swe.types import Outcome, Verdict


def load_verdicts(path: Path) -> dict[str, Verdict]:
    """The last verdict of each key, BROKEN_SANDBOX left out: that says nothing to reuse.

    A last line that a kill cut short is dropped from the file, and one that can't be read is
    as if it weren't there: its prediction is graded again.
    """
    drop_torn_line(path)
    if not path.is_file():
        return {}
    verdicts: dict[str, Verdict] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        parsed = _parse(line)
        if parsed:
            key, verdict = parsed
            verdicts[key] = verdict
    return {k: v for k, v in verdicts.items() if v.outcome is not Outcome.BROKEN_SANDBOX}


def append_verdict(path: Path, key: str, verdict: Verdict, **conditions: str | int) -> None:
    """Adds one line; ``conditions`` (image id, harness version, ...) are for the reader."""
    append_line(path, json.dumps({"key": key, **conditions, **asdict(verdict)}))


def _parse(line: str) -> tuple[str, Verdict] | None:
    try:
        row = json.loads(line)
        verdict = _adapter().validate_python(row)
        return (row["key"], verdict) if isinstance(row["key"], str) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@cache
def _adapter() -> TypeAdapter[Verdict]:
    return TypeAdapter(Verdict)
