from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from srl_swe.errors import ImageMissing
from srl_swe.evaluation.harness import HarnessJob
from srl_swe.instances import instance_from_row
from srl_swe.types import Instance

RECORDED = Path(__file__).parent / "recorded"


class ScriptedHarness:
    """Stands for swebench and an engine: each patch's text is what comes of it.

    A patch named ``resolved``, ``timed_out``, ... leaves the files that swebench left when that
    happened; ``dies`` ends the whole run as kill -9 would. An image named ``missing`` is.
    """

    def __init__(self) -> None:
        self.version = "swebench of the tests"
        self.image_version = "1"
        self.judged: list[str] = []
        self.runs = 0

    def image_id(self, image: str) -> str:
        if image == "missing":
            raise ImageMissing(f"the image {image} is nowhere; build it.")
        return f"sha256:{image}-{self.image_version}"

    def run(self, job: HarnessJob, done: Callable[[], bool]) -> None:
        self.runs += 1
        for line in job.predictions.read_text().splitlines():
            prediction = json.loads(line)
            patch = prediction["model_patch"]
            self.judged.append(prediction["instance_id"])
            if patch == "dies":
                raise KeyboardInterrupt
            self._leave_files(job, prediction, patch)
            if patch != "unseen" and done():
                return

    def _leave_files(self, job: HarnessJob, prediction: dict[str, str], patch: str) -> None:
        logs = job.folder / "logs" / "run_evaluation" / job.run_id
        folder = logs / prediction["model_name_or_path"] / prediction["instance_id"]
        folder.mkdir(parents=True)
        for name in ("report.json", "run_instance.log"):
            recorded = RECORDED / f"{patch.replace('unseen', 'resolved')}.{name}"
            if recorded.exists():
                text = recorded.read_text().replace("starter__inikit-1", prediction["instance_id"])
                (folder / name).write_text(text)


def make_instance(instance_id: str, image: str = "image") -> Instance:
    return instance_from_row(
        {
            "instance_id": instance_id,
            "repo": "o/r",
            "base_commit": "c",
            "problem_statement": "p",
            "image": image,
            "patch": "resolved",
            "eval_script": "echo '>>>>> Start Test Output'\ntrue\necho '>>>>> End Test Output'\n",
            "FAIL_TO_PASS": ["t::a"],
            "log_parser": "parse_log_pytest",
            "eval_type": "pass_and_fail",
        }
    )


@pytest.fixture
def harness() -> ScriptedHarness:
    return ScriptedHarness()
