import json
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.evaluation.predictions import load_predictions, save_predictions
from srl_swe.types import Instance, Prediction

INSTANCES = [Instance("a-1", "o/r", "c", "p", "i", gold_patch="gold\n")]
ROWS = [
    {"instance_id": "a-1", "model_name_or_path": "m", "model_patch": "x\n\u2028"},
    {"instance_id": "a-2", "model_name_or_path": "m", "model_patch": None},
]
EXPECTED = [Prediction("a-1", "m", "x\n\u2028"), Prediction("a-2", "m", "")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS)),
        ("p.json", json.dumps(ROWS)),
        ("p.json", json.dumps({row["instance_id"]: row for row in ROWS})),
    ],
)
def test_swebenchs_three_forms_are_read(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert load_predictions(tmp_path / name, INSTANCES) == EXPECTED


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "p.jsonl"
    save_predictions(path, EXPECTED)
    assert load_predictions(path, INSTANCES) == EXPECTED


def test_the_harness_reads_what_is_written(tmp_path: Path) -> None:
    from swebench.harness.utils import get_predictions_from_file

    save_predictions(tmp_path / "p.jsonl", EXPECTED)
    read = get_predictions_from_file(str(tmp_path / "p.jsonl"), "", "")
    assert [row["model_patch"] for row in read] == [
        prediction.model_patch for prediction in EXPECTED
    ]


def test_the_last_of_several_wins_and_that_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    both = [Prediction("a-1", "m", patch) for patch in ("first", "second")]
    save_predictions(tmp_path / "p.jsonl", both)
    (last,) = load_predictions(tmp_path / "p.jsonl", INSTANCES, report=said.append)
    assert last.model_patch == "second"
    assert "1 earlier predictions" in said[0]


def test_gold_and_empty_are_made_from_the_instances() -> None:
    assert load_predictions("gold", INSTANCES) == [Prediction("a-1", "gold", "gold\n")]
    assert load_predictions("empty", INSTANCES) == [Prediction("a-1", "empty", "")]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.jsonl", json.dumps(ROWS[0]) + "\n{", r"p\.jsonl:2: not JSON"),
        ("p.jsonl", '{"instance_id": "a-1"}', r"p\.jsonl:1: a prediction has the text fields"),
        ("p.json", '[{"instance_id": 1}]', r"p\.json, prediction 1: a prediction has"),
        ("p.json", '"text"', "must hold a list of predictions"),
        ("p.txt", "", r"a \.jsonl or a \.json file"),
    ],
)
def test_a_broken_file_is_named_with_the_place(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        load_predictions(tmp_path / name, INSTANCES)


def test_a_missing_file_says_what_would_do() -> None:
    with pytest.raises(UserError, match=r"does not exist; predictions are .* 'gold' or 'empty'"):
        load_predictions("goldd", INSTANCES)
