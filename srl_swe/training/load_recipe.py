"""Reads recipes and curricula: a YAML file, overridden by fields of the command line.

Every mistake is a UserError of one line. Our own fields are checked before TRL's, which import
torch.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import yaml
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from srl_swe.errors import UserError, did_you_mean
from srl_swe.training.recipe import (
    METHODS,
    CurriculumRecipe,
    Phase,
    Recipe,
    RecipeType,
    RlvrRecipe,
    SftRecipe,
    check,
    field_names,
    refuse_unknown,
)

if TYPE_CHECKING:
    from srl_swe.training.trl_config import TrlFields

Overrides = Mapping[str, str | Sequence[str]]
"""Words of the command line by the option before them; a string stands for one word."""

TRL_SECTIONS = ("trainer", "model_config")
NOT_TRLS = {
    "output_dir": "write `output:`",
    "resume_from_checkpoint": "a run resumes from its last checkpoint by itself",
    "reward_weights": "write `rewards:`",
    "completion_only_loss": "the loss is always on the reply only",
    "model_name_or_path": "write `model:`",
    "push_to_hub": "it would write over the run's config.json and push each checkpoint; push the "
    "final policy when it is there: `hf upload OWNER/NAME OUTPUT/final`",
    "remove_unused_columns": "rewards read the columns that it would remove",
}
"""Fields of TRL that a recipe sets elsewhere or can't have, and the alternative."""


def recipe_path(name: str) -> Path:
    """Resolve a recipe: a path as it is, or the name of a shipped recipe, such as ``srl-paper``."""
    if Path(name).suffix in {".yaml", ".yml"}:
        return Path(name)
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    hint = did_you_mean(name, shipped)
    raise UserError(f"no recipe {name!r}.{hint} Shipped recipes: {', '.join(shipped)}.")


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name."""
    folder = Path(str(resources.files("srl_swe"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def summary_of(recipe: Path) -> str:
    """Return the first sentence of the comment at the top of a recipe."""
    lines = takewhile(lambda line: line.startswith("#"), recipe.read_text("utf-8").splitlines())
    return " ".join(line.strip("# ") for line in lines).partition(". ")[0].rstrip(".")


def read_content(path: Path) -> dict[str, Any]:
    """Read a recipe file unchecked. Raises UserError if it is not a YAML mapping."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"no recipe at {path} ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is not a recipe: it must hold `method:`, `model:`, `data:` and so on."
        )
    return content


def load_recipe(path: Path, overrides: Overrides | None = None) -> Recipe:
    """Load the recipe in the file, with ``overrides`` applied.

    An override is named by its field (``model``), by a dotted path (``rewards.exact``,
    ``trainer.seed``) or by the bare name of a field of TRL (``learning_rate``, ``lora_r``).
    Raises UserError for an unknown or missing field and for a wrong value.
    """
    return make_recipe(read_content(path), overrides or {}, str(path))


def make_recipe(content: Mapping[str, Any], overrides: Overrides, where: str) -> Recipe:
    """Make the recipe from its content and overrides; ``where`` is for error messages."""
    lines = dict(content)
    method = lines.pop("method", None)
    if method == "curriculum":
        raise UserError(f"{where} is a curriculum: run it by `srl-swe train curriculum`.")
    recipe_type = METHODS[_one_of(method, METHODS, f"{where}: method")]
    hints, of_trl = get_type_hints(recipe_type), dict[str, list[str]]()
    for key, given in overrides.items():
        words = [given] if isinstance(given, str) else list(given)
        section, _, name = key.rpartition(".")
        if section in TRL_SECTIONS or not (section or name in field_names(recipe_type)):
            of_trl[key] = words
        else:
            refuse_unknown([key.partition(".")[0]], field_names(recipe_type), "command line")
            # a custom reward has dots of its own: rewards.my_package.my_module:my_reward
            path = key.split(".", 1 if key.startswith("rewards.") else -1)
            _put(lines, path, _one_value(key, words, hints.get(key)))
    recipe: Recipe = check(recipe_type, lines, where)
    return _with_trl_sections(recipe, of_trl, where)


def trl_fields(recipe_type: RecipeType) -> dict[str, TrlFields]:
    """Return the fields of TRL's dataclasses by recipe section."""
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.model_config import ModelConfig
    from trl.trainer.sft_config import SFTConfig

    from srl_swe.training.trl_config import TrlFields

    trainer: type[Any] = SFTConfig if recipe_type is SftRecipe else GRPOConfig
    return {"trainer": TrlFields(trainer), "model_config": TrlFields(ModelConfig)}


def _with_trl_sections(recipe: Recipe, words: Mapping[str, list[str]], where: str) -> Recipe:
    """Convert the recipe's TRL sections and apply ``words`` of the command line."""
    if not (words or recipe.trainer or recipe.model_config):
        return recipe
    fields = trl_fields(type(recipe))
    made: dict[str, Any] = {
        section: fields[section].section(getattr(recipe, section), f"{where}: {section}")
        for section in TRL_SECTIONS
    }
    for key, given in words.items():
        section, _, option = key.rpartition(".")
        for candidate in [section] if section else TRL_SECTIONS:
            if name := fields[candidate].field_of(option):
                made[candidate][name] = fields[candidate].read(option, given, f"--{key}")
                break
        else:
            known = [name for section in TRL_SECTIONS for name in fields[section].names]
            refuse_unknown([option], [*field_names(type(recipe)), *known], "command line")
    for section, values in made.items():
        for name in values:
            if name in NOT_TRLS:
                raise UserError(
                    f"{where}: {section}: {name} is not for this section; {NOT_TRLS[name]}."
                )
    return dataclasses.replace(recipe, **made)


