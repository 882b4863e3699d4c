from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.bundled import bundled
from srl_swe.errors import UserError
from srl_swe.trajectories import load_trajectories, save_jsonl
from srl_swe.trajectories.convert import WRITERS, convert
from srl_swe.trajectories.jsonl import push_rows
from srl_swe.types import Action, Observation, Step, Trajectory

from ..commands import assert_mistake, invoke, srl_swe

pytestmark = pytest.mark.slow


STARTER = bundled("trajectories") / "starter.jsonl"
OURS = load_trajectories(STARTER)
LOOK = Step("Look.", Action("bash", {"command": "ls"}), Observation("x"), turn=0)


def by_name(trajectories: list[Trajectory]) -> list[Trajectory]:
    return sorted(trajectories, key=lambda trajectory: trajectory.instance_id)


def run(*arguments: str | Path, text: str | None = None) -> str:
    result = invoke("convert", *arguments, text=text)
    assert result.exit_code == 0, result.output
    return result.output


def out_of(to: str, folder: Path) -> Path:
    return folder / (f"out.{to}" if to in {"jsonl", "parquet"} else "out")


@pytest.mark.parametrize("to", ["jsonl", "parquet", "atif"])
def test_what_is_converted_is_read_back_whole(to: str, tmp_path: Path) -> None:
    out = out_of(to, tmp_path)
    assert f"{len(OURS)} trajectories written" in run(STARTER, out, "--to", to)
    numbered = [
        replace(one, steps=tuple(replace(step, turn=n) for n, step in enumerate(one.steps)))
        for one in OURS
    ]
    assert by_name(load_trajectories(out)) == by_name(numbered if to == "atif" else OURS)
    assert list(tmp_path.iterdir()) == [out]


def test_swe_agent_gets_a_folder_of_its_own_files(tmp_path: Path) -> None:
    run(STARTER, tmp_path / "trajs", "--to", "traj")
    ours, read = by_name(OURS), by_name(load_trajectories(tmp_path / "trajs"))
    assert [t.instance_id for t in read] == [t.instance_id for t in ours]
    assert [[s.action for s in t.steps] for t in read] == [
        [s.action for s in t.steps] for t in ours
    ]
    assert [t.patch for t in read] == [t.patch for t in ours]


@pytest.mark.parametrize(("to", "kept"), [("traj", "source=swe-agent"), ("atif", "source=srl-swe")])
def test_formats_follow_each_other(to: str, kept: str, tmp_path: Path) -> None:
    run(STARTER, tmp_path / "between", "--to", to)
    run(tmp_path / "between", tmp_path / "rows.parquet", "--to", "parquet")
    run(tmp_path / "rows.parquet", tmp_path / "end.jsonl", "--filter", kept)
    assert len(load_trajectories(tmp_path / "end.jsonl")) == len(OURS)


def test_what_is_read_can_be_piped_in_and_chosen(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run("-", out, "--slice", "2:5", "--limit", "2", text=STARTER.read_text(encoding="utf-8"))
    assert load_trajectories(out) == OURS[2:4]


def test_several_attempts_at_an_instance_are_several_files(tmp_path: Path) -> None:
    attempts = [Trajectory("../a__b-1", (LOOK,), model=name) for name in "xyz"]
    assert convert(attempts, tmp_path / "out", "traj") == 3
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["_a__b-1.2.traj", "_a__b-1.3.traj", "_a__b-1.traj"]
    assert {t.model for t in load_trajectories(tmp_path / "out")} == {"x", "y", "z"}


def test_what_was_dropped_is_counted(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    save_jsonl(source, [Trajectory("a", (LOOK,)), Trajectory("b", (LOOK,))])
    with source.open("a") as lines:
        lines.write("{}\n")
    said = run(source, tmp_path / "out.jsonl", "--skip-broken", "--filter", "instance=a")
    assert "1 of 3 trajectories; dropped: 1 broken, 1 not instance=a" in said
    assert "1 trajectory written" in said


@pytest.mark.parametrize("to", WRITERS)
@pytest.mark.parametrize(
    ("more", "options", "words"),
    [
        ("{,\n", (), rf"in\.jsonl:{len(OURS) + 1}: not JSON"),
        ("", ("--filter", "instance=nobody"), "there are no trajectories"),
    ],
)
def test_a_conversion_that_fails_leaves_nothing(
    to: str, more: str, options: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(STARTER.read_text(encoding="utf-8") + more, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        run(source, out_of(to, tmp_path), "--to", to, *options)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere.jsonl", "out.jsonl"), "no such file"),
        ((STARTER, STARTER), "exists"),
        ((STARTER, "out.txt"), "ends in .jsonl"),
        ((STARTER, "out.jsonl", "--to", "parkuet"), "'parquet'"),
        ((STARTER, "out.jsonl", "--push", "me/runs"), "--to parquet"),
        ((STARTER, "out.parquet", "--to", "parquet", "--push", "runs"), "OWNER/NAME"),
        ((STARTER, "/dev/null/out.jsonl"), "can't be written"),
        ((STARTER, "out.parquet", "--to", "parquet", "--push", "me/runs"), "can't be pushed"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str | Path, ...], words: str, tmp_path: Path
) -> None:
    result = srl_swe("convert", *arguments, cwd=tmp_path, HF_HOME=str(tmp_path / "hf"))
    assert_mistake(result, words)


def test_what_could_not_be_pushed_is_still_here(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    convert(OURS, out, "parquet")
    with pytest.raises(UserError, match="is written, but"):
        push_rows(out, "me/..")
    assert load_trajectories(out) == OURS
    assert list(tmp_path.iterdir()) == [out]


def test_each_line_of_our_own_format_says_its_version(tmp_path: Path) -> None:
    run(STARTER, tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["format"] for line in lines} == {"srl-swe-trajectory-1"}
