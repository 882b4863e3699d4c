"""Files that version 0.1.0 wrote (``stored_0_1``) load, are reported, and are continued."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.harness import HarnessJob
from srl_swe.evaluation.predictions import gold_predictions
from srl_swe.instances import instance_from_row
from srl_swe.types import Outcome

from ..commands import srl_swe as run_command

pytestmark = pytest.mark.slow


STORED = Path(__file__).parent / "stored_0_1"
INSTANCE_ID = "starter__lrucache-1"

needs_trl = pytest.mark.skipif(find_spec("trl") is None, reason="needs the extra train")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the stored files."""
    return Path(shutil.copytree(STORED, tmp_path / "old"))


def srl_swe(folder: Path, *arguments: str, code: int = 0) -> str:
    """The command's output; it runs in ``folder``, whose old configs hold relative paths."""
    done = run_command(*arguments, cwd=folder, COLUMNS="120")
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_step_data_set_is_complete(old: Path) -> None:
    before = contents(old / "steps")
    arguments = ("steps", "--source", "trajectory.jsonl", "--include-submit")
    assert "8" in srl_swe(old, "steps", *arguments)
    after = contents(old / "steps")
    assert {path: after[path] for path in before} == before


def test_a_replay_is_not_executed_again(old: Path) -> None:
    before = (old / "replay" / "replays.jsonl").read_bytes()
    arguments = ("trajectory.jsonl", "--out", "replay", "--sandbox", "local", "--trust-commands")
    srl_swe(old, "replay", *arguments)
    assert (old / "replay" / "replays.jsonl").read_bytes() == before
    (certificate,) = lines(old / "replay" / "certificates.jsonl")
    assert certificate["faithful"] is True


def test_a_replay_of_an_older_schema_is_executed_again(old: Path) -> None:
    arguments = ("trajectory.jsonl", "--out", "replay-2", "--sandbox", "local", "--trust-commands")
    srl_swe(old, "replay", *arguments)
    assert len(lines(old / "replay-2" / "replays.jsonl")) == 2
    (certificate,) = lines(old / "replay-2" / "certificates.jsonl")
    assert certificate["faithful"] is True


@pytest.mark.parametrize("kept", ["verdicts.jsonl", "the harness's logs"])
def test_a_verdict_is_reused(old: Path, kept: str) -> None:
    folder = old / "grade"
    (recorded,) = lines(folder / "verdicts.jsonl")
    if kept == "verdicts.jsonl":
        shutil.rmtree(folder / "harness" / "logs")
    else:
        (folder / "verdicts.jsonl").unlink()

    class IdleHarness:
        """The grader of the stored verdicts; refuses to run."""

        version = "swebench 5.0.2"

        def image_id(self, image: str) -> str:
            return str(recorded["image_id"])

        def run(self, job: HarnessJob, done: Callable[[], bool]) -> None:
            raise AssertionError("an old verdict is graded again")

    instances = [instance_from_row(row) for row in lines(folder / "harness" / "instances.jsonl")]
    gold = gold_predictions(instances)
    (verdict,) = grade(instances, gold, folder, harness=IdleHarness())
    assert verdict.outcome is Outcome.RESOLVED
    assert list(verdict.passed) == recorded["passed"]
    assert (verdict.network, verdict.log_path) == (recorded["network"], recorded["log_path"])


def test_runs_are_listed_and_compared(old: Path) -> None:
    listed = {line.split()[1]: line for line in srl_swe(old, "runs", "list", ".").splitlines()
              if " sft " in line or " srl " in line}  # fmt: skip
    assert "unfinished" in listed["sft"] and "2/6" in listed["sft"] and "5.566" in listed["sft"]
    assert "finished" in listed["srl"] and "-1.000" in listed["srl"]
    assert "max_steps" in srl_swe(old, "runs", "compare", "sft", "srl")


@pytest.mark.train
@needs_trl
def test_a_killed_training_continues_from_its_checkpoint(old: Path) -> None:
    before = lines(old / "sft" / "metrics.jsonl")
    srl_swe(old, "train", "sft", "--config", "sft.yaml")
    assert lines(old / "sft" / "metrics.jsonl")[: len(before)] == before
    manifest = json.loads((old / "sft" / "manifest.json").read_text())
    assert [start["from_step"] for start in manifest["starts"]] == [0, 2]
    assert manifest["starts"][-1]["to_step"] == 6
    assert (old / "sft" / "final" / "model.safetensors").is_file()


@pytest.mark.train
@needs_trl
def test_a_finished_training_is_not_repeated(old: Path) -> None:
    before = contents(old / "srl")
    assert srl_swe(old, "train", "srl", "--config", "srl.yaml").strip().endswith("srl/final")
    assert contents(old / "srl") == before


@pytest.mark.train
@needs_trl
def test_rollouts_are_not_repeated(old: Path) -> None:
    before = contents(old / "rollout")
    options = ("--id", INSTANCE_ID, "--sandbox", "local", "--trust-commands", "--max-steps", "2")
    srl_swe(old, "rollout", "policy", "--out", "rollout", *options, "--max-new-tokens", "32")
    assert contents(old / "rollout") == before


@pytest.mark.train
@needs_trl
def test_sampled_steps_are_not_sampled_again(old: Path) -> None:
    """All rewards of this policy are -1, so that no step is kept: exit code 2, as before."""
    before = contents(old / "profile")
    options = ("--policy", "policy", "--samples", "2", "--max-new-tokens", "8")
    assert "no step" in srl_swe(old, "profile", "steps", "--out", "profile", *options, code=2)
    assert contents(old / "profile") == before
