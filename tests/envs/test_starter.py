from __future__ import annotations

import re
from pathlib import Path

import pytest

from srl_swe.bundled import bundled
from srl_swe.evaluation import check_gold
from srl_swe.instances import load_instances
from srl_swe.types import Instance
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.images import ensure_images

INSTANCES = load_instances("starter")


def added_lines(patch: str) -> list[str]:
    return [line[1:] for line in patch.splitlines() if re.match(r"\+(?!\+\+)\s*\S", line)]


def test_the_task_repo_is_well_formed_but_for_the_namespace_of_its_images() -> None:
    from swebench.task.checks import check_task_repo

    problems = check_task_repo(bundled("starter"))
    assert [p.message for p in problems if "image" not in p.message] == []
    assert all(i.image.startswith("srl-swe/sweb.eval.x86_64.") for i in INSTANCES)


def test_two_of_the_ten_gold_patches_edit_two_files() -> None:
    files = [len(re.findall(r"^diff --git", i.gold_patch, re.MULTILINE)) for i in INSTANCES]
    assert sorted(files) == [1] * 8 + [2] * 2


def test_no_issue_points_at_the_code_that_is_wrong() -> None:
    for instance in INSTANCES:
        named = re.findall(r"^\+\+\+ b/(\S+)", instance.gold_patch, re.MULTILINE)
        assert all(Path(name).name not in instance.problem_statement for name in named)


@pytest.mark.docker
def test_every_gold_patch_resolves_and_no_unpatched_instance_does(tmp_path: Path) -> None:
    ensure_images(INSTANCES, print)
    result = check_gold(INSTANCES, tmp_path, max_workers=2)
    assert result.faults == {}
    assert result.undecided == []
    assert len(result.gold) == len(result.harmless) == 10


@pytest.mark.docker
@pytest.mark.parametrize("instance", INSTANCES, ids=lambda instance: instance.instance_id)
def test_an_image_is_clean_at_its_base_commit_and_holds_no_hidden_test(instance: Instance) -> None:
    ensure_images([instance], print)
    with open_docker_sandbox(instance) as sandbox:
        assert sandbox.exec("git rev-parse HEAD").output.strip() == instance.base_commit
        assert sandbox.exec("git status --porcelain --ignored").output == ""
        tests = "cat tests/*.py; git log --all -p"
        held = sandbox.exec(tests, timeout_s=60).output
        hidden = [line for line in added_lines(instance.test_patch) if "def test_" in line]
        assert hidden
        assert all(line.strip() not in held for line in hidden)
        visible = sandbox.exec("python -m pytest -q", timeout_s=120)
        assert visible.exit_code == 0, visible.output
        check = sandbox.exec(f"git apply --check - <<'EOF'\n{instance.gold_patch}\nEOF")
        assert check.exit_code == 0, check.output
