from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_a_source_archive_is_made_of_paths_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    named = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert [name for name in named if not (ROOT / name).exists()] == []


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_a_wheel_puts_two_packages_at_the_top_and_no_more(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"srl_swe", "srl_swe_envs"}


@pytest.mark.parametrize(
    ("folder", "where"),
    [
        ("envs/starter", "starter"),
        ("envs/generated", "generated"),
        ("trajectories", "trajectories"),
        ("docker", "docker"),
    ],
)
def test_a_wheel_holds_all_bundled_files(wheel: Path, folder: str, where: str) -> None:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", folder], capture_output=True, check=True
    ).stdout.decode()
    files = [name for name in listed.split("\0") if name]
    held = names(wheel)
    missing = [f for f in files if f"srl_swe/_data/{where}{f.removeprefix(folder)}" not in held]
    assert files
    assert not missing


def test_recipes_prompts_and_page_templates_are_in_the_wheel(wheel: Path) -> None:
    templates = "reports/templates"
    kinds = (("recipes", "yaml"), ("prompts", "md"), (templates, "html"), (templates, "css"))
    for folder, suffix in kinds:
        ours = {path.name for path in (ROOT / "srl_swe" / folder).glob(f"*.{suffix}")}
        assert ours
        assert {f"srl_swe/{folder}/{name}" for name in ours} <= names(wheel)


def test_the_command_runs_from_the_wheel_in_a_bare_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    pip = [str(tmp_path / "venv/bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
    constraints = ["--constraint", str(ROOT / "docker/constraints.txt")]
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    subprocess.run([*pip, *constraints, "typer"], check=True)
    probe = (
        "from srl_swe.bundled import bundled\n"
        "print(*(bundled(name) for name in ('starter', 'generated', 'docker')), sep='\\n')"
    )
    python = str(tmp_path / "venv/bin/python")
    folders = subprocess.run(
        [python, "-c", probe], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert all("/srl_swe/_data/" in line for line in folders.stdout.split())
    command = [str(tmp_path / "venv/bin/srl-swe"), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "Train software-engineering agents" in shown.stdout
