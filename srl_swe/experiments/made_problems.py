r"""Problems of arithmetic and of linear equations, made by a program, with titled expert solutions.

A problem is a chain of operations on whole numbers: a start and a number of operations that grows
with the level. It is told as instructions, as an expression, or as an equation for the start, whose
solution undoes the operations from the last to the first. Answers are exact whole numbers.

Problems are drawn by a seed. A chain belongs to one split by its digest, in every surface form: the
splits have no chain in common, whatever their seeds and sizes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from srl_swe.errors import UserError

Split = Literal["train", "validation", "held_out"]
Form = Literal["told", "expression", "equation"]
Operator = Literal["+", "-", "*"]

OPERATIONS = (2, 3, 5, 7)
"""Operations of a problem by level, from 0, the easiest."""
FORMS: tuple[Form, ...] = ("told", "expression", "equation")
_SHARES: tuple[tuple[Split, int], ...] = (("train", 60), ("validation", 80), ("held_out", 100))
"""The splits, with the upper ends of their shares of all chains in percent."""
LARGEST = 59
"""The largest value of a chain; the smallest is 0."""
_STARTS = range(2, 21)
_NUMBERS: dict[Operator, range] = {"+": range(2, 10), "-": range(2, 10), "*": range(2, 4)}
_MOST_IN_VAIN = 1000
"""Draws without a new problem of the split, after which there are hardly any more."""
_NAMES: dict[Operator, str] = {"+": "Add", "-": "Subtract", "*": "Multiply by"}
_INVERSES: dict[Operator, str] = {"+": "Subtract", "-": "Add", "*": "Divide by"}
_UNDOING: dict[Operator, str] = {"+": "-", "-": "+", "*": "/"}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on the value so far."""

    operator: Operator
    number: int

    def on(self, value: int) -> int:
        """The value after it."""
        match self.operator:
            case "+":
                return value + self.number
            case "-":
                return value - self.number
            case "*":
                return value * self.number


@dataclass(frozen=True, slots=True)
class MadeProblem:
    """A problem with its expert's solution, by the columns that the domain ``math`` reads.

    ``thoughts``: one per step of the solution, for a reply that needs one.
    """

    problem: str
    solution: str
    answer: str
    level: int
    form: Form
    id: str
    thoughts: tuple[str, ...]


def make_problems(level: int, count: int, split: Split, seed: int = 0) -> Iterator[MadeProblem]:
    r"""Different problems of a level, all forms in turn; the same ones for the same arguments.

    ``level``: from 0, an index of :data:`OPERATIONS`. Raises UserError if the split has fewer.

    >>> (made,) = make_problems(0, 1, "train", seed=1)
    >>> made.form, made.solution.count("**"), made.solution.endswith(f"\\boxed{{{made.answer}}}.")
    ('told', 6, True)
    """
    draw = random.Random(f"{split}/{level}/{seed}")
    seen: set[str] = set()
    in_vain = 0
    while len(seen) < count:
        if (in_vain := in_vain + 1) > _MOST_IN_VAIN:
            raise UserError(f"level {level} has few more than {len(seen)} problems in {split}.")
        start, chain = _draw_chain(draw, OPERATIONS[level])
        key = _key(start, chain)
        if key in seen or split_of(key) != split:
            continue
        form, in_vain = FORMS[len(seen) % len(FORMS)], 0
        seen.add(key)
        yield _write(start, chain, form, level, key)


def split_of(chain: str) -> Split:
    """The only split that holds the chain, such as ``7 + 5 * 3``, by its digest."""
    percent = int.from_bytes(hashlib.sha256(chain.encode()).digest()[:4], "big") % 100
    return next(split for split, end in _SHARES if percent < end)


def _draw_chain(draw: random.Random, length: int) -> tuple[int, list[Operation]]:
    """A start and operations whose values stay from 0 to 59; none undoes the one before."""
    start = value = draw.choice(_STARTS)
    chain: list[Operation] = []
    while len(chain) < length:
        operator: Operator = draw.choice(("+", "-", "*"))
        operation = Operation(operator, draw.choice(_NUMBERS[operator]))
        undoes = chain and _undoes(operation, chain[-1])
        if not undoes and 0 <= operation.on(value) <= LARGEST:
            chain.append(operation)
            value = operation.on(value)
    return start, chain


def _undoes(operation: Operation, before: Operation) -> bool:
    return operation.number == before.number and {operation.operator, before.operator} == {"+", "-"}


def _key(start: int, chain: Sequence[Operation]) -> str:
    return " ".join([str(start), *(f"{step.operator} {step.number}" for step in chain)])


def _values(start: int, chain: Sequence[Operation]) -> list[int]:
    """The value before each operation, and the last one."""
    values = [start]
    for step in chain:
        values.append(step.on(values[-1]))
    return values


def _write(start: int, chain: Sequence[Operation], form: Form, level: int, key: str) -> MadeProblem:
    values = _values(start, chain)
    match form:
        case "told":
            parts = [f"{_NAMES[step.operator]} {step.number}." for step in chain]
            problem = " ".join([f"Start with {start}.", *parts, "What is the result?"])
        case "expression":
            problem = f"Compute {_expression(str(start), chain)}."
        case "equation":
            problem = f"Solve {_expression('x', chain)} = {values[-1]} for x."
    if form == "equation":
        answer, steps = start, _undoing_steps(values, chain)
    else:
        answer, steps = values[-1], _doing_steps(values, chain)
    thoughts = (*(f"Compute {text.split(' = ')[0]}." for _, text in steps), "Give the result.")
    steps.append(("Answer", f"The answer is \\boxed{{{answer}}}."))
    numbered = (f"{n}. **{title}**\n   {text}" for n, (title, text) in enumerate(steps, start=1))
    known_by = f"made-{hashlib.sha256(f'{form} {key}'.encode()).hexdigest()[:12]}"
    return MadeProblem(problem, "\n\n".join(numbered), str(answer), level, form, known_by, thoughts)


def _doing_steps(values: Sequence[int], chain: Sequence[Operation]) -> list[tuple[str, str]]:
    """Title and text of each operation."""
    return [
        (
            f"{_NAMES[step.operator]} {step.number}",
            f"{before} {step.operator} {step.number} = {after}.",
        )
        for step, before, after in zip(chain, values, values[1:], strict=False)
    ]


def _undoing_steps(values: Sequence[int], chain: Sequence[Operation]) -> list[tuple[str, str]]:
    """Title and text of each operation undone, from the last to the first."""
    backwards = zip(reversed(chain), reversed(values[1:]), reversed(values[:-1]), strict=True)
    return [
        (
            f"{_INVERSES[step.operator]} {step.number}",
            f"{after} {_UNDOING[step.operator]} {step.number} = {before}.",
        )
        for step, after, before in backwards
    ]


def _expression(start: str, chain: Sequence[Operation]) -> str:
    """The chain as an expression; a sum that is multiplied stands in brackets."""
    text, is_sum = start, False
    for step in chain:
        if step.operator == "*" and is_sum:
            text = f"({text})"
        text, is_sum = f"{text} {step.operator} {step.number}", step.operator != "*"
    return text
