from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.generation.bugs import Bug
from srl_swe.generation.generate import write_rows
from srl_swe.generation.repositories import Source
from srl_swe.generation.rows import (
    dockerfile,
    hideable,
    layer_of,
    make_row,
    make_state,
    without_tests,
)
from srl_swe.generation.validation import Judgement, Reason
from srl_swe.instances import load_instances

from .conftest import git

FILE = """\
import pytest


def helper():
    return 1


@pytest.mark.parametrize("x", [1, 2])
def test_first(x):
    assert helper() == x


class TestThings:
    value = 1

    def test_second(self):
        assert self.value == 1

    def test_third(self):
        assert self.value == 2


def test_fifth():
    assert "at the top"


class TestSame:
    def test_fifth(self):
        pass


class TestMore:
    def test_fourth(self):
        pass
"""


@pytest.mark.parametrize(
    ("names", "gone", "left"),
    [
        (["test_first[1]"], ["test_first", "parametrize"], ["helper", "test_second"]),
        (["TestThings::test_second"], ["test_second"], ["test_third", "value = 1"]),
        (["TestMore::test_fourth"], ["TestMore"], ["TestThings"]),
        (["test_fifth"], ["at the top"], ["def test_fifth(self)"]),
    ],
)
def test_hidden_tests_are_cut_out(names: list[str], gone: list[str], left: list[str]) -> None:
    text = without_tests(FILE, names)
    assert text is not None
    compile(text, "test", "exec")
    assert not any(word in text for word in gone)
    assert all(word in text for word in left)


@pytest.mark.parametrize(
    "names",
    [
        ["TestThings::test_inherited"],
        [
            "test_first",
            "TestThings::test_second",
            "TestThings::test_third",
            "TestMore::test_fourth",
            "test_fifth",
            "TestSame::test_fifth",
        ],
    ],
)
def test_a_file_goes_whole_if_a_test_is_not_in_it_or_none_is_left(names: list[str]) -> None:
    assert without_tests(FILE, names) is None


def test_a_doctest_of_the_changed_file_cant_be_hidden(bugs: dict[str, Bug]) -> None:
    bug = bugs["kept"]
    assert hideable("tests/test_sizes.py::test_x", bug)
    assert not hideable("sizes.py::sizes.largest", bug)
    assert not hideable("pkg/boxes.py::pkg.boxes.fit", bug), "a doctest of another source file"
    assert not hideable("boxes.py::boxes", bug)
    assert hideable("tests/test_sizes.py::test_sizes", bug)
    assert not hideable("README.rst::README.rst", bug)


def test_a_state_is_the_same_for_everybody_and_its_patches_lead_to_the_clean_source(
    source: Source, bugs: dict[str, Bug], tmp_path: Path
) -> None:
    hidden = ["tests/test_sizes.py::test_the_largest_is_found"]
    state = make_state(source, bugs["kept"], hidden)
    assert state == make_state(source, bugs["kept"], hidden)
    assert "+        if found is None or size > found:" in state.gold_patch
    assert "+def test_the_largest_is_found" in state.test_patch
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", source.folder, copy], check=True)
    for patch in (state.test_patch, state.gold_patch):
        command = ["git", "-C", copy, "apply", "-R", "--index", "-"]
        subprocess.run(command, input=patch.encode(), check=True)
    assert "test_the_largest" not in (copy / "tests" / "test_sizes.py").read_text()
    command = ["git", "-C", copy, "write-tree"]
    tree = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    who = "srl-swe <srl-swe@example.invalid> 1735689600 +0000"
    text = f"tree {tree}\nauthor {who}\ncommitter {who}\n\nsizes: the state of the task\n"
    root = hashlib.sha1(f"commit {len(text)}\0{text}".encode()).hexdigest()
    assert state.base_commit == root, "a commit without a parent"


def test_an_image_has_the_commit_of_its_row_whatever_the_attributes(
    source: Source, bugs: dict[str, Bug], tmp_path: Path
) -> None:
    for name, data in (("notes.txt", b"a\r\nb\r\n"), (".gitattributes", b"* text=auto\n")):
        (source.folder / name).write_bytes(data)
        git(source.folder, "-c", "core.autocrlf=false", "add", name)
        git(source.folder, "commit", "--quiet", "--message", name)
    source = replace(source, commit=git(source.folder, "rev-parse", "HEAD"))
    state = make_state(source, bugs["kept"], ["tests/test_sizes.py::test_the_largest_is_found"])
    copy, patches = tmp_path / "copy", tmp_path / "patches"
    git(tmp_path, "clone", "--quiet", str(source.folder), str(copy))
    patches.mkdir()
    (patches / "gold.patch").write_text(state.gold_patch)
    (patches / "test.patch").write_text(state.test_patch)
    script = dockerfile("clean", "sizes: the state of the task").partition("\nRUN ")[2]
    script = script.replace("\\\n", "").replace("/tmp/srl-swe", str(patches))
    subprocess.run(["sh", "-ec", script], cwd=copy, check=True)
    assert git(copy, "rev-list", "--all") == state.base_commit
    assert git(copy, "status", "--short") == ""


def test_rows_are_a_task_repo_and_parquet(
    source: Source, bugs: dict[str, Bug], tmp_path: Path
) -> None:
    judged = Judgement(
        "x",
        Reason.KEPT,
        ("tests/test_sizes.py::test_the_largest_is_found",),
        ("tests/test_sizes.py::test_boxes_fit",),
    )
    row = make_row(source, bugs["kept"], judged, "# Issue\n", lambda *_: "script\n", "train")
    write_rows([row], tmp_path / "out")
    (from_parquet,) = load_instances(str(tmp_path / "out" / "train.parquet"))
    (from_repo,) = load_instances(str(tmp_path / "out"), split="train")
    assert from_parquet == from_repo
    assert from_repo.fail_to_pass == judged.fail_to_pass
    assert json.loads(from_repo.built_from)["commit"] == source.commit
    folder = tmp_path / "out" / "tasks" / from_repo.instance_id
    assert layer_of(from_repo).files["Dockerfile"] == (folder / "Dockerfile").read_text()

    write_rows([{**row, "problem_statement": "# Another\n"}], tmp_path / "out")
    (from_repo,) = load_instances(str(tmp_path / "out"), split="train")
    assert from_repo.problem_statement == "# Another\n"
    write_rows([{**row, "instance_id": "sizes-2"}], tmp_path / "out")
    (from_repo,) = load_instances(str(tmp_path / "out"), split="train")
    assert from_repo.instance_id == "sizes-2", "a row that is left out leaves no task"
