"""Reads recipes and curricula: a YAML file, overridden by fields of the command line.

Every mistake is a UserError of one line. Our own fields are checked before TRL's, which import
torch.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from srl_swe.errors import UserError, did_you_mean
from srl_swe.rollout.weights import check_folder
from srl_swe.steps.rows import check_data_folder
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
    field_of,
    shown,
    unknown_field,
)
from srl_swe.trajectories.fields import parse_yaml

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
    "trust_remote_code": "no code of a model's repository runs here",
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
    if Path(name).is_file():
        raise UserError(f"{name}: a recipe's file ends in .yaml or .yml; rename it.")
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
        content = parse_yaml(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"no recipe at {path} ({error.strerror}).") from None
    except ValueError as error:
        reason = str(error).removeprefix("not YAML: ")
        raise UserError(f"{path} is not YAML: {reason}.") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is not a recipe: it must hold `method:`, `model:`, `data:` and so on."
        )
    return content


CheckFirst = Callable[[Sequence[Recipe]], None]
"""Checks the recipes of a run, one per phase, before TRL is imported, which takes seconds."""


def load_recipe(
    path: Path, overrides: Overrides | None = None, check_first: CheckFirst | None = None
) -> Recipe:
    """Load the recipe in the file, with ``overrides`` applied.

    An override is named by its field (``model``), by a dotted path (``rewards.exact``,
    ``trainer.seed``) or by the bare name of a field of TRL (``learning_rate``, ``lora_r``).
    Raises UserError for an unknown or missing field and for a wrong value.
    """
    draft = _draft(read_content(path), overrides or {}, str(path))
    if check_first is not None:
        check_first([draft.recipe])
    return draft.finished()


def _draft(content: Mapping[str, Any], overrides: Overrides, where: str) -> _Draft:
    """Check all that can be checked without TRL: our own fields, and the names of TRL's."""
    lines = dict(content)
    method = lines.pop("method", None)
    if method == "curriculum":
        raise UserError(f"{where} is a curriculum: run it by `srl-swe train curriculum`.")
    recipe_type = METHODS[_one_of(method, METHODS, f"{where}: method")]
    ours, hints, of_trl = field_names(recipe_type), get_type_hints(recipe_type), dict[str, Any]()
    for key, given in overrides.items():
        words = [given] if isinstance(given, str) else list(given)
        section, _, name = key.rpartition(".")
        if section in TRL_SECTIONS or not (section or name in ours):
            of_trl[key] = words
            continue
        if (first := key.partition(".")[0]) not in ours:
            raise unknown_field(first, ours, "command line")
        # a custom reward has dots of its own: rewards.my_package.my_module:my_reward
        path = key.split(".", 1 if key.startswith("rewards.") else -1)
        _put(lines, path, _one_value(key, words, hints.get(key)))
    recipe: Recipe = check(recipe_type, lines, where)
    sections = [(name, field) for name in TRL_SECTIONS for field in getattr(recipe, name)]
    if not (sections or of_trl):
        return _Draft(recipe, {}, where)
    names = trl_names(recipe_type)
    for section, name in sections:
        if name not in names[section]:
            raise unknown_field(name, names[section], f"{where}: {section}")
    options = {(key, *_place(key, names, ours)): words for key, words in of_trl.items()}
    for section, name in [*sections, *(place[1:] for place in options)]:
        if name in NOT_TRLS:
            raise UserError(
                f"{where}: {section}: {name} is not for this section; {NOT_TRLS[name]}."
            )
    return _Draft(recipe, options, where)


_OF_METHODS = {"data": "sft and srl; rlvr takes --bench", "bench": "rlvr; sft and srl take --data"}


def _place(key: str, names: Mapping[str, Sequence[str]], ours: Sequence[str]) -> tuple[str, str]:
    """The section and the field of TRL that an option sets. Raises UserError for neither."""
    asked, _, option = key.rpartition(".")
    for section in [asked] if asked else TRL_SECTIONS:
        if name := field_of(option, names[section]):
            return section, name
    known = [name for section in TRL_SECTIONS for name in names[section]]
    if key in _OF_METHODS and key not in ours:
        raise UserError(f"--{key} is for {_OF_METHODS[key]}.")
    raise unknown_field(option, [*ours, *known], "command line")


@dataclass(frozen=True, slots=True)
class _Draft:
    """A recipe with every name checked, and TRL's values as they were written.

    ``options``: the words of an option by its key, section and field.
    """

    recipe: Recipe
    options: Mapping[tuple[str, str, str], list[str]]
    where: str

    def finished(self) -> Recipe:
        """Convert TRL's values by its own parser."""
        sections = {name: getattr(self.recipe, name) for name in TRL_SECTIONS}
        if not (self.options or any(sections.values())):
            return self.recipe
        fields = trl_fields(type(self.recipe))
        made: dict[str, Any] = {
            name: fields[name].section(held, f"{self.where}: {name}")
            for name, held in sections.items()
        }
        for (key, section, name), words in self.options.items():
            option = key.rpartition(".")[2]
            made[section][name] = fields[section].read(option, words, f"--{key}")
        return dataclasses.replace(self.recipe, **made)