def _put(lines: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the field at the path, without changing sections shared by ``lines``."""
    first, *rest = path
    if rest:
        held = lines.get(first)
        section = dict(held) if isinstance(held, dict) else {}
        _put(section, rest, value)
        value = section
    lines[first] = value


def _one_value(key: str, words: Sequence[str], hint: Any) -> Any:
    """The value of one of our own options, read as YAML unless the field is a string."""
    if len(words) != 1:
        raise UserError(f"--{key} takes one value, not {len(words)}.")
    if hint is str:
        return words[0]
    try:
        return yaml.safe_load(words[0])
    except yaml.YAMLError:
        raise UserError(f"the value of {key}, {words[0]!r}, is not YAML.") from None


def _one_of(value: Any, allowed: Iterable[str], where: str) -> str:
    allowed = list(allowed)
    if value not in allowed:
        raise UserError(f"{where} is {value!r}; it must be one of {', '.join(allowed)}.")
    return str(value)


# method: curriculum
# model: ...                   the first phase's starting model
# data: ...                    default step contexts of phases
# bench: ...                   default instances of phases
# output: ...                  a folder; phases lie in 01-NAME/, 02-NAME/ and so on
# phases:
#   - recipe: srl-paper        a recipe to start from, if any; the lines below override it
#     name: srl                the method by default
#     trainer: {...}
#   - {method: rlvr, trainer: {...}}


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class CurriculumFile:
    """The content of a curriculum's file; each phase is the content of a recipe."""

    method: Literal["curriculum"]
    output: str
    phases: Annotated[list[dict[str, Any]], Field(min_length=1)]
    model: str | None = None
    data: str | None = None
    bench: str | None = None


def load_curriculum(path: Path, overrides: Overrides | None = None) -> CurriculumRecipe:
    """Load the curriculum in the file, with ``overrides`` applied.

    An override names a field of the curriculum (``model``) or, after ``phases.NAME.``, a field
    as in :func:`load_recipe` (``phases.srl.learning_rate``). Raises UserError for an unknown or
    missing field and for a wrong value.
    """
    content, where = read_content(path), str(path)
    _one_of(content.get("method"), ["curriculum"], f"{where}: method")
    of_phases: dict[str, dict[str, str | Sequence[str]]] = {}
    for key, words in (overrides or {}).items():
        if key.startswith("phases."):
            name, _, rest = key.removeprefix("phases.").partition(".")
            of_phases.setdefault(name, {})[rest] = words
        elif key in {"model", "data", "bench", "output"}:
            content[key] = _one_value(key, [words] if isinstance(words, str) else words, str)
        else:
            raise UserError(
                f"--{key} is not a line of a curriculum (model, data, bench, output); for a "
                f"phase's write --phases.NAME.{key}."
            )
    return _make_curriculum(check(CurriculumFile, content, where), of_phases, where)


def _make_curriculum(
    file: CurriculumFile, overrides: Mapping[str, Overrides], where: str
) -> CurriculumRecipe:
    drafts = _drafts(file.phases, where)
    model = file.model or next(iter(drafts.values())).get("model")
    if model is None:
        raise UserError(f"{where}: model is not set; write `model: ...` or give --model.")
    for name in overrides:
        _one_of(name, drafts, f"{where}: the phase of --phases.{name}")
    phases: list[Phase] = []
    for number, (name, draft) in enumerate(drafts.items(), start=1):
        folder, changes = f"{number:02}-{name}", overrides.get(name, {})
        place = f"{where}: phases.{name}"
        _refuse_places(changes, place)
        source = "bench" if METHODS[draft["method"]] is RlvrRecipe else "data"
        if draft.get(source) is None and (shared := getattr(file, source)) is not None:
            draft[source] = shared
        content = {**draft, "model": model, "output": f"{file.output}/{folder}"}
        phases.append(Phase(folder, make_recipe(content, changes, place)))
        model = f"{file.output}/{folder}/final"
    return CurriculumRecipe(tuple(phases), file.output)


def _drafts(phases: Iterable[Mapping[str, Any]], where: str) -> dict[str, dict[str, Any]]:
    """Merge the content of each phase into that of its base recipe; returned by phase name."""
    drafts: dict[str, dict[str, Any]] = {}
    for number, phase in enumerate(phases, start=1):
        place = f"{where}: phase {number}"
        _refuse_places(phase, place)
        lines = dict(phase)
        recipe = lines.pop("recipe", None)
        draft = {} if recipe is None else read_content(recipe_path(str(recipe)))
        for field, value in lines.items():
            held = draft.get(field)
            merged = isinstance(held, dict) and isinstance(value, dict)
            draft[field] = {**held, **value} if merged and held else value
        _one_of(draft.get("method"), METHODS, f"{place}: method")
        name = str(draft.pop("name", draft["method"]))
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise UserError(f"{where}: the phase's name {name!r} can't name a folder.")
        if name in drafts:
            raise UserError(f"{where}: two phases are named {name!r}; give one a `name:`.")
        drafts[name] = draft
    return drafts


def _refuse_places(names: Iterable[str], where: str) -> None:
    for name in names:
        if name in {"model", "output"}:
            raise UserError(
                f"{where}: a phase has no {name} of its own; it starts from the previous phase's "
                "final/ and lies in the curriculum's output."
            )
