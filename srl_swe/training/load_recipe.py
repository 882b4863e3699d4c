"""Reads recipes: a YAML file, what the command line changes of it, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import yaml

from srl_swe.dialects import DIALECTS, Strictness
from srl_swe.errors import UserError
from srl_swe.rewards.outcome import TEST_REWARDS
from srl_swe.rewards.table import STEP_REWARDS, weight_shares
from srl_swe.rollout import Limits
from srl_swe.steps.prompt import Window
from srl_swe.training.recipe import (
    METHODS,
    Alarms,
    CurriculumRecipe,
    DynamicSampling,
    Overlong,
    Phase,
    Recipe,
    RecipeType,
    RlvrRecipe,
    Setting,
    SftRecipe,
    StepMetric,
    Validation,
    ValidationInstances,
)
from srl_swe.training.train import recipe_path
from srl_swe.training.trl_config import (
    as_number,
    field_names,
    kinds_of,
    one_of,
    refuse_unknown,
    typed_section,
)

if TYPE_CHECKING:
    from srl_swe.training.trl_config import TrlFields


# Judges what stands in a recipe, field by field, and makes records of its sections.


SECTIONS: Mapping[str, type[Any]] = {
    "dynamic_sampling": DynamicSampling,
    "validation": Validation,
    "instances": ValidationInstances,
    "limits": Limits,
    "window": Window,
    "alarms": Alarms,
}
"""Sections of ours; those of TRL's are ``trainer`` and ``model_config``."""

CHOICES: Mapping[str, Iterable[str]] = {
    "dialect": DIALECTS,
    "strictness": get_args(Strictness),
    "overlong": get_args(Overlong),
    "setting": get_args(Setting),
    "reward": TEST_REWARDS,
    "metric": [*get_args(StepMetric), "resolved"],
}

_SIMPLE = {str: "a text", bool: "true or false"}

MAY_BE_ZERO = {"epsilon", "max_rounds", "pairs", "completions_every", "format_rate"}


def read_field(value: Any, field: dataclasses.Field[Any], hint: Any, where: str) -> Any:
    """The value that a field of a recipe or section takes; UserError for one that it can't."""
    where = f"{where}: {field.name}"
    if field.name in SECTIONS:
        return _record(value, field, where)
    if value is None:
        if type(None) not in get_args(hint):
            raise UserError(f"{where} must not be null.")
        return None
    if field.name in CHOICES:
        one_of(value, CHOICES[field.name], where)
        return value
    if field.name == "rewards":
        return _rewards(value, where)
    for kind, meaning in _SIMPLE.items():
        if kinds_of(hint) == {kind} and not isinstance(value, kind):
            raise UserError(f"{where} must be {meaning}, not {value!r}.")
    value = as_number(value, hint, where)
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_sign(value, field.name, where)
    return value


def _record(section: Any, field: dataclasses.Field[Any], where: str) -> Any:
    """The section over the field's default; a null or false one is the default."""
    made = field.default_factory
    default: Any = field.default if made is dataclasses.MISSING else made()
    if not section:
        return default
    record = SECTIONS[field.name]
    values = typed_section(section, record, where)
    hints = get_type_hints(record)
    for part in dataclasses.fields(record):
        if part.name in values:
            values[part.name] = read_field(values[part.name], part, hints[part.name], where)
        elif default is None and _is_required(part):
            raise UserError(f"{where} lacks {part.name}.")
    return record(**values) if default is None else dataclasses.replace(default, **values)


def _is_required(part: dataclasses.Field[Any]) -> bool:
    return part.default is part.default_factory is dataclasses.MISSING


def _rewards(section: Any, where: str) -> dict[str, float]:
    """Weights by name, as they were written."""
    if not isinstance(section, dict):
        raise UserError(f"{where} must hold `name: weight` lines, not {section!r}.")
    refuse_unknown(section, STEP_REWARDS, where)
    weights: dict[str, float] = {}
    for name, value in section.items():
        if value is None:
            raise UserError(f"{where}: {name} has no weight.")
        weights[name] = as_number(value, float, f"{where}: {name}")
    weight_shares(weights)
    return weights


def _check_sign(number: float, name: str, where: str) -> None:
    if name in MAY_BE_ZERO:
        if not number >= 0:  # neither is NaN
            raise UserError(f"{where} must be 0 or more, not {number}.")
    elif not number > 0:
        raise UserError(f"{where} must be more than 0, not {number}.")


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

    from srl_swe.training.trl_config import TrlFields

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


# Reads a curriculum: recipes in a row, each of which may start from one that ships.
#
# method: curriculum
# model: ...                   what the first phase starts from
# data: ...                    step contexts of the phases that name none
# bench: ...                   instances of the phases that name none
# output: ...                  a folder; phases lie in 01-NAME/, 02-NAME/ and so on
# phases:
#   - recipe: srl-paper        a recipe to start from, if any; the lines below change it
#     name: srl                the method if it is not given
#     trainer: {...}
#   - {method: rlvr, trainer: {...}}


