from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.bundled import bundled
from srl_swe.trajectories import BrokenRecord, Reading, load_trajectories
from srl_swe.trajectories.jsonl import render_row, save_rows
from srl_swe.trajectories.readers import find_reader, read_record
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
FULL = Trajectory(
    "a__b-1",
    (
        Step(" t\n", Action("bash", {"command": "ls", "b": ""}), Observation("a", 0), True, 0),
        Step("", Action("submit"), None, False, 0),
        Step("no call", None, Observation("", truncated=True, timed_out=True), False, 1),
        Step("", Action("bash", {}), Observation("x", -1)),
    ),
    problem_statement="It crashes.",
    stop_reason=StopReason.STEP_LIMIT,
    patch="diff --git a/x b/x\n",
    resolved=False,
    model="m",
    source="swe-agent",
    enforced={"network": "none", "pids": 512, "disk_bytes": None},
    exit_status="exit_cost",
    notes=("one", "two"),
)
EMPTY = Trajectory("a__b-2", ())


def test_rows_in_a_file_are_read_back_as_the_trajectories_they_are_of(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    assert save_rows(path, [FULL, EMPTY]) == 2
    assert load_trajectories(path) == [FULL, EMPTY]


def test_rows_are_read_back_by_way_of_a_data_set_as_the_hub_holds_it(tmp_path: Path) -> None:
    save_rows(tmp_path / "train.parquet", [EMPTY, FULL])
    rows = datasets.Dataset.from_parquet(str(tmp_path / "train.parquet"), cache_dir=str(tmp_path))
    assert [read_record(row, "hub:1") for row in rows] == [EMPTY, FULL]
    rows.to_parquet(tmp_path / "again.parquet")
    assert load_trajectories(tmp_path / "again.parquet") == [EMPTY, FULL]


def test_the_columns_have_the_same_types_whatever_is_in_them(tmp_path: Path) -> None:
    schemas = []
    for name, run in (("full", FULL), ("empty", EMPTY)):
        save_rows(tmp_path / name, [run])
        schemas.append(pyarrow.parquet.read_schema(tmp_path / name))
    assert schemas[0] == schemas[1]
    assert not any(str(field.type) == "null" for field in schemas[0])


texts = st.text(st.characters(codec="utf-8"), max_size=20)
steps = st.builds(
    Step,
    texts,
    st.none() | st.builds(Action, texts, st.dictionaries(texts, texts, max_size=3)),
    st.none() | st.builds(Observation, texts, st.none() | st.integers(-(2**31), 2**31)),
    st.booleans(),
    st.none() | st.integers(0, 99),
)


@given(st.lists(steps, max_size=4), st.none() | texts, st.none() | st.booleans())
def test_a_row_holds_all_of_any_trajectory(
    made: list[Step], text: str | None, resolved: bool | None
) -> None:
    run = Trajectory("a", tuple(made), text, patch=text, resolved=resolved, exit_status=text)
    assert read_record(render_row(run), "row") == run


def test_what_no_table_can_hold_is_replaced() -> None:
    run = replace(EMPTY, patch=b"+caf\xe9".decode("utf-8", errors="surrogateescape"))
    assert render_row(run)["patch"] == "+caf?"


def test_the_bundled_trajectories_come_back_from_rows(tmp_path: Path) -> None:
    ours = load_trajectories(bundled("trajectories") / "starter.jsonl")
    save_rows(tmp_path / "x.parquet", ours)
    assert load_trajectories(tmp_path / "x.parquet") == ours


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples are not here")
def test_real_trajectories_of_every_family_come_back_from_rows(tmp_path: Path) -> None:
    real = load_trajectories(SAMPLES, Reading(on_broken="skip"))
    assert save_rows(tmp_path / "x.parquet", real) == len(real) > 100
    assert load_trajectories(tmp_path / "x.parquet") == real


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"instance_id": None}, "instance_id"),
        ({"resolved": "maybe"}, "resolved"),
        ({"steps": "{"}, "steps"),
        ({"enforced": "["}, "enforced"),
        ({"steps": [{"thought": "t", "tool": "bash", "arguments": "3"}]}, "steps.0.arguments"),
        ({"steps": [{"thought": "t", "executed": True, "observation": 3}]}, "observation.text"),
    ],
)
def test_a_broken_row_is_named_with_its_column(change: dict[str, Any], field: str) -> None:
    record = {**render_row(FULL), **change}
    assert find_reader(record) is not None
    with pytest.raises(BrokenRecord, match=rf"^rows\.parquet:3: .*{field}"):
        read_record(record, "rows.parquet:3")
