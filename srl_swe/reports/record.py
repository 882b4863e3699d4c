"""Reads a training run back from its output folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from srl_swe.errors import UserError
from srl_swe.files import damage_named

METRICS, MANIFEST, CONFIG = "metrics.jsonl", "manifest.json", "config.json"
ALARMS = "alarms.jsonl"
BEST = Path("best", "best.json")

RATES = ("format/", "outcome/", "ended/")
"""Prefixes of shares of a whole: a step logs only the shares above 0."""

Row = Mapping[str, Any]
"""The metrics of one step, under ``step`` and the names of the log."""


def read_whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file with one per line; none if it is missing.

    Any other line is skipped, such as the torn last one of a run under way.
    """
    with suppress(FileNotFoundError), path.open("rb") as lines:
        for line in lines:
            try:
                record = json.loads(line.decode("utf-8", errors="replace"))
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``, without a torn last line.

    Rows without a step, as in another program's file of that name, are skipped too.
    """
    return [row for row in read_whole_lines(path) if isinstance(row.get("step"), int)]


@dataclass(frozen=True, slots=True)
class Alarm:
    """A finding of the run's alarms at a training step; ``stopped``: it ended the run."""

    step: int
    text: str
    stopped: bool = False


def read_alarms(path: Path) -> list[Alarm]:
    """The alarms of a run, without a torn last line; empty if there is no file."""
    return [
        Alarm(row["step"], str(row.get("text", "")), row.get("stopped") is True)
        for row in read_metrics(path)
    ]


_REMEDY = "restore it, or delete it if its notes are not needed"


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; empty if there is no file. Raises UserError for anything else."""
    if not path.is_file():
        return {}
    with damage_named(str(path), _REMEDY):
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("holds no object")
    return content


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest; empty if there is no file. Raises UserError if it is damaged."""
    manifest = read_json(path)
    with damage_named(str(path), _REMEDY):
        _check_kinds(manifest, _OF_A_MANIFEST)
        for start in manifest.get("starts") or ():
            if not isinstance(start, dict):
                raise ValueError("holds a start that is not an object")
            _check_kinds(start, _OF_A_START)
    return manifest


def read_best(path: Path) -> dict[str, Any]:
    """The record of the best policy; empty if there is no file. Raises UserError if damaged."""
    best = read_json(path)
    with damage_named(str(path), _REMEDY):
        if best and number(best["score"]) is None:
            raise ValueError("holds no score")
        if best and not {"step", "metric"} <= best.keys():
            raise ValueError("holds no step or metric")
        _check_kinds(best, {"step": int, "metric": str})
    return best


def reward_weights(manifest: Mapping[str, Any]) -> dict[str, float]:
    """The weights of the rewards by name; empty if the manifest does not record them."""
    weights = (manifest.get("rewards") or {}).get("weights")
    held = weights.items() if isinstance(weights, dict) else ()
    return {name: float(value) for name, value in held if number(value) is not None}


_OF_A_MANIFEST = {"method": str, "recipe": dict, "trainer": dict, "rewards": dict, "starts": list}
_OF_A_START = {"max_steps": int, "ranks": int, "devices": list, "packages": dict, "git": dict}


def _check_kinds(record: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    for name, kind in kinds.items():
        value = record.get(name)
        words = value if name == "devices" and isinstance(value, list) else ()
        if not isinstance(value, kind | None) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"holds another {name!r} than a run writes")


@dataclass(frozen=True)
class RunRecord:
    """One run. ``manifest`` and ``best`` are empty if the run has not written them."""

    folder: Path
    rows: Sequence[Row]
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    best: Mapping[str, Any]
    alarms: Sequence[Alarm] = ()

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def method(self) -> str:
        """``sft``, ``srl`` or ``rlvr``."""
        named = str(self.manifest.get("method") or self.config.get("method") or "?")
        return named.removesuffix("Recipe").lower()

    @property
    def reward_weights(self) -> dict[str, float]:
        """See :func:`reward_weights`."""
        return reward_weights(self.manifest)

    @property
    def state(self) -> str:
        """Whether it is finished, in words."""
        return "finished" if self.finished else "under way, or stopped"

    @property
    def finished(self) -> bool:
        """Whether its final policy exists."""
        return (self.folder / "final").is_dir()

    @property
    def step(self) -> int:
        """The last logged step."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def last_step(self) -> int | None:
        """The planned last step; None if unknown."""
        starts = self.manifest.get("starts") or [{}]
        planned = starts[-1].get("max_steps")
        return int(planned) if planned else None

    @cached_property
    def keys(self) -> list[str]:
        """All names of the log, in the order of their first appearance."""
        return list(dict.fromkeys(key for row in self.rows for key in row if key != "step"))

    def values(self, key: str) -> list[tuple[int, float | None]]:
        """The values by step of the rows that log it; a share missing from a row is 0."""
        rates = next((prefix for prefix in RATES if key.startswith(prefix)), None)
        return [
            (row["step"], number(row.get(key, 0.0)))
            for row in self.rows
            if key in row or (rates and any(name.startswith(rates) for name in row))
        ]


def number(value: Any) -> float | None:
    """The value as a float; None if it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def load_run(folder: Path) -> RunRecord:
    """The run in the folder. Raises UserError if the folder holds no run or a damaged file."""
    if not (folder / METRICS).is_file() and not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} holds no run: neither {METRICS} nor {MANIFEST} is there.")
    return RunRecord(
        folder,
        read_metrics(folder / METRICS),
        read_json(folder / CONFIG),
        read_manifest(folder / MANIFEST),
        read_best(folder / BEST),
        read_alarms(folder / ALARMS),
    )


def find_runs(folders: Iterable[Path]) -> list[RunRecord]:
    """The runs at or below the folders, sorted by path. Raises UserError for a missing folder."""
    found: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no folder at {folder}.")
        for name in (METRICS, MANIFEST):
            found |= {path.parent for path in folder.rglob(name)}
    return [load_run(folder) for folder in sorted(found)]
