"""SWE-smith's procedural modifiers for Python, as operators of one edit each.

A modifier of the package ``swesmith`` visits a function with LibCST and asks ``flip()`` at every
place that it could change. Here that answer is True at one place only: one edit, and each of them
can be had. Its conditions (a loop, a complexity of at least 3) are kept. ``func_pm_class_shuffle_
funcs`` is left out, as the order of methods changes no behaviour.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from srl_swe.extras import need_packages
from srl_swe.generation.code import Definition
from srl_swe.generation.operators import Replacement

_LEFT_OUT = {"func_pm_class_shuffle_funcs"}
_BLOCK = "match 0:\n case 0:\n"
"""Makes an indented definition a module without a change of its text; no modifier changes it."""
_TRIES = 4
"""Of one place: a modifier that draws an operator may draw the one that is there."""


@dataclass(frozen=True, slots=True)
class Modifier:
    """One of SWE-smith's modifiers under its own name."""

    name: str
    make: Callable[[], Any]

    def applies(self, definition: Definition) -> bool:
        """Whether SWE-smith would try this modifier on a definition; cheap."""
        return bool(self.make().can_change(_entity(definition)))

    def replacements(self, definition: Definition, rng: random.Random) -> Iterator[Replacement]:
        """Its single edits of one definition, in random order."""
        if not self.applies(definition) or not (entity := _entity(definition)).src_code:
            return
        nowhere = _Flips(-1)
        self._modify(entity, nowhere, rng)
        places = list(range(nowhere.asked))
        rng.shuffle(places)
        for place in places:
            seed = rng.random()
            for attempt in range(_TRIES):
                draws = random.Random(f"{seed} {attempt}")
                rewrite = self._modify(entity, _Flips(place), draws)
                if rewrite is not None and rewrite != entity.src_code:
                    yield _replacement(definition, entity.src_code, rewrite)
                    break

    def _modify(self, entity: Any, flips: _Flips, rng: random.Random) -> str | None:
        modifier = self.make()
        modifier.max_attempts, modifier.flip, modifier.rand = 1, flips, rng
        bug = modifier.modify(entity)
        return None if bug is None else str(bug.rewrite)


class _Flips:
    """Stands for a modifier's ``flip``: True at the place of this number only."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked - 1 == self.place


def swe_smith_modifiers() -> list[Modifier]:
    """SWE-smith's modifiers by name. Raises UserError if the extra ``generate`` is missing."""
    need_packages("generating bugs", ("swesmith", "libcst", "tree_sitter", "astor"))
    from swesmith.bug_gen.procedural.python import MODIFIERS_PYTHON
    from swesmith.bug_gen.procedural.python.operations import OperationFlipOperatorModifier

    classes = {type(one) for one in MODIFIERS_PYTHON} | {OperationFlipOperatorModifier}
    made = [Modifier(one.name, one) for one in classes if one.name not in _LEFT_OUT]
    return sorted(made, key=lambda modifier: modifier.name)


@lru_cache(maxsize=4096)
def _entity(definition: Definition) -> Any:
    """SWE-smith's record of a definition; ``src_code`` is empty if LibCST can't take it."""
    from swesmith.bug_gen.adapters.python import PythonEntity

    node = definition.node
    lines = definition.file.lines[node.lineno - 1 : definition.last_line]
    source = "\n".join(lines)
    indented = re.match(r"[ \t]*", source)
    assert indented is not None
    is_alone = node.col_offset == len(indented.group()) and "\t" not in indented.group()
    ends = definition.file.span(node)[1]
    is_alone = is_alone and definition.file.text[ends:].split("\n", 1)[0].strip() == ""
    block = _BLOCK if node.col_offset else ""
    return PythonEntity(
        file_path=definition.file.path,
        indent_level=0,
        indent_size=4,
        line_start=node.lineno,
        line_end=definition.last_line,
        node=node,
        src_code=block + source if is_alone and not isinstance(node, ast.AsyncFunctionDef) else "",
    )


def _replacement(definition: Definition, before: str, after: str) -> Replacement:
    """The smallest replacement in the file that has the effect of a rewritten definition."""
    start = definition.file.offset(definition.node.lineno)
    if before.startswith(_BLOCK):
        before, after = before[len(_BLOCK) :], after[len(_BLOCK) :]
    first = 0
    while first < min(len(before), len(after)) and before[first] == after[first]:
        first += 1
    last = 0
    while last < min(len(before), len(after)) - first and before[-1 - last] == after[-1 - last]:
        last += 1
    return start + first, start + len(before) - last, after[first : len(after) - last]
