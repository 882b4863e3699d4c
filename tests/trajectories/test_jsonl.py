from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.bundled import bundled
from srl_swe.errors import UserError
from srl_swe.trajectories import json_schema, load_expert_script, load_trajectories, save_jsonl
from srl_swe.trajectories.jsonl import load_jsonl, parse_line, render_line
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory

text = st.text(st.characters(exclude_categories=["Cs"]))
observations = st.builds(
    Observation, text, st.one_of(st.none(), st.integers(-1, 255)), st.booleans(), st.booleans()
)
actions = st.builds(Action, text, st.dictionaries(text, text, max_size=3))
steps = st.builds(
    Step,
    text,
    st.one_of(st.none(), actions),
    st.one_of(st.none(), observations),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 9)),
)
trajectories = st.builds(
    Trajectory,
    text,
    st.lists(steps, max_size=3).map(tuple),
    st.one_of(st.none(), text),
    st.one_of(st.none(), st.sampled_from(StopReason)),
    st.one_of(st.none(), text),
    st.one_of(st.none(), st.booleans()),
    enforced=st.one_of(st.none(), st.dictionaries(text, st.one_of(st.none(), text), max_size=2)),
    exit_status=st.one_of(st.none(), text),
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
    script = load_expert_script(path)
    assert script.instance_id == "a__b-1"
    assert script.steps == (
        Step("look", Action("bash", {"command": "ls"})),
        Step("done", Action("submit")),
    )


@pytest.mark.parametrize(
    "broken", ["and then?\n", "<think>\nx\n</think>\n<function=vi>\n</function>"]
)
def test_a_script_with_anything_else_is_a_mistake(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "a__b-1.txt"
    path.write_text(broken)
    with pytest.raises(UserError, match=r"a__b-1\.txt"):
        load_expert_script(path)


def test_the_schema_in_the_repository_is_current() -> None:
    held = json.loads((bundled("trajectories") / "schema.json").read_text())
    assert held == json_schema(), "run: make schema"
