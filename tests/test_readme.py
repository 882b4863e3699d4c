from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .commands import srl_swe

pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md",
             *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]  # fmt: skip
OURS = ("srl_swe/", "envs/", "docker/", "trajectories/", "tests/", "docs/", ".ci/")
WITHOUT_PATHS = {
    "CHANGELOG.md",
    "docs/cluster.md",
    "docs/evaluation.md",
    "docs/extending.md",
    "docs/index.md",
    "docs/maths.md",
    "docs/quick-start.md",
    "docs/grading.md",
}
text = {name: (ROOT / name).read_text() for name in DOCUMENTS}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_that_a_document_names_exists(name: str) -> None:
    named = [path for path in re.findall(r"`([\w./*-]+)`", text[name]) if path.startswith(OURS)]
    assert all((ROOT / path).exists() for path in named), named
    assert named or name in WITHOUT_PATHS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_that_a_document_names_exists(name: str) -> None:
    targets = set(re.findall(r"^([\w%-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    benchmarks = (ROOT / "tests/benchmarks").glob("bench_*.py")
    targets |= {path.stem.replace("_", "-", 1) for path in benchmarks if "bench-%" in targets}
    named = set(re.findall(r"(?:^    |`)make ([\w-]+)", text[name], re.MULTILINE))
    assert named <= targets, named - targets


@pytest.mark.parametrize(
    "command",
    [
        command
        for name in DOCUMENTS
        if not name.startswith("docs/training")  # whose commands set fields of recipes
        for command in re.findall(r"^    srl-swe (.+)$", text[name], re.MULTILINE)
    ],
)
def test_every_command_that_a_document_shows_parses(command: str) -> None:
    words = command.split()
    names = words[: 2 if words[0] in {"train", "images", "runs", "bench"} else 1]
    help_text = srl_swe(*names, "--help").stdout
    recipe_fields = {"--model", "--data", "--bench", "--output"} if words[0] == "train" else set()
    options = {word for word in words if word.startswith("--")} - recipe_fields
    assert all(option in help_text for option in options), options


@pytest.mark.docker
def test_the_example_of_a_sandbox_runs_as_it_stands() -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", text["docs/sandbox.md"], re.MULTILINE | re.S)
    run = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "'network': 'none'" in run.stdout


def test_the_table_of_pythons_has_those_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    prefix = "Programming Language :: Python :: 3."
    named = {one.removeprefix(prefix) for one in project["classifiers"] if one.startswith(prefix)}
    table = re.findall(r"^\| 3\.(\d+)[ .]", text["README.md"], re.MULTILINE)
    assert set(table) == named
