"""Images built of task repositories, and the starter suite, which is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from srl_swe.bundled import bundled
from srl_swe.errors import ImageMissing, UserError
from srl_swe.evaluation.bench_check import check_gold
from srl_swe.instances import load_instances
from srl_swe.types import Instance
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.images import Recipe, build_task_repo_images, ensure_images, recipes_of

TAG = "srl-swe/test-of-images:1"


@pytest.fixture
def task_repo(tmp_path: Path) -> Path:
    task = tmp_path / "tasks" / "a__b-1"
    task.mkdir(parents=True)
    (task / "task.yaml").write_text(f"image: {TAG}\n")
    (task / "Dockerfile").write_text("FROM srl-swe/base:1\nCOPY gold.patch /gold.patch\n")
    (task / "gold.patch").write_text("one")
    return tmp_path


@pytest.fixture
def image_removed(client: docker.DockerClient) -> Iterator[None]:
    yield
    for image in client.images.list(TAG):
        client.images.remove(str(image.id), force=True)


def test_parents_come_before_children_and_each_once() -> None:
    recipes = recipes_of(bundled("starter"))
    tags = [recipe.tag for recipe in recipes]
    assert len(tags) == len(set(tags))
    for recipe in recipes[1:]:
        assert recipe.parent in tags[: tags.index(recipe.tag)]


def test_only_what_the_asked_for_tasks_need_is_built() -> None:
    tags = [recipe.tag for recipe in recipes_of(bundled("starter"), {"starter__inikit-1"})]
    assert tags == [
        "srl-swe/base:1",
        "srl-swe/starter-inikit:1",
        "srl-swe/sweb.eval.x86_64.starter_1776_inikit-1:latest",
    ]


def test_a_fingerprint_changes_with_a_file_the_recipe_or_the_parent_and_else_not(
    tmp_path: Path,
) -> None:
    for name, text in {"Dockerfile": "FROM x", "one/f": "1", "two/f": "2"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / ".dockerignore").write_text("**/__pycache__\n")
    recipe = Recipe("tag", "x", tmp_path, part="one/")
    before = recipe.fingerprint("id")
    (tmp_path / "two/f").write_text("another part")
    (tmp_path / "one/__pycache__").mkdir()
    (tmp_path / "one/__pycache__/f").write_text("ignored")
    assert recipe.fingerprint("id") == before
    assert recipe.fingerprint("other id") != before
    (tmp_path / "one/f").write_text("changed")
    assert recipe.fingerprint("id") != before


def test_a_folder_that_is_no_task_repo_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a task repo"):
        recipes_of(tmp_path)


@pytest.mark.docker
@pytest.mark.usefixtures("image_removed")
def test_a_changed_task_is_built_again_and_an_unchanged_one_is_not(task_repo: Path) -> None:
    said: list[str] = []
    build_task_repo_images(task_repo, said.append)
    build_task_repo_images(task_repo, said.append)
    assert sum(f"built {TAG}" in line for line in said) == 1
    (task_repo / "tasks/a__b-1/gold.patch").write_text("two")
    build_task_repo_images(task_repo, said.append)
    assert f"built {TAG}" in said[-2]
    with open_docker_sandbox(Instance("a__b-1", "a/b", "HEAD", "", TAG)) as sandbox:
        assert sandbox.read_file("/gold.patch") == b"two"


@pytest.mark.docker
def test_a_build_that_fails_says_what_its_log_ends_with(task_repo: Path) -> None:
    dockerfile = task_repo / "tasks/a__b-1/Dockerfile"
    dockerfile.write_text("FROM srl-swe/base:1\nRUN echo the reason >&2; exit 3\n")
    with pytest.raises(ImageMissing, match=r"tasks/a__b-1/Dockerfile.*the reason"):
        build_task_repo_images(task_repo, lambda _: None)


@pytest.mark.docker
def test_a_missing_image_is_pulled_or_named(tmp_path: Path) -> None:
    said: list[str] = []
    image = "localhost:1/no/such:1"
    with pytest.raises(ImageMissing, match=image):
        ensure_images([Instance("a__b-1", "a/b", "HEAD", "", image)], said.append)
    assert said[0] == "images: 0 here, 1 to be pulled"
    assert said[-1] == f"images: {image} failed"


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
