"""Recipes: one YAML file says all that a training run depends on.

method: srl                  or sft
model: ...                   a folder or hub id that training starts from
data: ...                    a folder of step contexts
output: ...                  a folder for checkpoints, metrics.jsonl and final/
dynamic_sampling: {epsilon: 0.01, max_rounds: 4}       or null: plain GRPO
trainer: {...}               any field of TRL's GRPOConfig or SFTConfig, passed on untouched
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from srl_swe.dialects import DIALECTS, Strictness
from srl_swe.errors import UserError
from srl_swe.training.fields import field_names, one_of, refuse_unknown, typed_section

Overlong = Literal["error", "drop"]


@dataclass(frozen=True, slots=True)
class DynamicSampling:
    """When a group is worth training on, and how long to look for such groups.

    A group is kept if the population standard deviation of its rewards exceeds ``epsilon``
    (paper, section 3; it gives no value). ``max_rounds``: how often missing groups are sampled
    anew before the batch is trained on as it is; 0 only leaves the dead groups out.
    """

    epsilon: float
    max_rounds: int


@dataclass(frozen=True, slots=True)
class SrlRecipe:
    """Supervised reinforcement learning: GRPO on the similarity of single steps."""

    model: str
    data: str
    output: str
    dialect: str = "xml"
    strictness: Strictness = "strict"
    dynamic_sampling: DynamicSampling | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SftRecipe:
    """Supervised fine-tuning on the same rows; the loss is on the expert's reply only.

    ``overlong``: what happens to rows that do not fit ``max_length`` or the model. ``error``
    names them before the first step, ``drop`` leaves them out and says how many.
    """

    model: str
    data: str
    output: str
    overlong: Overlong = "error"
    trainer: Mapping[str, Any] = field(default_factory=dict)


Recipe = SrlRecipe | SftRecipe
RecipeType = type[SrlRecipe] | type[SftRecipe]
METHODS: dict[str, RecipeType] = {"srl": SrlRecipe, "sft": SftRecipe}


def load_recipe(path: Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """The recipe in the file, with ``overrides`` on top.

    An override is named by its field (``model``), by a dotted path
    (``dynamic_sampling.epsilon``, ``trainer.seed``) or by the bare name of a trainer field
    (``learning_rate``); its text is read as YAML. Raises UserError for what is unknown,
    missing or of the wrong kind.
    """
    content = _read(path)
    method = content.pop("method", None)
    one_of(method, METHODS, f"{path}: method")
    recipe_type = METHODS[method]
    for key, text in (overrides or {}).items():
        _override(content, recipe_type, key, text)
    return _build(recipe_type, content, str(path))


def trainer_config(recipe_type: RecipeType) -> type[Any]:
    """TRL's config class behind the section ``trainer``."""
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.sft_config import SFTConfig

    return GRPOConfig if recipe_type is SrlRecipe else SFTConfig


def _read(path: Path) -> dict[str, Any]:
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


def _override(content: dict[str, Any], recipe_type: RecipeType, key: str, text: str) -> None:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"the value of {key}, {text!r}, is no YAML.") from None
    section, _, name = key.rpartition(".")
    if not section and key not in field_names(recipe_type):
        section = "trainer"
    if not section:
        content[key] = value
    elif section in {"trainer", "dynamic_sampling"}:
        held = content.get(section) or {}
        if isinstance(held, dict):  # what is no section is refused when the recipe is built
            content[section] = {**held, name: value}
    else:
        raise UserError(f"a recipe has no section {section!r} (override {key!r}).")


def _build(recipe_type: RecipeType, content: dict[str, Any], where: str) -> Recipe:
    refuse_unknown(content, recipe_type, where)
    for name in ("model", "data", "output"):
        if not isinstance(content.get(name), str):
            raise UserError(f"{where}: {name} is not set; write `{name}: ...` or give --{name}.")
    trainer = typed_section(
        content.pop("trainer", None) or {}, trainer_config(recipe_type), f"{where}: trainer"
    )
    if recipe_type is SftRecipe:
        one_of(content.get("overlong", "error"), get_args(Overlong), f"{where}: overlong")
        return SftRecipe(**content, trainer=trainer)
    one_of(content.get("dialect", "xml"), DIALECTS, f"{where}: dialect")
    one_of(content.get("strictness", "strict"), get_args(Strictness), f"{where}: strictness")
    sampling = _sampling(content.pop("dynamic_sampling", None), f"{where}: dynamic_sampling")
    return SrlRecipe(**content, dynamic_sampling=sampling, trainer=trainer)


def _sampling(section: Any, where: str) -> DynamicSampling | None:
    """None for a missing, null or false section: plain GRPO."""
    if not section:
        return None
    values = typed_section(section, DynamicSampling, where)
    for name in field_names(DynamicSampling):
        if values.get(name) is None:
            raise UserError(f"{where} lacks {name}.")
        if not values[name] >= 0:  # neither is NaN
            raise UserError(f"{where}: {name} must be 0 or more, not {values[name]}.")
    return DynamicSampling(**values)
