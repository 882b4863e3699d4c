"""How far a reader, and the interpreter, has to go from a recipe to a trainer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml
from transformers import Trainer

import srl_swe
from srl_swe.training.load_recipe import load_recipe
from srl_swe.training.recipe import RlvrRecipe
from srl_swe.training.train import train

PACKAGE = Path(srl_swe.__file__).parent
MOST_FILES = 18
ON_CPU = {"use_cpu": True, "bf16": False, "max_steps": 1}
GROUPS = {"num_generations": 4, "per_device_train_batch_size": 16, "max_completion_length": 24}


class TrainerReached(Exception):
    """A trainer is about to be constructed."""


def files_entered(recipe: Path) -> set[str]:
    """The files of srl_swe with a function that runs before a trainer's ``__init__``."""
    entered: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or code.co_name == "<module>":
            return
        if code.co_name == "__init__" and isinstance(frame.f_locals.get("self"), Trainer):
            raise TrainerReached
        if (path := Path(code.co_filename)).is_relative_to(PACKAGE):
            entered.add(str(path.relative_to(PACKAGE)))

    sys.setprofile(note)
    try:
        loaded = load_recipe(recipe)
        assert not isinstance(loaded, RlvrRecipe)
        train(loaded)
    except TrainerReached:
        return entered
    finally:
        sys.setprofile(None)
    raise AssertionError("it never made a trainer")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "srl"])
def test_a_recipe_enters_few_files_on_its_way_to_a_trainer(
    policy: Path, data: Path, tmp_path: Path, method: str
) -> None:
    recipe = tmp_path / "recipe.yaml"
    trainer = ON_CPU | (GROUPS if method == "srl" else {})
    content = {"method": method, "model": str(policy), "data": str(data), "trainer": trainer}
    recipe.write_text(yaml.safe_dump({**content, "output": str(tmp_path / "out")}))
    entered = files_entered(recipe)
    assert f"training/{method}_trainer.py" in entered
    assert len(entered) <= MOST_FILES, "\n".join(sorted(entered))


PROGRAM = """
import contextlib, io, json, sys
from srl_swe.cli.main import main
for words in json.load(sys.stdin):
    sys.argv, errors = ["srl-swe", *words], io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
    heavy = sorted({"torch", "transformers", "trl", "datasets"} & set(sys.modules))
    print(json.dumps([code, errors.getvalue(), heavy]))
"""
MISTAKES = [
    ("train sft sft-demo --model {policy} --data nowhere", "nowhere holds no step contexts; make"),
    ("train srl srl-demo --model {policy} --data {policy}", "holds no step contexts; make them"),
    ("train srl srl-demo --model {policy}x --data {data}", "untrainedx. Did you mean 'untrained'?"),
    ("train sft sft-demo --model . --data {data}", "model folder: config.json is missing."),
    ("train sft srl-demo --model {policy} --data {data}", "srl-demo is not a recipe for sft."),
    ("train srl srl-dmo --model {policy} --data {data}", "no recipe 'srl-dmo'. Did you mean"),
    ("train srl nowhere.yaml --model {policy} --data {data}", "no recipe at nowhere.yaml"),
    ("train srl srl-demo --model m --data d --strictnes strict", "Did you mean 'strictness'?"),
    ("train srl srl-demo --model m --data d --learning_rte 1", "Did you mean 'learning_rate'?"),
    ("train srl srl-demo --model m --data d --trainer.lora_r 1", "unknown field 'lora_r'"),
    ("train srl srl-demo --model m --data d --push_to_hub", "push_to_hub is not for this section"),
    ("train srl srl-demo --model m --data d --rewards.similarty 1", "Did you mean 'similarity'?"),
    (
        "train srl srl-demo --model m --data d --validation.every_steps 0 --validation.data d",
        "every_steps must be greater than 0",
    ),
    (
        "train srl srl-demo --model {policy} --data {data} --validation.every_steps 1 "
        "--validation.data nowhere",
        "nowhere holds no step contexts",
    ),
    ("train rlvr rlvr-paper --model {policy} --bench verfied", "Did you mean 'verified'?"),
    ("train rlvr rlvr-paper --model {policy}x --bench starter", "Did you mean 'untrained'?"),
    ("train rlvr rlvr-paper --model m --bench starter --reward luck", "unknown reward 'luck'"),
    (
        "train curriculum curriculum-paper --model {policy} --data nowhere --bench starter",
        "nowhere holds no step contexts",
    ),
    (
        "train curriculum curriculum-paper --model {policy} --data {data} --bench verfied",
        "Did you mean 'verified'?",
    ),
    (
        "train curriculum curriculum-paper --model m --data d --bench b --phases.rlvr.reward luck",
        "unknown reward 'luck'",
    ),
    ("difficulty nowhere --policy {policy}", "nowhere holds no step contexts"),
    ("difficulty {data} --policy {policy}x", "Did you mean 'untrained'?"),
    ("difficulty {data} --policy {policy} --reward similarty", "Did you mean 'similarity'?"),
]


@pytest.mark.slow
def test_a_mistake_that_needs_no_torch_is_one_line_before_it_is_imported(
    policy: Path, data: Path, tmp_path: Path
) -> None:
    lines = [line.format(policy=policy, data=data) + " --out out" for line, _ in MISTAKES]
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([line.split() for line in lines]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    results = [json.loads(line) for line in ended.stdout.splitlines()]
    for (line, said), (code, errors, heavy) in zip(MISTAKES, results, strict=True):
        assert said in errors, line
        assert (code, len(errors.splitlines()), heavy) == (2, 1, []), line
