from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from srl_swe.bundled import bundled
from srl_swe.cli.main import app
from srl_swe.cli.replay_table import LiveTable, print_result
from srl_swe.errors import ImageMissing, UserError
from srl_swe.instances import load_instances, row_from_instance
from srl_swe.replay import (
    Attempt,
    Ending,
    Match,
    ReplayedStep,
    certify_all,
    load_certificates,
    summarise,
)
from srl_swe.trajectories import load_trajectories, save_jsonl
from srl_swe.types import Trajectory

STARTER = load_trajectories(bundled("trajectories") / "starter.jsonl")


def replay(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["replay", *arguments])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert isinstance(result.exception, SystemExit | None), result.output
    return result


def saved(folder: Path, *trajectories: Trajectory) -> str:
    save_jsonl(folder / "trajectories.jsonl", trajectories)
    return str(folder / "trajectories.jsonl")


def test_all_bundled_trajectories_are_faithful_without_a_container(tmp_path: Path) -> None:
    result = replay("--sandbox", "local", "--limit", "2", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert len(load_certificates(tmp_path / "certificates.jsonl")) == 2
    assert json.loads((tmp_path / "summary.json").read_text())["all_faithful"] is True
    assert "2 of 2 replays are faithful" in (tmp_path / "report.html").read_text()


def test_another_patch_is_exit_code_1(tmp_path: Path) -> None:
    theirs = saved(tmp_path, replace(STARTER[0], patch="diff --git a/x b/x\n+x\n"), STARTER[1])
    result = replay(theirs, "--sandbox", "local", "--trust-commands")
    assert result.exit_code == 1
    assert "other patch" in result.output


def test_what_has_no_instance_is_listed_and_the_others_are_replayed(tmp_path: Path) -> None:
    theirs = saved(tmp_path, STARTER[0], replace(STARTER[1], instance_id="no__body-1"))
    result = replay(theirs, "--sandbox", "local", "--trust-commands", "--until", "1")
    assert result.exit_code == 1
    assert "not replayed: no__body-1: not_in_bench" in result.output
    with pytest.raises(UserError, match="starter holds none of the 1 instances"):
        replay(saved(tmp_path, replace(STARTER[1], instance_id="no__body-1")))


def test_grading_needs_a_folder() -> None:
    with pytest.raises(UserError, match="--out"):
        replay("--grade")


def test_a_shell_is_for_one_trajectory_and_for_a_person() -> None:
    with pytest.raises(UserError, match="one trajectory, and these are 8"):
        replay("--shell", "--sandbox", "local")
    with pytest.raises(UserError, match="--shell needs a terminal"):
        replay("--shell", "--sandbox", "local", "--limit", "1")


def test_a_place_that_can_not_be_written_is_a_mistake_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    ours = ("--sandbox", "local", "--limit", "1")
    for options, why in (
        (("--out", str(file)), "is a file"),
        (("--record", str(tmp_path)), "is a folder"),
        (("--record", str(file / "record.jsonl")), "takes no files"),
        (("--shell", "--out", str(tmp_path)), "leaves no results"),
    ):
        with pytest.raises(UserError, match=why):
            replay(*ours, *options)


def test_names_that_a_record_gives_are_printed_to_the_letter(tmp_path: Path) -> None:
    theirs = saved(tmp_path, replace(STARTER[0], source="[/mine]"))
    result = replay(theirs, "--sandbox", "local", "--trust-commands", "--until", "0")
    assert "[/mine]" in result.output


@pytest.mark.docker
def test_replays_are_graded_and_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    idle = replace(STARTER[1], steps=STARTER[1].steps[-1:], patch=None)
    theirs = saved(tmp_path, STARTER[0], idle)
    for _ in range(2):
        result = replay(theirs, "--grade", "--out", str(tmp_path / "out"))
        assert result.exit_code == 0, result.output
        graded = [c.verdict for c in load_certificates(tmp_path / "out" / "certificates.jsonl")]
        assert [one and one.outcome for one in graded] == ["resolved", "empty_patch"]
    assert "replay 1/" not in result.output


@pytest.mark.docker
def test_an_image_that_nobody_has_ends_its_own_trajectories(tmp_path: Path) -> None:
    first, second = (i for i in load_instances("starter") if i.instance_id in
                     {STARTER[0].instance_id, STARTER[1].instance_id})  # fmt: skip
    lacking = replace(second, instance_id="no__body-1", image="localhost:1/nobody/has:this")
    bench = tmp_path / "bench.jsonl"
    rows = [json.dumps(row_from_instance(one)) for one in (first, lacking)]
    bench.write_text("\n".join(rows) + "\n")
    other = replace(STARTER[1], instance_id="no__body-1")
    result = replay(saved(tmp_path, STARTER[0], other), "--bench", str(bench))
    assert result.exit_code == 1
    assert "not replayed: no__body-1: image_missing" in result.output
    with pytest.raises(ImageMissing, match="no image of these trajectories can be had"):
        replay(saved(tmp_path, other), "--bench", str(bench))


def make_attempts() -> list[Attempt]:
    broken = Attempt("1", STARTER[0], Ending.BROKEN_SANDBOX, reason="[red]killed[/]")
    return [broken, Attempt("2", STARTER[1], Ending.NOT_IN_BENCH, reason="not there")]


def test_the_live_table_has_a_row_for_each_that_is_running() -> None:
    console = Console(file=io.StringIO(), width=100)
    table = LiveTable(2, console)
    table.begin("1", STARTER[0], 7)
    table.begin("2", STARTER[1], 10)
    table.step("2", 0, ReplayedStep(None, Match.EQUAL, 0.1))
    table.step("2", 1, ReplayedStep(None, Match.DIFFERENT, 0.1))
    console.print(table)
    table.end(make_attempts()[0])
    console.print(table)
    before, _, after = console.file.getvalue().partition("killed")  # type: ignore[attr-defined]
    assert [line.split()[1:] for line in before.splitlines() if line.startswith("starter__")][
        :2
    ] == [
        ["0/7", "opening", "-"],
        ["2/10", "different", "1"],
    ]
    assert "0/2" in before
    assert "1/2" in after
    assert STARTER[0].instance_id not in after
    assert "ETA" in after


def test_the_result_names_all_that_was_not_replayed() -> None:
    console = Console(file=io.StringIO(), width=80)
    certificates = certify_all(make_attempts(), {})
    print_result(summarise(certificates), certificates, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "broken_sandbox: [red]killed[/]" in printed
    assert "not_in_bench: not there" in printed
    assert "…" not in printed


def test_elsewhere_than_on_a_terminal_there_are_plain_lines() -> None:
    command = ["replay", "--sandbox", "local", "--limit", "1", "--until", "1"]
    result = subprocess.run(
        [sys.executable, "-m", "srl_swe", *command],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert "replay 1/1: starter__inikit-1: 1 steps, faithful" in result.stderr
    assert "\x1b" not in result.stderr + result.stdout


@pytest.mark.docker
def test_a_replay_leaves_no_open_answer_of_the_engine_behind() -> None:
    # The development mode of Python prints on 3.11 what 3.13 prints always.
    command = [sys.executable, "-X", "dev", "-m", "srl_swe", "replay", "--limit", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "Exception ignored" not in result.stderr
