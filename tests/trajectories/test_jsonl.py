"""Our own formats: lines, rows for tables, and scripts of experts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.bundled import bundled
from srl_swe.errors import UserError
from srl_swe.trajectories import (
    BrokenRecord,
    Reading,
    json_schema,
    load_trajectories,
    save_jsonl,
)
from srl_swe.trajectories.jsonl import (
    EXPERT_SCRIPT,
    load_jsonl,
    parse_line,
    render_line,
    render_row,
    save_rows,
)
from srl_swe.trajectories.readers import find_reader, read_record
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory

text = st.text(st.characters(exclude_categories=["Cs"]))
maybe = st.none() | text
codes = st.none() | st.integers(-(2**31), 2**31)
observations = st.builds(Observation, text, codes, st.booleans(), st.booleans())
actions = st.builds(Action, text, st.dictionaries(text, text, max_size=3))
steps = st.builds(
    Step,
    text,
    st.none() | actions,
    st.none() | observations,
    st.booleans(),
    st.none() | st.integers(0, 9),
)
trajectories = st.builds(
    Trajectory,
    text,
    st.lists(steps, max_size=3).map(tuple),
    maybe,
    st.none() | st.sampled_from(StopReason),
    maybe,
    st.none() | st.booleans(),
    enforced=st.none() | st.dictionaries(text, maybe, max_size=2),
    exit_status=maybe,
    notes=st.lists(text, max_size=2).map(tuple),
)


@given(trajectories)
def test_what_is_rendered_is_read_back(trajectory: Trajectory) -> None:
    line = render_line(trajectory)
    assert line.count("\n") == 1
    assert parse_line(line, "here") == trajectory


GOOD = render_line(Trajectory("a__b-1", (Step("t", Action("submit")),)))


def test_fields_that_say_nothing_are_left_out_as_older_readers_wrote_lines() -> None:
    (step,) = json.loads(GOOD)["steps"]
    assert set(step) == {"thought", "action", "observation", "executed"}
    assert not {"enforced", "exit_status", "notes"} & set(json.loads(GOOD))
    assert parse_line(GOOD, "here") == Trajectory("a__b-1", (Step("t", Action("submit")),))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "f.jsonl:2: not JSON"),
        ("[]", "f.jsonl:2: not a trajectory"),
        (json.dumps({"format": "other"}), "f.jsonl:2: not a trajectory"),
        (GOOD.replace('"tool": "submit"', '"tool": 3'), "f.jsonl:2: steps.0.action.tool"),
        (GOOD.replace('"thought": "t", ', ""), "f.jsonl:2: steps.0.thought"),
    ],
)
def test_a_broken_line_is_named_with_its_file_line_and_field(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(GOOD + line + "\n")
    with pytest.raises(UserError, match=message):
        load_trajectories(path)


def test_a_patch_that_is_no_utf8_comes_back_in_a_file_that_is(tmp_path: Path) -> None:
    patch = b"+caf\xe9\n"
    run = Trajectory("a__b-1", (), patch=patch.decode("utf-8", errors="surrogateescape"))
    save_jsonl(tmp_path / "f.jsonl", [run])
    assert (tmp_path / "f.jsonl").read_text(encoding="utf-8").endswith("}\n")
    assert load_jsonl(tmp_path / "f.jsonl") == [run]
    (read,) = load_trajectories(tmp_path / "f.jsonl")
    assert read.patch == "+caf?\n"


@pytest.mark.parametrize("name", ["missing.jsonl", "other.csv", "empty.jsonl", "."])
def test_a_source_without_trajectories_is_a_mistake(tmp_path: Path, name: str) -> None:
    (tmp_path / "other.csv").write_text("")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="trajector"):
        load_trajectories(tmp_path / name)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    save_jsonl(tmp_path / "b.jsonl", [Trajectory("b", ())])
    save_jsonl(tmp_path / "a.jsonl", [Trajectory("a", ())])
    assert [t.instance_id for t in load_trajectories(tmp_path)] == ["a", "b"]


def test_an_expert_script_is_read_as_steps_without_observations(tmp_path: Path) -> None:
    path = tmp_path / "a__b-1.txt"
    path.write_text(
        "<think>\nlook\n</think>\n\n<function=bash>\n<parameter=command>ls</parameter>\n"
        "</function>\n\n<think>\ndone\n</think>\n\n<function=submit>\n</function>\n"
    )
    (script,) = load_trajectories(path)
    assert script.instance_id == "a__b-1"
    assert script.steps == (
        Step("look", Action("bash", {"command": "ls"})),
        Step("done", Action("submit")),
    )


@pytest.mark.parametrize(
    "broken", ["and then?\n", "<think>\nx\n</think>\n<function=vi>\n</function>"]
)
def test_a_script_with_anything_else_is_a_mistake(broken: str) -> None:
    with pytest.raises(UserError, match=r"a__b-1\.txt"):
        EXPERT_SCRIPT.read(broken, "a__b-1.txt")


def test_the_schema_in_the_repository_is_current() -> None:
    held = json.loads((bundled("trajectories") / "schema.json").read_text())
    assert held == json_schema(), "run: make schema"


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


@given(trajectories)
def test_a_row_holds_all_of_any_trajectory(trajectory: Trajectory) -> None:
    assert read_record(render_row(trajectory), "row") == trajectory


def test_what_no_table_can_hold_is_replaced() -> None:
    run = replace(EMPTY, patch=b"+caf\xe9".decode("utf-8", errors="surrogateescape"))
    assert render_row(run)["patch"] == "+caf?"


def test_the_bundled_trajectories_come_back_from_rows(tmp_path: Path) -> None:
    ours = load_trajectories(bundled("trajectories") / "starter.jsonl")
    save_rows(tmp_path / "x.parquet", ours)
    assert load_trajectories(tmp_path / "x.parquet") == ours


def test_real_trajectories_of_every_family_come_back_from_rows(
    samples: Path, tmp_path: Path
) -> None:
    real = load_trajectories(samples, Reading(on_broken="skip"))
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
