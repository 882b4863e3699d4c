"""A family of bugs made by a program: a function's name spells its formula, and its body differs.

``times_4_plus_7`` has to return ``x * 4 + 7``, and one of the three parts is wrong. The functions
that are held out combine parts that a policy has seen in other functions: it can repair them if it
has learned to read the name, and remembers none of them. Each instance adds its module to the
repository of a bundled instance, whose image serves for all.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff

from srl_swe.types import Action, Instance, Step, Trajectory

MODULE, TEST_FILE = "formulas.py", "tests/test_formulas.py"
_FACTORS, _TERMS = range(2, 10), range(1, 10)
_SIGNS = {"plus": "+", "minus": "-"}
_SOUND = 2
"""Other functions of a module, without a bug."""
_EVAL_SCRIPT = """\
#!/bin/bash
set -uxo pipefail
cd {workdir}
git apply -v - <<'EOF_114329324912'
{test_patch}EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA {test_file}
: '>>>>> End Test Output'
rm {test_file}
"""


@dataclass(frozen=True, slots=True)
class Formula:
    """A function of ``x``: ``x * factor + term``, or minus the term."""

    factor: int
    sign: str
    term: int

    @property
    def name(self) -> str:
        """The name that spells it."""
        return f"times_{self.factor}_{self.sign}_{self.term}"

    @property
    def body(self) -> str:
        """The expression that it returns."""
        return f"x * {self.factor} {_SIGNS[self.sign]} {self.term}"

    def value(self, x: int) -> int:
        """Its result."""
        return x * self.factor + (self.term if self.sign == "plus" else -self.term)


def make_bugs(host: Instance, count: int, seed: int = 0) -> list[tuple[Instance, Trajectory]]:
    """Instances, no function twice, with the actions of an expert that no sandbox has executed.

    ``host``: an instance with an image. ``count``: at most 144, the number of functions.
    """
    rng = random.Random(f"formulas {seed}")
    formulas = [Formula(f, sign, term) for f in _FACTORS for sign in _SIGNS for term in _TERMS]
    rng.shuffle(formulas)
    return [_make_bug(host, formula, formulas, rng) for formula in formulas[:count]]


def _make_bug(
    host: Instance, right: Formula, formulas: Sequence[Formula], rng: random.Random
) -> tuple[Instance, Trajectory]:
    parts = ("factor", "sign", "term")
    wrong = rng.choice(
        [f for f in formulas if sum(getattr(f, p) != getattr(right, p) for p in parts) == 1]
    )
    others = rng.sample([formula for formula in formulas if formula != right], _SOUND)
    order = rng.sample([right, *others], 1 + _SOUND)
    sound = _module((formula, formula) for formula in order)
    buggy = _module((formula, wrong if formula == right else formula) for formula in order)
    tests = "from formulas import *\n" + "".join(
        f"\n\ndef test_{each.name}():\n    assert [{each.name}(x) for x in range(4)] == "
        f"{[each.value(x) for x in range(4)]}\n"
        for each in order
    )
    x = rng.randrange(2, 10)
    instance_id, test_patch = f"formulas__{right.name}", _new_file(TEST_FILE, tests)
    script = _EVAL_SCRIPT.format(workdir=host.workdir, test_patch=test_patch, test_file=TEST_FILE)
    instance = replace(
        host,
        instance_id=instance_id,
        base_commit=instance_id,
        problem_statement=f"`{right.name}` returns wrong results\n\n`formulas.{right.name}({x})` "
        f"returns {wrong.value(x)}, and it should return {right.value(x)}.",
        bug_patch=_new_file(MODULE, buggy),
        gold_patch=_diff(MODULE, buggy, sound),
        test_patch=test_patch,
        fail_to_pass=(f"{TEST_FILE}::test_{right.name}",),
        pass_to_pass=tuple(f"{TEST_FILE}::test_{other.name}" for other in others),
        eval_script=script,
    )
    steps = (
        ("I look at the function.", f"grep -n -A 1 'def {right.name}(' {MODULE}"),
        (
            f"The name says times {right.factor} {right.sign} {right.term}.",
            f"sed -i '/def {right.name}(/,+1 s/return .*/return {right.body}/' {MODULE}",
        ),
        (
            "I call it as the issue does.",
            f'python -c "import formulas; print(formulas.{right.name}({x}))"',
        ),
    )
    calls = [Step(thought, Action("bash", {"command": command})) for thought, command in steps]
    calls.append(Step("It is the result that the issue asks for.", Action("submit")))
    return instance, Trajectory(instance_id, tuple(calls), instance.problem_statement)


def _module(functions: Iterable[tuple[Formula, Formula]]) -> str:
    return "\n\n".join(f"def {name.name}(x):\n    return {of.body}\n" for name, of in functions)


def _new_file(path: str, text: str) -> str:
    lines = text.splitlines()
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1,{len(lines)} @@\n" + "".join(f"+{line}\n" for line in lines)


def _diff(path: str, old: str, new: str) -> str:
    lines = unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}"
    )
    return f"diff --git a/{path} b/{path}\n" + "".join(lines)
