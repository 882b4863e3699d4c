"""Verdicts and marks of a run folder, with the texts of the tests' logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from srl_swe.evaluation.compare import OUTCOMES, REPORT_FILE
from srl_swe.evaluation.grading import grading_key
from srl_swe.files import read_object
from srl_swe.reports.record import read_whole_lines
from srl_swe.steps.prompt import cut_middle
from srl_swe.types import Instance, Outcome, Verdict

VERDICTS_FILE, RESULT_FILE = "verdicts.jsonl", "result.json"
_MOST_LOG_CHARS = 60_000
_VERDICT = TypeAdapter(Verdict)


@dataclass(frozen=True, slots=True)
class Graded:
    """The grading of a run. ``lines``: of ``verdicts.jsonl``, by instance id.

    ``is_shared``: the lines are of other policies' patches too. ``outcomes`` and ``details`` are
    those of its ``report.json``, ``marks`` too.
    """

    folder: Path
    lines: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    final: Mapping[str, Verdict] = field(default_factory=dict)
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    marks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_shared: bool = False

    def verdict(
        self, instance_id: str, patch: str | None, known: Instance | None
    ) -> Verdict | None:
        """The verdict on the instance's patch; None if it was not graded."""
        verdict = self.final.get(instance_id) or self._logged(instance_id, patch, known)
        outcome, detail = self.outcomes.get(instance_id), self.details.get(instance_id, "")
        if outcome and (verdict is None or verdict.outcome != outcome):
            return Verdict(instance_id, outcome, detail=detail)
        return verdict if verdict is None or verdict.detail else replace(verdict, detail=detail)

    def _logged(
        self, instance_id: str, patch: str | None, known: Instance | None
    ) -> Verdict | None:
        """The verdict on exactly this patch if the instance is known, else the last one."""
        found = None
        if known is None and self.is_shared:
            return None
        for line in self.lines.get(instance_id, ()):
            try:
                verdict = _VERDICT.validate_python(line)
            except ValidationError:
                continue
            if known is None or _is_of(line, known, patch or ""):
                found = verdict
        return found

    def log(self, path: str | None) -> str:
        """The text of a log inside the folder, cut in its middle; empty if it can't be read."""
        if not path:
            return ""
        file = (self.folder / path).resolve()
        if not file.is_relative_to(self.folder.resolve()):
            return ""
        try:
            text = file.read_bytes().decode("utf-8", errors="replace")
        except OSError:
            return ""
        return cut_middle(text, _MOST_LOG_CHARS)


def _is_of(line: Mapping[str, Any], instance: Instance, patch: str) -> bool:
    try:
        key = grading_key(
            instance,
            patch,
            image_id=line["image_id"],
            harness_version=line["harness"],
            timeout_s=line["timeout_s"],
        )
    except KeyError:
        return True
    return bool(key == line["key"])


def read_grading(folder: Path, shared: Path | None = None) -> Graded:
    """The grading in a folder; ``shared`` is a folder of verdicts of several policies.

    A damaged file counts as missing: the page shows the readable rest.
    """
    result, report = read_object(folder / RESULT_FILE), read_object(folder / REPORT_FILE)
    place = folder if (folder / VERDICTS_FILE).is_file() or shared is None else shared
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in read_whole_lines(place / VERDICTS_FILE):
        lines.setdefault(str(line.get("instance_id")), []).append(line)
    final = {}
    for row in _of(result, "verdicts", list):
        try:
            verdict = _VERDICT.validate_python(row)
        except ValidationError:
            continue
        final[verdict.instance_id] = verdict
    marks = {
        str(name): tuple(f"{m.get('kind')}: {m.get('what')}" for m in found if isinstance(m, dict))
        for name, found in _of(report, "marks", dict).items()
        if isinstance(found, list)
    }
    details = _of(report, "failure_reasons", dict)
    outcomes = {
        str(name): Outcome(outcome)
        for field_name, outcome in OUTCOMES.items()
        for name in _of(report, field_name, list)
        if outcome in set(Outcome)  # an error is listed by its own outcome too
    }
    return Graded(place, lines, final, outcomes, details, marks, is_shared=place == shared)


def _of(record: Mapping[str, Any], name: str, kind: type) -> Any:
    """A field; an empty one if the file is another program's, or damaged."""
    value = record.get(name)
    return value if isinstance(value, kind) else kind()