FIELDS = ("method", "model", "data", "bench", "output", "phases")


def load_curriculum(path: Path, overrides: Overrides | None = None) -> CurriculumRecipe:
    """The curriculum in the file, with ``overrides`` on top.

    An override names a line of the curriculum (``model``) or, by ``phases.NAME.``, whatever a
    recipe's may (``phases.srl.learning_rate``). Raises UserError for what is unknown, missing or
    of the wrong kind.
    """
    content = read_content(path)
    where = str(path)
    one_of(content.get("method"), ["curriculum"], f"{where}: method")
    refuse_unknown(content, FIELDS, where)
    of_phases: dict[str, dict[str, Any]] = {}
    for key, words in (overrides or {}).items():
        if key.startswith("phases."):
            name, _, rest = key.removeprefix("phases.").partition(".")
            of_phases.setdefault(name, {})[rest] = words
        else:
            content[key] = _line(key, words)
    return _build_phase(content, of_phases, where)


def _line(key: str, words: str | Sequence[str]) -> str:
    """The value of a line of the curriculum itself."""
    known = [name for name in FIELDS if name not in {"method", "phases"}]
    if key not in known:
        raise UserError(
            f"--{key} is no line of a curriculum ({', '.join(known)}); for a phase's write "
            f"--phases.NAME.{key}."
        )
    values = [words] if isinstance(words, str) else list(words)
    if len(values) != 1:
        raise UserError(f"--{key} takes one value, not {len(values)}.")
    return str(values[0])


def _build_phase(
    content: Mapping[str, Any], overrides: Mapping[str, Overrides], where: str
) -> CurriculumRecipe:
    drafts = _drafts(content.get("phases"), where)
    first = next(iter(drafts.values()))
    model, output = content.get("model", first.get("model")), content.get("output")
    for name, value in (("model", model), ("output", output)):
        if not isinstance(value, str):
            raise UserError(f"{where}: {name} is not set; write `{name}: ...` or give --{name}.")
    for name in overrides:
        one_of(name, drafts, f"{where}: the phase of --phases.{name}")
    phases: list[Phase] = []
    for number, (name, draft) in enumerate(drafts.items(), start=1):
        folder = f"{number:02}-{name}"
        places = {**_shared(content, draft), "model": model, "output": f"{output}/{folder}"}
        model = f"{output}/{folder}/final"
        phase_where = f"{where}: phases.{name}"
        _refuse_places(overrides.get(name, {}), phase_where)
        recipe = make_recipe({**draft, **places}, overrides.get(name, {}), phase_where)
        phases.append(Phase(folder, recipe))
    return CurriculumRecipe(tuple(phases), str(output))


def _drafts(phases: Any, where: str) -> dict[str, dict[str, Any]]:
    """The lines of each phase over those of the recipe that it starts from, by its name."""
    if not (isinstance(phases, list) and phases):
        raise UserError(f"{where}: phases must be a list of recipes.")
    drafts: dict[str, dict[str, Any]] = {}
    for number, phase in enumerate(phases, start=1):
        if not isinstance(phase, dict):
            raise UserError(f"{where}: phase {number} must hold `name: value` lines.")
        _refuse_places(phase, f"{where}: phase {number}")
        draft = _merged(phase)
        one_of(draft.get("method"), METHODS, f"{where}: phase {number}: method")
        name = draft.pop("name", draft["method"])
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", str(name)):
            raise UserError(f"{where}: the phase's name {name!r} is no name for a folder.")
        if name in drafts:
            raise UserError(f"{where}: two phases are named {name!r}; give one a `name:`.")
        drafts[name] = draft
    return drafts


def _merged(phase: Mapping[str, Any]) -> dict[str, Any]:
    lines = dict(phase)
    named = lines.pop("recipe", None)
    draft: dict[str, Any] = {} if named is None else read_content(recipe_path(str(named)))
    for name, value in lines.items():
        held = draft.get(name)
        both = isinstance(held, dict) and isinstance(value, dict)
        draft[name] = {**held, **value} if both and held else value
    return draft


def _shared(content: Mapping[str, Any], draft: Mapping[str, Any]) -> dict[str, Any]:
    """The curriculum's data or bench, for a phase that names none."""
    source = "bench" if METHODS[draft["method"]] is RlvrRecipe else "data"
    has_it = draft.get(source) is not None or content.get(source) is None
    return {} if has_it else {source: content[source]}


def _refuse_places(names: Iterable[str], where: str) -> None:
    for name in names:
        if name in {"model", "output"}:
            raise UserError(
                f"{where}: a phase has no {name} of its own; it starts from the last one's final/ "
                "and lies in the curriculum's output."
            )
