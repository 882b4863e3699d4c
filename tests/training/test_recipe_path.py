"""How far a reader, and the interpreter, has to go from a recipe to a trainer."""

from __future__ import annotations

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
    assert len(entered) <= MOST_FILES, sorted(entered)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("trainer: {seed: 1}\nstrictnes: strict\n", "Did you mean 'strictness'"),
        ("trainer: {seed: 1}\nvalidation: {data: d, every_steps: 0}\n", "every_steps must be"),
        ("trainer: {seed: 1}\nrewards: {similarty: 1}\n", "Did you mean 'similarity'"),
    ],
)
def test_a_mistake_in_a_field_of_ours_is_found_without_torch(
    tmp_path: Path, lines: str, said: str
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"method: srl\nmodel: m\ndata: d\noutput: o\n{lines}")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from srl_swe.errors import UserError\n"
        "from srl_swe.training.load_recipe import load_recipe\n"
        "try: load_recipe(Path(sys.argv[1]))\n"
        "except UserError as error: print(error)\n"
        "print('loaded:', sorted({'torch', 'trl', 'transformers'} & set(sys.modules)))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(recipe)], capture_output=True, text=True, check=True
    )
    mistake, loaded = ended.stdout.splitlines()
    assert said in mistake
    assert loaded == "loaded: []"
