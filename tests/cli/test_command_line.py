from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from srl_swe.bundled import bundled

from ..commands import assert_one_line, srl_swe

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "command",
    ["replay", "steps", "convert", "rollout", "grade", "eval", "gold-check", "bench check", "demo",
     "plan", "cleanup", "doctor", "difficulty", "study", "runs list", "runs compare", "train sft",
     "train srl", "images build", "images pull", "images list", "images prune"],
)  # fmt: skip
def test_every_command_explains_itself(command: str) -> None:
    result = srl_swe(*command.split(), "--help")
    assert result.returncode == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "command", "said"),
    [
        ("trian", "srl-swe", "no such command 'trian'. Did you mean 'train'?"),
        ("images bild", "srl-swe images", "no such command 'bild'. Did you mean 'build'?"),
        ("replay --lmit 1", "srl-swe replay", "no such option: --lmit"),
        (
            "grade gold --workers 0",
            "srl-swe grade",
            "invalid value for '--workers' ",
        ),
        (
            "eval x --serve x",
            "srl-swe eval",
            "invalid value for '--serve': 'x' is not one of 'local', 'vllm'.",
        ),
        ("convert", "srl-swe convert", "missing argument 'source'."),
    ],
)
def test_a_mistake_in_the_command_line_itself_is_one_line(
    arguments: str, command: str, said: str
) -> None:
    result = srl_swe(*arguments.split())
    (line,) = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (2, "")
    assert line.startswith(f"{command}: {said}")
    assert line.endswith(f" See {command} --help.")


@pytest.mark.parametrize("command", ["", "images", "runs"])
def test_a_group_without_a_command_explains_itself(command: str) -> None:
    result = srl_swe(*command.split())
    assert result.returncode == 2
    assert result.stderr.startswith("Usage: srl-swe")
    assert "Commands:" in result.stderr


def test_an_interrupted_command_says_how_to_go_on(tmp_path: Path) -> None:
    """Interrupted once its own modules are there; it waits for standard input then."""
    with subprocess.Popen(
        [sys.executable, "-m", "srl_swe", "convert", "-", str(tmp_path / "out.jsonl")],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        for line in process.stderr:
            if "srl_swe.trajectories.load" in line:
                break
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("srl-swe: interrupted; run the same command again")


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text("{}\n{\n")
    assert_one_line(srl_swe("steps", str(path), "--out", str(tmp_path / "out")), "jsonl:1")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("replay nowhere.jsonl", ["nowhere.jsonl"]),
        ("grade nowhere.jsonl", ["nowhere.jsonl"]),
        ("grade gold --bench verfied", ["verfied", "verified"]),
        ("self-check --id starter__nothing-1 --out out", ["starter__nothing-1"]),
        ("steps --out out --token-budget 100", ["--tokenizer"]),
    ],
)
def test_a_name_or_place_that_is_not_there_is_one_line(
    command: str, words: list[str], tmp_path: Path
) -> None:
    assert_one_line(srl_swe(*command.split(), cwd=tmp_path), *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sandbox", "dokcer"], ["dokcer", "docker", "local"]),
        (["--sandbox-limit", "memory"], ["memory", "NAME=VALUE"]),
        (["--sandbox-limit", "memroy=8g"], ["memroy", "memory"]),
        (["--sandbox-limit", "cpus=many"], ["cpus", "many"]),
    ],
)
@pytest.mark.parametrize("command", [["replay"], ["rollout", "nowhere"], ["eval", "nowhere"]])
def test_a_mistake_in_an_option_of_sandboxes_is_one_line(
    command: list[str], arguments: list[str], words: list[str]
) -> None:
    assert_one_line(srl_swe(*command, *arguments), *words)


def test_commands_of_others_do_not_run_without_a_boundary(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_bytes((bundled("trajectories") / "starter.jsonl").read_bytes())
    for command in (["replay", str(theirs)], ["rollout", "nowhere"], ["eval", "nowhere"]):
        result = srl_swe(*command, "--sandbox", "local")
        assert_one_line(result, "not a security boundary", "--trust-commands")


def test_the_bundled_trajectories_run_without_an_engine_and_say_that_nothing_holds_them(
    tmp_path: Path,
) -> None:
    result = srl_swe(
        "replay", "--sandbox", "local", "--until", "1", DOCKER_HOST=f"unix://{tmp_path}/none"
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("not a security boundary") == 1


def test_a_trusted_stranger_runs_without_a_boundary(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.jsonl"
    first = (bundled("trajectories") / "starter.jsonl").read_text().splitlines()[0]
    theirs.write_text(first + "\n")
    result = srl_swe(
        *("replay", str(theirs), "--until", "1", "--sandbox", "local", "--trust-commands")
    )
    assert result.returncode == 0, result.stderr


PLACES = ["--model", "nowhere", "--data", "nowhere", "--output", "nowhere"]


@pytest.mark.usefixtures("train_extra")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["name a recipe", "srl-swe train --list"]),
        (["nowhere.yaml"], ["nowhere.yaml"]),
        (["--config", "srl-dmo"], ["srl-dmo", "srl-demo"]),
        (["--config", "sft-demo"], ["model", "--model"]),
        (["--config", "srl-demo", *PLACES], ["srl-demo", "sft"]),
        (["--config", "sft-demo", *PLACES, "--learning_rat", "1"], ["mean 'learning_rate'"]),
        (["--config", "sft-demo", *PLACES], ["nowhere"]),
        (["--config", "sft-demo", "stray"], ["stray"]),
        (["sft-demo", "stray", *PLACES], ["stray"]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_recipe_is_one_line(arguments: list[str], words: list[str]) -> None:
    assert_one_line(srl_swe("train", "sft", *arguments), *words)


def test_step_contexts_of_the_bundled_trajectories_are_shown(tmp_path: Path) -> None:
    result = srl_swe("steps", "--out", str(tmp_path / "steps"), "--show", "1")
    assert result.returncode == 0, result.stderr
    assert "| examples | 55 |" in result.stdout
    assert "expert's reply" in result.stdout
    assert (tmp_path / "steps" / "README.md").exists()


def test_help_needs_no_heavy_package() -> None:
    probe = (
        "import sys; sys.argv = ['srl-swe', '--help']\n"
        "from srl_swe.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'swebench', 'docker', 'pydantic'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )
    assert "loaded: []" in result.stdout
