from __future__ import annotations

import pytest
from click.testing import Result

from srl_swe.cli.train import parse_overrides
from srl_swe.errors import UserError

from ..commands import assert_one_line, invoke, srl_swe

pytestmark = pytest.mark.slow


PLACES = ["--model", "org/model", "--data", "nowhere", "--output", "nowhere"]


def train(*arguments: str) -> Result:
    return invoke("train", *arguments)


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        (["--seed", "1"], {"seed": ["1"]}),
        (["--seed=1", "--use_vllm"], {"seed": ["1"], "use_vllm": []}),
        (["--report_to", "wandb", "tensorboard"], {"report_to": ["wandb", "tensorboard"]}),
        (["--max_steps", "-1"], {"max_steps": ["-1"]}),
        (["--run_name=--odd=1"], {"run_name": ["--odd=1"]}),
        (["--seed", "1", "--seed", "2"], {"seed": ["2"]}),
        ([], {}),
    ],
)
def test_options_are_words_by_name(arguments: list[str], overrides: dict[str, list[str]]) -> None:
    assert parse_overrides(arguments) == overrides


def test_a_word_before_any_option_is_a_mistake() -> None:
    with pytest.raises(UserError, match="'stray' is not an option"):
        parse_overrides(["stray", "--seed", "1"])


@pytest.mark.parametrize("command", ["sft", "srl", "rlvr", "curriculum"])
def test_every_method_explains_itself(command: str) -> None:
    result = train(command, "--help")
    assert result.exit_code == 0
    assert "--config" in result.stdout


def test_the_recipes_that_ship_are_listed_with_a_line_each() -> None:
    lines = train("--list").stdout.splitlines()
    assert any(line.startswith("srl-paper ") and "arXiv 2510.25992" in line for line in lines)
    assert all(line.endswith(".") and len(line) < 160 for line in lines)


@pytest.mark.usefixtures("train_extra")
def test_the_file_of_a_preset_is_printed() -> None:
    assert train("--preset", "zero3").stdout.strip().endswith("zero3.yaml")


@pytest.mark.usefixtures("train_extra")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "fsdp"], "Did you mean 'fsdp2'"),
        (["srl", "--config", "sft-demo", *PLACES], "sft-demo is not a recipe for srl"),
        (
            ["rlvr", "--config", "rlvr-paper", *PLACES[:2], "--bench", "starter", "--output", "x",
             "--bf16", "maybe"],
            "--bf16: bf16: Truthy value",
        ),
        (["sft", "--config", "sft-demo", *PLACES, "--output_dir", "x"], "write `output:`"),
        (["sft", "--config", "sft-demo", *PLACES, "--lora_r", "8"], "nowhere holds no step"),
        (["rlvr", "--config", "rlvr-paper", *PLACES[:2]], "bench is not set"),
        (["rlvr", "--config", "srl-demo", *PLACES], "srl-demo is not a recipe for rlvr"),
        (
            ["rlvr", "--config", "rlvr-paper", "--bench", "verfied", "--output", "x"],
            "verfied",
        ),
        (
            ["rlvr", "--config", "rlvr-paper", "--bench", "starter", "--output", "x",
             "--sandbox", "local"],
            "not a security boundary",
        ),
        (["curriculum", "--config", "srl-demo", *PLACES], "must be one of curriculum"),
        (["curriculum", "--config", "curriculum-paper", *PLACES], "bench is not set"),
        (
            ["curriculum", "--config", "curriculum-paper", *PLACES, "--bench", "verfied"],
            "verfied",
        ),
        (
            ["curriculum", "--config", "study-srl", *PLACES, "--phases.srl.validation",
             "{every_steps: 1, instances: {bench: verfied}}"],
            "verfied",
        ),
        (["srl", "--config", "curriculum-paper", *PLACES], "train curriculum"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError) as mistake:
        train(*arguments)
    assert said in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_a_mistake_is_one_line_on_stderr_and_exit_code_two() -> None:
    assert_one_line(srl_swe("train", "curriculum", "--config", "srl-demo"))
