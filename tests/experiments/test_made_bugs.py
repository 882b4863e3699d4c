from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from srl_swe.experiments.made_bugs import MODULE, TEST_FILE, make_bugs
from srl_swe.git import run_git
from srl_swe.types import Instance, Trajectory

HOST = Instance("a__b-1", "a/b", "0" * 40, "It fails.", "image", log_parser="parse_log_pytest")


def applied(folder: Path, patch: str) -> None:
    run_git(folder, "apply", "-", stdin=patch.encode())


def failing(folder: Path) -> set[str]:
    """The tests that fail in the folder, by their ids."""
    command = [sys.executable, "-m", "pytest", "-rf", "-q", "-p", "no:cacheprovider", TEST_FILE]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return {line.split()[1] for line in ran.stdout.splitlines() if line.startswith("FAILED")}


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Instance, Trajectory, Path]:
    """A bug, its expert's actions, and a folder with the bug and the tests."""
    instance, expert = make_bugs(HOST, 1)[0]
    applied(tmp_path, instance.bug_patch)
    applied(tmp_path, instance.test_patch)
    return instance, expert, tmp_path


def test_one_test_fails_until_the_gold_patch(planted: tuple[Instance, Trajectory, Path]) -> None:
    instance, _, folder = planted
    assert failing(folder) == set(instance.fail_to_pass)
    assert len(instance.pass_to_pass) == 2
    applied(folder, instance.gold_patch)
    assert not failing(folder)


def test_the_expert_makes_the_gold_patch(planted: tuple[Instance, Trajectory, Path]) -> None:
    instance, expert, folder = planted
    edits = [step.action.arguments["command"] for step in expert.steps[:-1] if step.action]
    words = shlex.split(edits[1])
    assert words[:2] == ["sed", "-i"]
    buggy = (folder / MODULE).read_text()
    subprocess.run(words, cwd=folder, check=True)
    edited = (folder / MODULE).read_text()
    (folder / MODULE).write_text(buggy)
    applied(folder, instance.gold_patch)
    assert edited == (folder / MODULE).read_text() != buggy


def test_the_expert_names_no_function_but_the_one_with_the_bug() -> None:
    made = make_bugs(HOST, 76)
    held_out = {instance.instance_id.partition("__")[2] for instance, _ in made[64:]}
    for instance, expert in made[:64]:
        actions = [step.action.text for step in expert.steps if step.action]
        texts = [instance.problem_statement, *actions, *(step.thought for step in expert.steps)]
        assert not held_out & {word for text in texts for word in re.findall(r"times_\w+", text)}


def test_every_function_occurs_once_and_a_seed_gives_the_same_bugs() -> None:
    made = make_bugs(HOST, 144)
    names = [instance.instance_id for instance, _ in made]
    assert len({*names}) == len(names) == 144
    assert make_bugs(HOST, 20) == made[:20] != make_bugs(HOST, 20, seed=1)
    assert all(instance.image == HOST.image for instance, _ in made)
    assert all(instance.bug_patch != instance.gold_patch for instance, _ in made)
