"""Grading from kept logs, of either runner, of swebench's own run, and of edited folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.evaluation.from_logs import NO_LOG, grade_from_logs
from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.harness import Harness, SwebenchHarness
from srl_swe.evaluation.sandbox_harness import LOG_FILE, SandboxHarness
from srl_swe.instances import load_instances
from srl_swe.types import Instance, Outcome, Prediction, Verdict
from srl_swe_envs.local import open_local_sandbox
from srl_swe_envs.owners import owner_labels

from ..commands import srl_swe
from .patches import DOES_NOT_APPLY, new_file

pytestmark = pytest.mark.slow

STARTER = load_instances("starter")[:5]
HARMLESS = new_file("notes.txt", "nothing")
PATCHES = [STARTER[0].gold_patch, HARMLESS, DOES_NOT_APPLY, ""]
PREDICTIONS = [
    Prediction(instance.instance_id, "m", patch)
    for instance, patch in zip(STARTER, PATCHES, strict=False)
]


def in_local_sandboxes(network: str = "none") -> SandboxHarness:
    return SandboxHarness(open_local_sandbox, lambda image: image, network=network)


def without_places(verdicts: list[Verdict]) -> list[Verdict]:
    return [replace(verdict, log_path=None) for verdict in verdicts]


def graded(folder: Path, harness: Harness) -> list[Verdict]:
    return grade(STARTER, PREDICTIONS, folder, harness=harness, max_workers=2)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grading in local sandboxes, which tests copy before they edit it."""
    folder = tmp_path_factory.mktemp("graded")
    graded(folder, in_local_sandboxes())
    return folder


@pytest.mark.parametrize(
    "make_harness",
    [
        pytest.param(in_local_sandboxes, id="sandbox"),
        pytest.param(
            lambda: SwebenchHarness(owner_labels), id="swebench", marks=pytest.mark.docker
        ),
    ],
)
def test_the_verdicts_from_logs_are_those_of_the_run(
    make_harness: Callable[[], Harness], tmp_path: Path
) -> None:
    run = graded(tmp_path / "run", make_harness())
    read = grade_from_logs(STARTER, PREDICTIONS, tmp_path / "run", tmp_path / "out")
    assert without_places(read) == without_places(run)
    assert (tmp_path / "out" / str(read[0].log_path)).resolve().is_file()


def test_the_installed_parser_and_the_rows_tests_decide(run_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "run")
    (log,) = folder.rglob(f"{STARTER[0].instance_id}/{LOG_FILE}")
    log.write_text(log.read_text().replace("PASSED ", "FAILED "))
    (verdict,) = grade_from_logs(STARTER[:1], PREDICTIONS[:1], folder, tmp_path)
    assert verdict.outcome is Outcome.UNRESOLVED
    fewer = replace(STARTER[1], fail_to_pass=STARTER[1].pass_to_pass[:1])
    (verdict,) = grade_from_logs([fewer], PREDICTIONS[1:2], folder, tmp_path)
    assert verdict.outcome is Outcome.RESOLVED


@pytest.mark.parametrize(
    ("instance", "patch"),
    [
        pytest.param(STARTER[0], HARMLESS, id="of another patch"),
        pytest.param(replace(STARTER[0], eval_script="true\n"), PATCHES[0], id="of another script"),
        pytest.param(STARTER[4], HARMLESS, id="never run"),
    ],
)
def test_a_patch_without_a_log_of_its_own_is_reported_apart(
    instance: Instance, patch: str, run_folder: Path, tmp_path: Path
) -> None:
    script = instance.eval_script
    if "Test Output" not in script:
        markers = (f": '>>>>> {word} Test Output'\n" for word in ("Start", "End"))
        instance = replace(instance, eval_script="".join(markers))
    other = Prediction(instance.instance_id, "m", patch)
    said: list[str] = []
    first, second = grade_from_logs(
        [instance, STARTER[1]], [other, PREDICTIONS[1]], run_folder, tmp_path, report=said.append
    )
    assert (first.outcome, first.detail) == (Outcome.BROKEN_SANDBOX, NO_LOG)
    assert second.outcome is Outcome.UNRESOLVED
    assert said[0].startswith("1 of 2 patches have logs")
    assert instance.instance_id in said[1]


def test_logs_of_two_networks_are_not_mixed(run_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "run")
    for path in folder.rglob("verdict.json"):
        network = "bridge" if path.parent.name == STARTER[1].instance_id else "none"
        path.write_text(path.read_text().replace('"network":""', f'"network":"{network}"'))
    read = grade_from_logs(STARTER[:3], PREDICTIONS[:3], folder, tmp_path)
    assert [verdict.network for verdict in read] == ["none", "", "none"]
    assert read[1].detail == NO_LOG


def test_a_folder_without_any_log_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no log of these 3 patches"):
        grade_from_logs(STARTER, PREDICTIONS, tmp_path, tmp_path)


def test_the_command_needs_no_engine(run_folder: Path, tmp_path: Path) -> None:
    gold = ("grade", "gold", "--id", STARTER[0].instance_id)
    asked = ("--from-logs", run_folder, "--out", tmp_path / "out")
    empty_path = {"DOCKER_HOST": "unix:///no/such.sock", "PATH": os.defpath}
    result = srl_swe(*gold, *asked, **empty_path)
    assert result.returncode == 0, result.stderr
    assert "resolved 1 of 1" in result.stdout
    assert "from kept logs" in (tmp_path / "out" / "report.json").read_text()
    both = srl_swe(*gold, *asked, "--runner", "sandbox", "--verify-with", "swebench")
    assert both.returncode == 2
    assert "leave one out" in both.stderr
