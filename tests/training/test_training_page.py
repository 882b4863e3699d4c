from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from srl_swe.cli.train import RecipeOptions
from srl_swe.training.load_recipe import load_curriculum, load_recipe, recipe_path
from srl_swe.training.train import accelerate_preset

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "training.md").read_text("utf-8")
PAGES = PAGE + (DOCS / "training-runs.md").read_text("utf-8")
COMMANDS = re.findall(
    r"^    .*?(?:srl-swe|srl_swe) train (\w+ (?:--config )?[\w-]+ .+)$", PAGES, re.MULTILINE
)
OF_SANDBOXES = {"workers", "sandbox-limit"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_is_one_that_would_start(command: str) -> None:
    method, *words = shlex.split(command.replace(" --config ", " ").replace("--out ", "--output "))
    config, options = RecipeOptions().words(words)
    path = recipe_path(config)
    overrides = {name: words for name, words in options.items() if name not in OF_SANDBOXES}
    if method == "curriculum":
        assert load_curriculum(path, overrides).phases
    else:
        assert load_recipe(path, overrides).output.startswith("runs/")


def test_the_recipes_on_the_page_are_recipes(tmp_path: Path) -> None:
    found = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    recipe, validation, curriculum = found
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe)
    assert load_recipe(path).model_config["lora_r"] == 32
    path.write_text(yaml.safe_dump(yaml.safe_load(recipe) | yaml.safe_load(validation)))
    validated = load_recipe(path).validation
    assert validated is not None
    assert validated.decides == "resolved"
    path = tmp_path / "curriculum.yaml"
    path.write_text(curriculum)
    names = [phase.name for phase in load_curriculum(path).phases]
    assert names == ["01-sft", "02-srl", "03-rlvr"]


def test_the_presets_that_the_page_names_exist() -> None:
    for name in re.findall(r"--preset (\w+)\)", PAGE):
        assert accelerate_preset(name).is_file()
