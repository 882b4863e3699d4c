from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.errors import EngineUnavailable, ImageMissing
from srl_swe.evaluation import check_gold, gold_predictions, grade
from srl_swe.evaluation.harness import HarnessJob, SwebenchHarness
from srl_swe.instances import load_instances
from srl_swe.types import Instance, Outcome, Prediction

pytestmark = pytest.mark.docker


def new_file(path: str, *lines: str) -> str:
    added = "".join(f"+{line}\n" for line in lines)
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1,{len(lines)} @@\n{added}"


NO_OP = new_file("notes.txt", "nothing")
HANGS = new_file("conftest.py", "import time", "time.sleep(600)")
DOES_NOT_APPLY = "--- a/nowhere.py\n+++ b/nowhere.py\n@@ -1 +1 @@\n-old\n+new\n"


class CountingHarness(SwebenchHarness):
    runs = 0

    def run(self, job: HarnessJob, done: Callable[[], bool]) -> None:
        self.runs += 1
        super().run(job, done)


@pytest.fixture(scope="module")
def starter() -> list[Instance]:
    instances = load_instances("starter")
    try:
        SwebenchHarness().image_id(instances[0].image)
    except (ImageMissing, EngineUnavailable) as error:
        pytest.skip(str(error))
    return instances


def containers(of: str) -> list[str]:
    listed = subprocess.run(
        ["docker", "ps", "--all", "--format", "{{.Names}}", "--filter", f"name={of}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return listed.stdout.split()


def test_the_real_harness_tells_the_outcomes_apart_and_leaves_nothing(
    starter: list[Instance], tmp_path: Path
) -> None:
    patches = [starter[0].gold_patch, NO_OP, DOES_NOT_APPLY, ""]
    wrong = new_file("tests/conftest.py", "raise SystemExit(1)")
    predictions = [
        Prediction(instance.instance_id, "m", patch)
        for instance, patch in zip(starter, [*patches, wrong, HANGS], strict=False)
    ]
    verdicts = grade(starter[:7], predictions, tmp_path, max_workers=2, timeout_s=6)
    assert [verdict.outcome for verdict in verdicts] == [
        Outcome.RESOLVED,
        Outcome.UNRESOLVED,
        Outcome.PATCH_FAILED,
        Outcome.EMPTY_PATCH,
        Outcome.UNRESOLVED,
        Outcome.TIMED_OUT,
        Outcome.NOT_ATTEMPTED,
    ]
    assert set(verdicts[0].passed) >= set(starter[0].fail_to_pass)
    assert set(verdicts[1].failed) == set(starter[1].fail_to_pass)
    assert (tmp_path / (verdicts[0].log_path or "")).is_file()
    assert containers((tmp_path / "harness" / "run_id").read_text()) == []


def test_only_a_changed_patch_reaches_the_real_harness_again(
    starter: list[Instance], tmp_path: Path
) -> None:
    harness, instances = CountingHarness(), starter[:1]
    no_op = [Prediction(instances[0].instance_id, "m", NO_OP)]
    for _ in range(2):
        (verdict,) = grade(instances, no_op, tmp_path, harness=harness)
        assert verdict.outcome is Outcome.UNRESOLVED
    assert harness.runs == 1
    (verdict,) = grade(instances, gold_predictions(instances), tmp_path, harness=harness)
    assert verdict.outcome is Outcome.RESOLVED
    assert harness.runs == 2


def test_the_self_check_runs_the_tests_on_both_sides(
    starter: list[Instance], tmp_path: Path
) -> None:
    faulty = replace(starter[1], gold_patch=NO_OP)
    result = check_gold([starter[0], faulty], tmp_path, max_workers=2)
    assert list(result.faults) == [faulty.instance_id]
    assert [one.outcome for one in result.harmless] == [Outcome.UNRESOLVED] * 2
    assert set(result.harmless[0].failed) == set(starter[0].fail_to_pass)


def test_an_image_that_is_nowhere_is_an_error_with_the_way_out() -> None:
    with pytest.raises(ImageMissing, match="is not on the engine and can't be pulled"):
        SwebenchHarness().image_id("srl-swe/no-such-image:1")


GRADE_TWO = """
import sys
from pathlib import Path
from srl_swe.evaluation import grade
from srl_swe.instances import load_instances
from srl_swe.types import Prediction
instances = load_instances("starter")[:2]
patches = [instances[0].gold_patch, sys.argv[2]]
grade(instances, [Prediction(i.instance_id, "m", p) for i, p in zip(instances, patches)],
      Path(sys.argv[1]), max_workers=2)
"""


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_a_grading_that_was_killed_continues_and_its_containers_go(
    starter: list[Instance], tmp_path: Path
) -> None:
    arguments = [sys.executable, "-c", GRADE_TWO, str(tmp_path), HANGS]
    log, id_file = tmp_path / "verdicts.jsonl", tmp_path / "harness" / "run_id"
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(log.exists, 60)
            run_id = id_file.read_text()
            assert containers(run_id) != []
        finally:
            process.kill()
    said: list[str] = []
    verdicts = grade(
        starter[:2], gold_predictions(starter[:2]), tmp_path, max_workers=2, report=said.append
    )
    assert [verdict.outcome for verdict in verdicts] == [Outcome.RESOLVED] * 2
    assert said[0] == "1 of 2 need no run of the harness"
    assert containers(run_id) == []


def test_the_harness_ends_with_whoever_started_it(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "srl_swe.evaluation.harness_process", "{}"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    child.communicate(timeout=20)
    assert child.returncode == 1
