from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from srl_swe.errors import UserError
from srl_swe.steps import StepJob, StepMaker, StepSettings, build_step_dataset, load_card
from srl_swe.steps.prompt import Window
from srl_swe.steps.rows import is_finished
from srl_swe.trajectories import ReadReport
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Action, Observation, Step, Trajectory

pytestmark = pytest.mark.slow


SETTINGS = StepSettings(validation=0.1)


def make_trajectories(count: int, text: str = "") -> list[Trajectory]:
    steps = [
        Step("look", Action("bash", {"command": "ls"}), Observation("x.py")),
        Step("look again", Action("bash", {"command": "cat x.py"}), Observation("print()")),
        Step("done", Action("submit")),
    ]
    return [Trajectory(f"a__b-{n}", tuple(steps), f"{text}{n}") for n in range(count)]


def make_job(out: Path, settings: StepSettings = SETTINGS) -> StepJob:
    return StepJob(out, StepMaker(settings), {"source": "test"})


def build(out: Path, trajectories: list[Trajectory], settings: StepSettings = SETTINGS) -> bool:
    job = make_job(out, settings)
    return build_step_dataset(iter(trajectories), job, ReadReport(records=len(trajectories)))


def all_files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}


class Stopped(Exception):
    """What ends a build in the tests as a broken disk would."""


def stop_after(trajectories: list[Trajectory], count: int) -> Iterator[Trajectory]:
    yield from trajectories[:count]
    raise Stopped


def begin(out: Path, trajectories: list[Trajectory], count: int) -> None:
    with pytest.raises(Stopped):
        build_step_dataset(stop_after(trajectories, count), make_job(out), ReadReport())


@pytest.mark.parametrize("stopped_at", [1, 300, 520, 799, 800])
def test_a_build_that_was_stopped_goes_on_to_the_same_bytes(
    tmp_path: Path, stopped_at: int
) -> None:
    trajectories = make_trajectories(800)
    build(tmp_path / "whole" / "steps", trajectories)
    begin(tmp_path / "stopped" / "steps", trajectories, stopped_at)
    build(tmp_path / "stopped" / "steps", trajectories)
    assert all_files(tmp_path / "whole") == all_files(tmp_path / "stopped")


def test_only_whole_shards_outlive_a_failure(tmp_path: Path) -> None:
    begin(tmp_path / "steps", make_trajectories(800), 100)
    assert list(tmp_path.iterdir()) == []
    begin(tmp_path / "steps", make_trajectories(800), 300)
    assert {path.name for path in (tmp_path / ".steps.partial").rglob("*") if path.is_file()} == {
        "config.json",
        "00000.json",
        "00000-train.arrow",
        "00000-validation.arrow",
    }


def test_another_command_on_a_partial_build_is_refused_with_what_differs(tmp_path: Path) -> None:
    begin(tmp_path / "steps", make_trajectories(800), 300)
    with pytest.raises(UserError, match=r"window\.pairs: 2 -> 3"):
        build(
            tmp_path / "steps",
            make_trajectories(800),
            StepSettings(window=Window(3), validation=0.1),
        )


def test_another_source_under_the_same_name_is_refused(tmp_path: Path) -> None:
    begin(tmp_path / "steps", make_trajectories(800), 300)
    with pytest.raises(UserError, match="other trajectories"):
        build(tmp_path / "steps", make_trajectories(800, "changed"))


@pytest.mark.parametrize("moved", [("train",), ("train", "validation")])
def test_a_kill_between_the_moves_leaves_the_same_bytes_in_the_end(
    tmp_path: Path, moved: tuple[str, ...]
) -> None:
    trajectories = make_trajectories(600)
    build(tmp_path / "whole" / "steps", trajectories)
    begin(tmp_path / "steps", trajectories, 600)
    for split in moved:
        folder = make_job(tmp_path / "steps").folders[split]
        shutil.copytree(tmp_path / "whole" / folder.name, folder)
    assert build(tmp_path / "steps", trajectories) == (len(moved) == 1)
    assert not (tmp_path / ".steps.partial").exists()
    for name in ("steps", "steps-validation"):
        assert all_files(tmp_path / name) == all_files(tmp_path / "whole" / name)


def test_a_shard_that_is_finished_is_not_made_again(tmp_path: Path) -> None:
    trajectories = make_trajectories(800)
    begin(tmp_path / "steps", trajectories, 520)
    made: list[int] = []
    job = make_job(tmp_path / "steps")
    build_step_dataset(trajectories, job, ReadReport(), lambda shard: made.append(shard.number))
    assert made == [2, 3]


def test_fewer_trajectories_than_the_finished_shards_hold_are_refused(tmp_path: Path) -> None:
    begin(tmp_path / "steps", make_trajectories(800), 600)
    with pytest.raises(UserError, match="other trajectories"):
        build(tmp_path / "steps", make_trajectories(256))


@pytest.mark.parametrize("left", ["ledger.jsonl", "sealed"])
def test_a_build_that_version_0_1_left_unfinished_is_one_clear_line(
    tmp_path: Path, left: str
) -> None:
    (tmp_path / ".steps.partial").mkdir()
    (tmp_path / ".steps.partial" / left).touch()
    with pytest.raises(UserError, match=r"steps\.partial holds .* version 0\.1 .* delete it"):
        build(tmp_path / "steps", make_trajectories(3))


def test_a_damaged_record_of_a_shard_is_one_clear_line(tmp_path: Path) -> None:
    begin(tmp_path / "steps", make_trajectories(800), 300)
    (tmp_path / ".steps.partial" / "00000.json").write_text("{")
    with pytest.raises(UserError, match=r"00000\.json: damaged .* made again"):
        build(tmp_path / "steps", make_trajectories(800))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_killed_at_once_goes_on_to_the_same_bytes_and_leaves_no_process(
    tmp_path: Path, workers: int
) -> None:
    lines = [render_line(trajectory).encode() for trajectory in make_trajectories(800)]
    command = [sys.executable, "-m", "srl_swe", "steps", "--source", "-"]
    command += ["--validation", "0.1", "--workers", str(workers)]
    subprocess.run([*command, str(tmp_path / "whole" / "steps")], input=b"".join(lines), check=True)
    killed = tmp_path / "killed" / "steps"
    process = subprocess.Popen([*command, str(killed)], stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.writelines(lines[:600])
    process.stdin.flush()
    wait_for((killed.parent / ".steps.partial" / "00000.json").exists)
    helpers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    wait_for(lambda: not any(helper.is_running() for helper in helpers))
    subprocess.run([*command, str(killed)], input=b"".join(lines), check=True)
    assert all_files(tmp_path / "whole") == all_files(tmp_path / "killed")


def wait_for(holds: object) -> None:
    deadline = time.monotonic() + 60
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_finished_build_is_known_by_its_config(tmp_path: Path) -> None:
    build(tmp_path / "steps", make_trajectories(30))
    assert is_finished(tmp_path / "steps", make_job(tmp_path / "steps").config)
    assert load_card(tmp_path / "steps").config == make_job(tmp_path / "steps").config
