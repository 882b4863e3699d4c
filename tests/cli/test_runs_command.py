from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..commands import srl_swe


def make_run(folder: Path, seed: int, reward: float) -> Path:
    folder.mkdir(parents=True)
    rows = [{"step": n, "reward/mean": reward, "reward": reward} for n in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {"method": "SrlRecipe", "model": "m", "trainer": {"seed": seed}}
    (folder / "config.json").write_text(json.dumps(recipe))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return make_run(tmp_path / "a", 1, 0.25), make_run(tmp_path / "b", 2, 0.5)


def test_runs_are_listed_with_how_far_they_are(runs: tuple[Path, Path], tmp_path: Path) -> None:
    (runs[0] / "final").mkdir()
    listed = srl_swe("runs", "list", tmp_path)
    assert listed.returncode == 0, listed.stderr
    first, second = (line for line in listed.stdout.splitlines() if "srl" in line)
    assert "finished" in first
    assert "0.250" in first
    assert "unfinished" in second


def test_two_runs_are_compared_on_the_terminal_and_on_a_page(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    page = tmp_path / "out" / "page.html"
    compared = srl_swe("runs", "compare", *runs, "--out", page)
    assert compared.returncode == 0, compared.stderr
    assert "trainer.seed" in compared.stdout
    assert "0.500 (step 1)" in compared.stdout
    assert page.read_text().count("<svg") == 2


def test_a_folder_without_a_run_is_said_in_a_line(tmp_path: Path) -> None:
    for arguments in (("list", tmp_path), ("compare", tmp_path, tmp_path)):
        failed = srl_swe("runs", *arguments)
        assert failed.returncode == 2
        assert len(failed.stderr.splitlines()) == 1
        assert "run" in failed.stderr


def test_looking_at_runs_needs_no_torch(runs: tuple[Path, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from srl_swe.cli.view import compare; "
        f"compare(Path({str(runs[0])!r}), Path({str(runs[1])!r}), None); "
        "assert not {'torch', 'transformers', 'trl'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
