"""An installation without extras: each command that needs one names it and does nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[2]
EXTRAS = ("torch", "transformers", "trl", "accelerate", "peft", "safetensors", "tokenizers",
          "gymnasium", "vllm", "liger_kernel", "deepspeed")  # fmt: skip


@pytest.fixture(scope="module")
def core_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to what is installed here, but for what the extras bring."""
    folder = tmp_path_factory.mktemp("core")
    installed = {Path(str(one.locate_file(""))) for one in distributions()}
    for package in (path for place in installed for path in place.iterdir()):
        name = package.name.partition(".")[0].partition("-")[0].lower()
        if name not in EXTRAS and package.suffix != ".pth" and not (folder / package.name).exists():
            (folder / package.name).symlink_to(package)
    return folder


def srl_swe(core: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "envs", core)))
    return subprocess.run(
        [sys.executable, "-S", "-m", "srl_swe", *arguments],  # -S: no other packages
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        timeout=120,
        check=False,
    )


PLACES = ["--model", "nowhere", "--data", "nowhere", "--output", "out"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["rollout", "nowhere", "--out", "out"],
        ["rollout", "nowhere", "--sandbox", "local", "--trust-commands"],
        ["eval", "nowhere", "--out", "out"],
        ["demo", "--quick"],
        ["study", "--quick"],
        ["profile", "data", "--policy", "nowhere", "--out", "out"],
        ["steps", "profile", "data", "--policy", "nowhere", "--out", "out"],
        ["steps", "--out", "out", "--tokenizer", "nowhere"],
        ["steps", "--show", "1", "--tokenizer", "Qwen/Qwen2.5-Coder-7B-Instruct"],
        ["train", "sft", "--config", "sft-demo", *PLACES],
        ["train", "srl", "--config", "srl-demo", *PLACES],
        ["train", "rlvr", "--config", "rlvr-paper", *PLACES[:2], "--bench", "starter"],
        ["train", "curriculum", "--config", "curriculum-paper", *PLACES],
        ["train", "--preset", "zero3"],
    ],
    ids=" ".join,
)
def test_the_extra_is_named_in_one_line_before_anything_is_made(
    core_packages: Path, tmp_path: Path, arguments: list[str]
) -> None:
    result = srl_swe(core_packages, tmp_path, *arguments)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("srl-swe: ")
    assert "pip install 'srl-swe[train]'" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "--sandbox", "local", "--limit", "1", "--out", "out"],
        ["steps", "--out", "out", "--show", "1"],
        ["convert", str(ROOT / "trajectories/starter.jsonl"), "out.parquet", "--to", "parquet"],
        ["train", "--list"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_what_needs_no_extra_works_without(
    core_packages: Path, tmp_path: Path, arguments: list[str]
) -> None:
    result = srl_swe(core_packages, tmp_path, *arguments)
    assert result.returncode == 0, result.stderr
