"""What grading commands check first, what they need, and their exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.evaluation.predictions import gold_predictions, save_predictions
from srl_swe.grading_run import grade_predictions
from srl_swe.instances import load_instances, row_from_instance
from srl_swe.trajectories import save_jsonl
from srl_swe.types import Action, Instance, Observation, Prediction, Step, Trajectory

from ..commands import srl_swe

pytestmark = pytest.mark.slow


STARTER = load_instances("starter")[:3]
NO_ENGINE = {"DOCKER_HOST": "unix:///no/such.sock"}
LOST = "srl-swe/no-such-image:1"
UNTESTED = replace(STARTER[1], instance_id="untested-1", fail_to_pass=())


def save_bench(folder: Path, *instances: Instance) -> Path:
    path = folder / "bench.jsonl"
    path.write_text("".join(f"{json.dumps(row_from_instance(one))}\n" for one in instances))
    return path


def report(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "report.json").read_text()))


@pytest.mark.parametrize(
    "command",
    [
        "grade gold --bench {bench} --out {out}",
        "self-check --bench {bench} --out {out}",
        "eval {policy} --bench {bench} --out {out}",
        "replay {trajectory} --bench {bench} --out {out} --grade",
        *(
            pytest.param(command, marks=pytest.mark.train)
            for command in (
                "train rlvr rlvr-paper --model {policy} --bench {bench} --out {out}",
                "train sft sft-demo --model {policy} --data {data} --out {out} "
                "--validation.every_steps 1 --validation.instances.bench {bench}",
                "train curriculum study-srl-rlvr --model {policy} --data {data} "
                "--bench {bench} --out {out}",
                "study --suite {bench} --out {out}",
            )
        ),
    ],
    ids=lambda command: " ".join(command.split()[:2]),
)
def test_a_row_that_cannot_be_graded_is_refused_before_policies_and_images_are_touched(
    command: str, tmp_path: Path
) -> None:
    if command.startswith("eval"):
        pytest.importorskip("transformers", reason="a local policy needs the extra `train`")
    policy, data = tmp_path / "policy", tmp_path / "data"  # look whole, but can't be loaded
    for folder in (policy, data):
        folder.mkdir()
    for path in (policy / "config.json", data / "dataset_info.json", data / "state.json"):
        path.write_text("{}")
    (policy / "model.safetensors").write_bytes(b"")
    step = Step("look", Action("bash", {"command": "true"}), Observation("", 0))
    trajectory = tmp_path / "trajectories.jsonl"
    save_jsonl(trajectory, [Trajectory(UNTESTED.instance_id, (step,))])
    bench, out = save_bench(tmp_path, UNTESTED), tmp_path / "out"
    words = command.format(bench=bench, out=out, trajectory=trajectory, policy=policy, data=data)
    result = srl_swe(*words.split(), **NO_ENGINE)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2
    assert line.startswith("srl-swe: untested-1 can be rolled out but not graded: its row has no ")
    assert not (tmp_path / "out").exists()


def test_empty_patches_need_neither_images_nor_an_engine(tmp_path: Path) -> None:
    bench = save_bench(tmp_path, replace(STARTER[0], image=LOST), STARTER[1])
    out = tmp_path / "out"
    result = srl_swe("grade", "empty", "--bench", bench, "--out", out, **NO_ENGINE)
    assert result.returncode == 0, result.stderr
    assert report(out)["resolved_rate"] == 0.0
    assert report(out)["grading_networks"] == {}
    assert "no tests run" in (out / "report.html").read_text()


def test_a_part_of_a_bench_is_chosen_by_filters_files_and_slices(tmp_path: Path) -> None:
    (tmp_path / "flaky").write_text("starter__inikit-1  # sometimes\n")
    (tmp_path / "all").write_text("\n".join(i.instance_id for i in load_instances("starter")))
    chosen = ("--ids", tmp_path / "all", "--exclude", tmp_path / "flaky", "--slice", "0:3")
    graded = srl_swe("grade", "empty", *chosen, "--json", "--out", tmp_path / "out", **NO_ENGINE)
    assert json.loads(graded.stdout)["empty_patch_ids"] == (
        ["starter__inikit-2", "starter__intervals-1", "starter__intervals-2"]
    )
    none = srl_swe("grade", "empty", "--filter", "repo=no/where", "--out", tmp_path / "none")
    assert none.returncode == 2
    assert none.stderr == "srl-swe: starter: none of its 10 instances is selected.\n"


def test_a_file_without_predictions_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("\n")
    result = srl_swe("grade", tmp_path / "p.jsonl", "--out", tmp_path / "out", **NO_ENGINE)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "p.jsonl does not hold any prediction" in result.stderr


def test_a_rollout_whose_sandbox_broke_is_not_counted_as_unresolved(tmp_path: Path) -> None:
    graded = grade_predictions(
        STARTER[:1],
        [],
        tmp_path,
        workers=1,
        test_timeout_s=1,
        broken={STARTER[0].instance_id: "its rollout broke: no image"},
    )
    assert graded.resolved_rate is None
    assert "no rate: 1 sandboxes broke" in str(graded)
    assert report(tmp_path)["infra_failure_ids"] == [STARTER[0].instance_id]
    assert report(tmp_path)["resolved_rate"] is None


@pytest.mark.docker
def test_without_any_image_the_command_fails_in_one_line(tmp_path: Path) -> None:
    bench = save_bench(tmp_path, *(replace(one, image=LOST) for one in STARTER))
    result = srl_swe("grade", "gold", "--bench", bench, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("srl-swe: ")
    assert LOST in result.stderr
    assert not (tmp_path / "out" / "report.json").exists()


@pytest.mark.docker
def test_an_image_that_cannot_be_had_breaks_its_instance_and_no_rate_is_exit_code_1(
    tmp_path: Path,
) -> None:
    lost = replace(STARTER[1], instance_id="lost-1", image=LOST)
    bench, out = save_bench(tmp_path, STARTER[0], lost), tmp_path / "out"
    result = srl_swe("grade", "gold", "--bench", bench, "--out", out)
    assert result.returncode == 1, result.stderr
    found = report(out)
    assert found["resolved_ids"] == [STARTER[0].instance_id]
    assert found["infra_failure_ids"] == ["lost-1"]
    assert LOST in str(found["failure_reasons"])
    assert found["resolved_rate"] is None
    assert "no rate: 1 sandboxes broke" in result.stdout


@pytest.mark.docker
def test_faulty_instances_are_listed_in_a_file_that_exclude_reads(tmp_path: Path) -> None:
    faulty = replace(STARTER[1], gold_patch=STARTER[0].gold_patch)
    bench, out = save_bench(tmp_path, STARTER[0], faulty), tmp_path / "out"
    checked = srl_swe("gold-check", "--bench", bench, "--repeat", "2", "--out", out)
    assert checked.returncode == 1, checked.stderr
    assert checked.stdout.splitlines()[-1] == "1 of 2 instances are sound"
    listed = (out / "faulty.txt").read_text()
    assert listed.startswith(f"{faulty.instance_id}  # the gold patch came to ")
    assert f"fault: {listed.strip().replace('  #', ':')}" in checked.stdout
    assert (out / "round-2" / "verdicts.jsonl").is_file()
    rest = ("--exclude", out / "faulty.txt", "--json", "--out", tmp_path / "rest")
    graded = srl_swe("grade", "empty", "--bench", bench, *rest)
    assert json.loads(graded.stdout)["empty_patch_ids"] == [STARTER[0].instance_id]


@pytest.mark.docker
def test_only_the_images_of_the_predictions_are_needed_and_the_network_is_reported(
    tmp_path: Path,
) -> None:
    unasked = [replace(one, image=LOST) for one in STARTER[1:]]
    bench, out = save_bench(tmp_path, STARTER[0], *unasked), tmp_path / "out"
    (gold,) = gold_predictions(STARTER[:1])
    stranger = Prediction("nobody-1", "m", "+x")
    wrong = replace(gold, model_patch="--- a/no\n+++ b/no\n@@ -1 +1 @@\n-a\n+b\n")
    save_predictions(tmp_path / "p.jsonl", [wrong, stranger, gold])
    result = srl_swe("grade", tmp_path / "p.jsonl", "--bench", bench, "--out", out)
    assert result.returncode == 0, result.stderr
    assert "1 earlier predictions for the same instances are not used" in result.stderr
    assert "1 predictions are for other instances and are not graded" in result.stderr
    assert LOST not in result.stderr
    found = report(out)
    assert (found["resolved_instances"], found["total_instances"]) == (1, 3)
    assert found["grading_networks"] == {"bridge": [STARTER[0].instance_id]}
    assert "network bridge" in (out / "report.html").read_text()
    assert "network bridge" in " ".join(result.stdout.split())
