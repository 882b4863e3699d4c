"""An evaluation larger than the disk: killed, continued, and reported without its images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from srl_swe.dialects import get_dialect
from srl_swe.engines import GraderSettings, SandboxSettings
from srl_swe.errors import UserError
from srl_swe.evaluation_run import EvalSettings, roll_out
from srl_swe.grading_run import Grading, grade_predictions
from srl_swe.instances import load_instances, row_from_instance
from srl_swe.types import Action, Instance, Outcome, Prediction, Verdict

from ..commands import invoke
from ..openai_server import Answer, OpenAiServer, reply
from ..registry import Registry, running_registry

IMAGE_BYTES = 184_000_000
"""As a bundled image takes in a real registry; it counts as 405 to 552 MB on disk."""
BUDGET = "1.2GB"


class GoldServer(OpenAiServer):
    """A policy that applies the gold patch of the issue in its prompt, and submits."""

    def __init__(self, instances: list[Instance]) -> None:
        super().__init__()
        self.instances = instances

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        if not path.endswith("completions"):
            return super().answer(path, body)
        messages = body["messages"]
        issue = messages[1]["content"]
        asked = next(i for i in self.instances if i.problem_statement.strip() in issue)
        action = Action("bash", {"command": f"git apply <<'END'\n{asked.gold_patch}END"})
        if len(messages) > 2:
            action = Action("submit", {})
        return reply(get_dialect("xml").render_reply("next", action))


@pytest.fixture
def registry(client: docker.DockerClient) -> Iterator[Registry]:
    with running_registry() as registry:
        yield registry
    for name in here(client, registry):
        client.api.remove_image(name)


def here(client: docker.DockerClient, registry: Registry) -> set[str]:
    tags = (tag for image in client.api.images() for tag in image.get("RepoTags") or ())
    return {tag for tag in tags if tag.startswith(registry.address)}


@pytest.fixture
def instances(client: docker.DockerClient, registry: Registry) -> list[Instance]:
    """Two bundled instances with their images in the registry only."""
    bundled = load_instances("starter")[:2]
    names = [
        registry.publish_known(
            i.instance_id, str(client.images.get(i.image).id), [IMAGE_BYTES + number]
        )
        for number, i in enumerate(bundled)
    ]
    return [replace(i, image=name) for i, name in zip(bundled, names, strict=True)]


@pytest.fixture
def command(instances: list[Instance], tmp_path: Path) -> Iterator[list[str]]:
    """The arguments of ``eval`` with a policy that resolves everything."""
    bench = tmp_path / "rows.jsonl"
    bench.write_text("".join(f"{json.dumps(row_from_instance(i))}\n" for i in instances))
    with GoldServer(instances).running() as server:
        options = [
            "--sandbox",
            "docker",
            "--runner",
            "sandbox",
            "--disk-budget",
            "1.2GB",
            "--workers",
            "2",
        ]
        yield ["eval", server.url, "--bench", str(bench), "--out", str(tmp_path / "out"), *options]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "srl_swe", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.mark.docker
@pytest.mark.slow
def test_an_evaluation_killed_again_and_again_ends_as_if_it_had_not_been(
    client: docker.DockerClient, registry: Registry, command: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    moments: list[Callable[[], bool]] = [
        lambda: bool(lines(out / "rollouts.jsonl")),
        lambda: any('"removed"' in line for line in lines(out / "images.jsonl")),
    ]
    for has_come in moments:
        with started(command) as process:
            while not has_come():
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
    report = json.loads(invoke(*command, "--json").stdout)
    assert report["resolved_instances"] == report["total_instances"] == 2
    assert here(client, registry) == set()

    asked = len(registry.asked)
    again = invoke(*command, "--json")
    without_budget = [word for word in command if word not in {"--disk-budget", BUDGET}]
    unbounded = invoke(*without_budget, "--json")
    assert json.loads(again.stdout) == json.loads(unbounded.stdout) == report
    assert len(registry.asked) == asked, "a finished evaluation needs no image"


@pytest.mark.docker
@pytest.mark.slow
def test_an_image_that_is_lost_costs_its_own_instance(
    client: docker.DockerClient, registry: Registry, instances: list[Instance],
    command: list[str], tmp_path: Path,
) -> None:  # fmt: skip
    lost = replace(instances[0], image=f"{registry.address}/missing/a:latest")
    rows = [row_from_instance(i) for i in (lost, instances[1])]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    report = json.loads(invoke(*command, "--json").stdout)
    assert report["infra_failure_ids"] == [lost.instance_id]
    assert report["resolved_ids"] == [instances[1].instance_id]
    assert "missing/a" in report["failure_reasons"][lost.instance_id]
    assert here(client, registry) == set()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sandboxes": SandboxSettings("local")}, "bounds images"),
        ({"grader": GraderSettings(verify_share=0.1)}, "leave out --verify-with"),
        ({"grader": GraderSettings(from_logs=Path("logs"))}, "leave out --verify-with"),
    ],
)
def test_a_budget_excludes_what_needs_all_images_or_none(
    changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=why):
        roll_out("no-policy", [], tmp_path, EvalSettings(disk_budget=10**9, **changes))


ONE = Instance("a__b-1", "a/b", "HEAD", "It is broken.", "an-image:1", fail_to_pass=("t",))
RIGHT = Prediction("a__b-1", "m", "a patch")


def test_a_known_verdict_stays_though_its_image_is_lost(tmp_path: Path) -> None:
    known = {ONE.instance_id: Verdict(ONE.instance_id, Outcome.RESOLVED)}
    grading = Grading(tmp_path, 1, 60, GraderSettings("sandbox"), {tmp_path: known})
    grading.grade([ONE], [RIGHT], tmp_path, {ONE.image: "the registry refuses"})
    assert grading.verdicts[tmp_path][ONE.instance_id].outcome is Outcome.RESOLVED
    other = replace(ONE, instance_id="a__b-2")
    grading.grade([other], [replace(RIGHT, instance_id="a__b-2")], tmp_path, {ONE.image: "refused"})
    assert grading.verdicts[tmp_path]["a__b-2"] == Verdict.broken("a__b-2", "refused")


def test_predictions_for_other_instances_do_not_stop_a_report(tmp_path: Path) -> None:
    known = {ONE.instance_id: Verdict(ONE.instance_id, Outcome.RESOLVED)}
    surplus = [RIGHT, replace(RIGHT, instance_id="a__b-9")]
    grader = GraderSettings("sandbox")
    made = grade_predictions([ONE], surplus, tmp_path, grader=grader, known=known)
    assert [verdict.outcome for verdict in made.verdicts] == [Outcome.RESOLVED]
    assert (tmp_path / "report.json").exists()


@pytest.mark.docker
@pytest.mark.slow
def test_patches_are_graded_in_turns_and_timed(
    client: docker.DockerClient, registry: Registry, command: list[str], tmp_path: Path
) -> None:
    bench, out = command[3], tmp_path / "graded"
    options = ("--bench", bench, "--out", out, "--runner", "sandbox", "--disk-budget", BUDGET)
    graded = invoke("grade", "gold", *options, "--json")
    assert json.loads(graded.stdout)["resolved_instances"] == 2
    assert here(client, registry) == set()
    planned = json.loads(invoke("plan", "--bench", bench, "--like", out, "--json").stdout)
    assert 0 < planned["plan"]["seconds_per_instance"] < 60
