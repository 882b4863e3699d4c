"""Reads and writes predictions in SWE-bench's format: three fields, JSON or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from srl_swe.errors import UserError
from srl_swe.files import parse_json, write_atomic
from srl_swe.types import Instance, Prediction


def load_predictions(
    source: str | Path, instances: Sequence[Instance], *, report: Callable[[str], None] = print
) -> list[Prediction]:
    """The predictions in a .jsonl or .json file, or those named ``gold`` or ``empty``.

    JSON is a list, or SWE-agent's object from instance id to prediction. Of several predictions
    for one instance the last one wins, and ``report`` gets a line. A null patch is an empty one.
    Raises UserError for a file without predictions.
    """
    match str(source):
        case "gold":
            return gold_predictions(instances)
        case "empty":
            return [Prediction(instance.instance_id, "empty", "") for instance in instances]
    path = Path(source)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name its predictions, as {path}/predictions.jsonl.")
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; predictions are a .jsonl or .json file, 'gold' or 'empty'."
        )
    predictions = list(_read(path))
    if not predictions:
        raise UserError(f"{path} does not hold any prediction; there is nothing to grade.")
    last = {prediction.instance_id: prediction for prediction in predictions}
    if surplus := len(predictions) - len(last):
        report(f"{path}: {surplus} earlier predictions for the same instances are not used")
    return list(last.values())


def gold_predictions(instances: Sequence[Instance]) -> list[Prediction]:
    """The reference patch of each instance, under the model name ``gold``."""
    return [Prediction(i.instance_id, "gold", i.gold_patch) for i in instances]


def save_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Writes a .jsonl file in swebench's format, whole or not at all."""
    write_atomic(path, "".join(f"{json.dumps(asdict(p))}\n" for p in predictions))


def _read(path: Path) -> Iterator[Prediction]:
    match path.suffix:
        case ".jsonl":
            with path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield _prediction(parse_json(line, f"{path}:{number}"), f"{path}:{number}")
        case ".json":
            rows = parse_json(path.read_bytes(), str(path))
            if isinstance(rows, dict):
                rows = list(rows.values())
            if not isinstance(rows, list):
                raise UserError(f"{path} must hold a list of predictions, or an object of them.")
            for number, row in enumerate(rows, start=1):
                yield _prediction(row, f"{path}, prediction {number}")
        case _:
            raise UserError(f"{path}: predictions are a .jsonl or a .json file.")


def _prediction(row: Any, where: str) -> Prediction:
    match row:
        case {
            "instance_id": str(instance_id),
            "model_name_or_path": str(model),
            "model_patch": str() | None as patch,
        }:
            return Prediction(instance_id, model, patch or "")
    fields = "instance_id, model_name_or_path, model_patch"
    raise UserError(f"{where}: a prediction has the text fields {fields}.")