def trl_names(recipe_type: RecipeType) -> dict[str, list[str]]:
    """Return the names of TRL's fields by recipe section.

    They are read from the source of its dataclasses, as importing it takes seconds.
    """
    shared = ("trl/trainer/base_config.py", "transformers/training_args.py")
    method = "sft" if recipe_type is SftRecipe else "grpo"
    declared_in = {
        "trainer": (f"trl/trainer/{method}_config.py", *shared),
        "model_config": ("trl/trainer/model_config.py",),
    }
    return {
        section: list(dict.fromkeys(name for path in paths for name in _declared_fields(path)))
        for section, paths in declared_in.items()
    }


def _declared_fields(path: str) -> list[str]:
    package, _, file = path.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return re.findall(
        r"^    ([a-z]\w*): ", (Path(spec.origin).parent / file).read_text("utf-8"), re.M
    )


def trl_fields(recipe_type: RecipeType) -> dict[str, TrlFields]:
    """Return the fields of TRL's dataclasses by recipe section."""
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.model_config import ModelConfig
    from trl.trainer.sft_config import SFTConfig

    from srl_swe.training.trl_config import TrlFields

    trainer: type[Any] = SFTConfig if recipe_type is SftRecipe else GRPOConfig
    return {"trainer": TrlFields(trainer), "model_config": TrlFields(ModelConfig)}


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
        return parse_yaml(words[0])
    except ValueError:
        raise UserError(f"the value of {key}, {words[0]!r}, is not YAML.") from None


def _one_of(value: Any, allowed: Iterable[str], where: str) -> str:
    allowed = list(allowed)
    if value not in allowed:
        raise UserError(f"{where} is {shown(value)}; it must be one of {', '.join(allowed)}.")
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


def load_curriculum(
    path: Path, overrides: Overrides | None = None, check_first: CheckFirst | None = None
) -> CurriculumRecipe:
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
    file = check(CurriculumFile, content, where)
    drafts = dict(_phases(file, of_phases, where))
    if check_first is not None:
        check_first([draft.recipe for draft in drafts.values()])
    phases = tuple(Phase(name, draft.finished()) for name, draft in drafts.items())
    return CurriculumRecipe(phases, file.output)


def _phases(
    file: CurriculumFile, overrides: Mapping[str, Overrides], where: str
) -> Iterator[tuple[str, _Draft]]:
    """The folder and the draft of each phase; its model is the policy of the previous one."""
    contents = _phase_contents(file.phases, where)
    model = file.model or next(iter(contents.values())).get("model")
    if model is None:
        raise UserError(f"{where}: model is not set; write `model: ...` or give --model.")
    for name in overrides:
        _one_of(name, contents, f"{where}: the phase of --phases.{name}")
    for number, (name, content) in enumerate(contents.items(), start=1):
        changes, place = overrides.get(name, {}), f"{where}: phases.{name}"
        _refuse_places(changes, place)
        source = "bench" if METHODS[content["method"]] is RlvrRecipe else "data"
        if content.get(source) is None and (shared := getattr(file, source)) is not None:
            content[source] = shared
        folder = f"{number:02}-{name}"
        output = f"{file.output}/{folder}"
        yield folder, _draft({**content, "model": model, "output": output}, changes, place)
        model = f"{output}/final"


def _phase_contents(phases: Iterable[Mapping[str, Any]], where: str) -> dict[str, dict[str, Any]]:
    """Merge the lines of each phase into those of its base recipe; returned by phase name."""
    contents: dict[str, dict[str, Any]] = {}
    for number, phase in enumerate(phases, start=1):
        place, lines = f"{where}: phase {number}", dict(phase)
        _refuse_places(phase, place)
        recipe = lines.pop("recipe", None)
        content = {} if recipe is None else read_content(recipe_path(str(recipe)))
        for field, value in lines.items():
            held = content.get(field)
            is_section = field != "rewards" and isinstance(held, dict) and isinstance(value, dict)
            content[field] = {**held, **value} if is_section and held else value
        _one_of(content.get("method"), METHODS, f"{place}: method")
        name = str(content.pop("name", content["method"]))
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise UserError(f"{where}: the phase's name {name!r} can't name a folder.")
        if name in contents:
            raise UserError(f"{where}: two phases are named {name!r}; give one a `name:`.")
        contents[name] = content
    return contents


def _refuse_places(names: Iterable[str], where: str) -> None:
    for name in names:
        if name in {"model", "output"}:
            raise UserError(
                f"{where}: a phase has no {name} of its own; it starts from the previous phase's "
                "final/ and lies in the curriculum's output."
            )


def check_places(recipes: Sequence[Recipe]) -> None:
    """Raise UserError if a local model or a folder of step contexts of the recipes is missing.

    Neither torch nor ``datasets`` is imported, and names on the hub are left to it. A model that
    an earlier recipe trains need not exist, nor one of a finished run.
    """
    trained = {f"{recipe.output}/final" for recipe in recipes}
    for recipe in recipes:
        if recipe.model not in trained and not (Path(recipe.output) / "final").is_dir():
            check_folder(recipe.model)
        if not isinstance(recipe, RlvrRecipe):
            check_data_folder(Path(recipe.data))
        if recipe.validation and recipe.validation.data:
            check_data_folder(Path(recipe.validation.data))
