from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from srl_swe.errors import UserError
from srl_swe.run_folder import claim
from srl_swe.steps import Making, StepJob, StepSettings, build_step_dataset, load_card
from srl_swe.steps.prompt import Window
from srl_swe.steps.shards import is_finished
from srl_swe.trajectories import ReadReport
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Action, Observation, Step, Trajectory

SETTINGS = StepSettings(validation=0.1)


def make_trajectories(count: int, text: str = "") -> list[Trajectory]:
    steps = [
        Step("look", Action("bash", {"command": "ls"}), Observation("x.py")),
        Step("look again", Action("bash", {"command": "cat x.py"}), Observation("print()")),
        Step("done", Action("submit")),
    ]
    return [Trajectory(f"a__b-{n}", tuple(steps), f"{text}{n}") for n in range(count)]


def make_job(out: Path, settings: StepSettings = SETTINGS) -> StepJob:
    return StepJob(out, Making(settings), {"source": "test"})


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
        "ledger.jsonl",
        "data-00000.arrow",
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


@pytest.mark.parametrize("moved", [(), ("validation",), ("validation", "train")])
def test_a_kill_between_the_moves_leaves_only_moves_to_do(
    tmp_path: Path, moved: tuple[str, ...]
) -> None:
    trajectories = make_trajectories(100)
    build(tmp_path / "whole" / "steps", trajectories)
    folders = make_job(tmp_path / "steps").folders
    build(tmp_path / "steps", trajectories)
    partial = tmp_path / ".steps.partial"
    claim(partial, make_job(tmp_path / "steps").config)
    (partial / "sealed").touch()
    for split, folder in folders.items():
        if split not in moved:
            folder.rename(partial / split)
    assert not build(tmp_path / "steps", []), "nothing is read again"
    assert not partial.exists()
    for name in ("steps", "steps-validation"):
        assert all_files(tmp_path / name) == all_files(tmp_path / "whole" / name)


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
    process.stdin.writelines(lines[:400])
    process.stdin.flush()
    wait_for((killed.parent / ".steps.partial" / "ledger.jsonl").exists)
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
