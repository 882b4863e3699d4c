"""Reads a curriculum: recipes in a row, each of which may start from one that ships.

method: curriculum
model: ...                   what the first phase starts from
data: ...                    step contexts of the phases that name none
bench: ...                   instances of the phases that name none
output: ...                  a folder; phases lie in 01-NAME/, 02-NAME/ and so on
phases:
  - recipe: srl-paper        a recipe to start from, if any; the lines below change it
    name: srl                the method if it is not given
    trainer: {...}
  - {method: rlvr, trainer: {...}}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from srl_swe.errors import UserError
from srl_swe.training.recipes.fields import one_of, refuse_unknown
from srl_swe.training.recipes.loading import Overrides, make_recipe, read_content
from srl_swe.training.recipes.records import METHODS, CurriculumRecipe, Phase, RlvrRecipe
from srl_swe.training.train import recipe_path

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
    return _build(content, of_phases, where)


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


def _build(
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
