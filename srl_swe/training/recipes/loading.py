"""Reads recipes: a YAML file, what the command line changes of it, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import yaml

from srl_swe.errors import UserError
from srl_swe.training.recipes.fields import field_names, one_of, refuse_unknown
from srl_swe.training.recipes.records import METHODS, Recipe, RecipeType, RlvrRecipe, SftRecipe
from srl_swe.training.recipes.values import SECTIONS, read_field

if TYPE_CHECKING:
    from srl_swe.training.recipes.trl_fields import TrlFields

Overrides = Mapping[str, str | Sequence[str]]
"""Words of the command line by the option before them; one word can stand for itself."""


NOT_TRLS = {
    "output_dir": "write `output:`",
    "resume_from_checkpoint": "a run goes on from its last checkpoint by itself",
    "reward_weights": "write `rewards:`",
    "completion_only_loss": "the loss is always on the reply only",
    "model_name_or_path": "write `model:`",
    "push_to_hub": "it would write over the run's config.json and push each checkpoint; push the "
    "final policy when it is there: `hf upload OWNER/NAME OUTPUT/final`",
    "remove_unused_columns": "rewards read the columns that it would remove",
}
"""Fields of TRL that a recipe decides elsewhere or can't have, and what to do instead."""


def load_recipe(path: Path, overrides: Overrides | None = None) -> Recipe:
    """The recipe in the file, with ``overrides`` on top.

    An override is named by its field (``model``), by a dotted path (``rewards.exact``,
    ``trainer.seed``) or by the bare name of a field of TRL's (``learning_rate``, ``lora_r``).
    Raises UserError for what is unknown, missing or of the wrong kind.
    """
    return make_recipe(read_content(path), overrides or {}, str(path))


def make_recipe(content: Mapping[str, Any], overrides: Overrides, where: str) -> Recipe:
    """The recipe that these lines, under these overrides, are; ``where`` is for mistakes."""
    content = dict(content)
    method = content.pop("method", None)
    if method == "curriculum":
        raise UserError(f"{where} is a curriculum: run it by `srl-swe train curriculum`.")
    one_of(method, METHODS, f"{where}: method")
    recipe_type = METHODS[method]
    for key, words in overrides.items():
        _override(content, recipe_type, key, [words] if isinstance(words, str) else words)
    return _build(recipe_type, content, where)


def trl_sections(recipe_type: RecipeType) -> dict[str, TrlFields]:
    """The sections that hold fields of TRL's dataclasses."""
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.model_config import ModelConfig
    from trl.trainer.sft_config import SFTConfig

    from srl_swe.training.recipes.trl_fields import TrlFields

    trainer: type[Any] = SFTConfig if recipe_type is SftRecipe else GRPOConfig
    return {"trainer": TrlFields(trainer), "model_config": TrlFields(ModelConfig)}


def read_content(path: Path) -> dict[str, Any]:
    """What the YAML file holds, unjudged. Raises UserError where that is no mapping."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"no recipe at {path} ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is no recipe: it must hold `method:`, `model:`, `data:` and so on."
        )
    return content


def _override(
    content: dict[str, Any], recipe_type: RecipeType, key: str, words: Sequence[str]
) -> None:
    section, _, name = key.rpartition(".")
    if not section and key in field_names(recipe_type):
        content[key] = _one_value(key, words, get_type_hints(recipe_type)[key])
        return
    value: Any
    theirs = trl_sections(recipe_type)
    section = section or _section_of(name, theirs, recipe_type)
    if section in theirs:
        value = theirs[section].read(name, words, f"--{key}")
        name = theirs[section].field_of(name) or name
    elif {*section.split(".")} <= {*SECTIONS, "rewards"}:
        value = _one_value(key, words, Any)
    else:
        raise UserError(f"a recipe has no section {section!r} (override {key!r}).")
    _put(content, [*section.split("."), name], value)


def _put(content: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set what the path leads to. What is no section on the way is refused by :func:`_build`."""
    first, *rest = path
    if not rest:
        content[first] = value
        return
    held = content.get(first) or {}
    if isinstance(held, dict):
        content[first] = dict(held)
        _put(content[first], rest, value)


def _section_of(option: str, theirs: Mapping[str, TrlFields], recipe_type: RecipeType) -> str:
    """The section of TRL's that has the field; UserError, with the nearest name, if none has."""
    found = (name for name, fields in theirs.items() if fields.field_of(option) is not None)
    section = next(found, None)
    if section is None:
        known = [name for fields in theirs.values() for name in fields.names]
        refuse_unknown([option], [*field_names(recipe_type), *known], "command line")
    return section or ""


def _one_value(key: str, words: Sequence[str], hint: Any) -> Any:
    """The one word after an option of ours, read as YAML unless it is to be a text."""
    if len(words) != 1:
        raise UserError(f"--{key} takes one value, not {len(words)}.")
    if hint is str:
        return words[0]
    try:
        return yaml.safe_load(words[0])
    except yaml.YAMLError:
        raise UserError(f"the value of {key}, {words[0]!r}, is no YAML.") from None


def _build(recipe_type: RecipeType, content: dict[str, Any], where: str) -> Recipe:
    refuse_unknown(content, field_names(recipe_type), where)
    source = "bench" if recipe_type is RlvrRecipe else "data"
    for name in ("model", source, "output"):
        if content.get(name) is None:
            raise UserError(f"{where}: {name} is not set; write `{name}: ...` or give --{name}.")
    hints, theirs = get_type_hints(recipe_type), trl_sections(recipe_type)
    for field in dataclasses.fields(recipe_type):
        name, value = field.name, content.get(field.name)
        if name in theirs:
            content[name] = _trl_section(theirs[name], value or {}, f"{where}: {name}")
        elif name in content:
            content[name] = read_field(value, field, hints[name], where)
    made: Recipe = recipe_type(**content)
    return made


def _trl_section(fields: TrlFields, section: Any, where: str) -> dict[str, Any]:
    values = fields.section(section, where)
    for name in values:
        if name in NOT_TRLS:
            raise UserError(f"{where}: {name} is not for this section; {NOT_TRLS[name]}.")
    return values
