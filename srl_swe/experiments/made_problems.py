r"""Problems of arithmetic and of linear equations, made by a program, with titled expert solutions.

A problem has two quantities, a and b, and operations on whole numbers that change them in turn. It
is told as instructions, as two expressions, or as two equations, which are solved by undoing the
operations from the last to the first. Answers are exact: a pair of values, which a guess hardly
ever hits. Levels differ in the number of operations and in the share of those with large numbers.
Solutions with slips get operations wrong at times, for a policy that is to be unsure of them.

Problems are drawn by a seed. A chain of operations belongs to one split by its digest, in every
surface form: the splits have no chain in common, whatever their seeds and sizes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from srl_swe.errors import UserError

Split = Literal["train", "validation", "held_out"]
Form = Literal["told", "expression", "equation"]
Operator = Literal["+", "-", "*"]


@dataclass(frozen=True, slots=True)
class Level:
    """The difficulty of a problem: its number of operations, and the share of large ones.

    Large operations add or subtract one of the numbers ``large``.
    """

    operations: int
    share: float
    large: range


_LARGE, _LARGER = range(6, 12), range(12, 18)
LEVELS = (
    Level(2, 0.0, _LARGE),
    Level(4, 0.0, _LARGE),
    Level(4, 1.0, _LARGE),
    Level(4, 1.0, _LARGER),
)
"""From the easiest: small operations only, then large ones only."""
FORMS: tuple[Form, ...] = ("told", "expression", "equation")
_SHARES: tuple[tuple[Split, int], ...] = (("train", 60), ("validation", 80), ("held_out", 100))
"""The splits, with the upper ends of their shares of all chains in percent."""
LARGEST = 39
"""The largest value of a chain; the smallest is 0."""
_STARTS = range(2, 16)
_NUMBERS: dict[Operator, range] = {"+": range(2, 6), "-": range(2, 6), "*": range(2, 4)}
_TOO_MANY = (4, 4, 4, 5, 6)
"""Errors of slips, each as often as another: never too few, or two of them could cancel out.

They are larger than a policy's own errors, most of which are of 1 and would cancel small slips.
"""
_MOST_IN_VAIN = 1000
"""Draws without a new problem of the split, after which there are hardly any more."""
_TITLES = {
    "+": "Add {number} to {name}",
    "-": "Subtract {number} from {name}",
    "*": "Multiply {name} by {number}",
    "/": "Divide {name} by {number}",
}
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


Starts = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Change:
    """One step: a quantity's values before and after an operation, or its inverse (``undone``)."""

    name: str
    operation: Operation
    before: int
    after: int
    inverse: bool = False

    @property
    def undone(self) -> Change:
        """The step back."""
        return Change(self.name, self.operation, self.after, self.before, inverse=True)

    @property
    def operator(self) -> str:
        """As it is written."""
        operator = self.operation.operator
        return _UNDOING[operator] if self.inverse else operator

    @property
    def title(self) -> str:
        """The step in words."""
        return _TITLES[self.operator].format(number=self.operation.number, name=self.name)

    @property
    def computed(self) -> str:
        """The left side of its equation."""
        return f"{self.before} {self.operator} {self.operation.number}"

    @property
    def equation(self) -> str:
        """The step in numbers."""
        return f"{self.computed} = {self.after}"


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


def make_problems(
    level: int, count: int, split: Split, seed: int = 0, slips: float = 0.0
) -> Iterator[MadeProblem]:
    r"""Different problems of a level, all forms in turn; the same ones for the same arguments.

    ``level``: from 0, an index of :data:`LEVELS`. ``slips``: the share of operations that a
    solution gets wrong, for levels without multiplication; it goes on from the wrong value, and
    the answer is the one that it arrives at. Raises UserError if the split has fewer.

    >>> (made,) = make_problems(0, 1, "train", seed=1)
    >>> made.form, made.solution.count("**"), made.solution.endswith(f"\\boxed{{{made.answer}}}.")
    ('told', 6, True)
    """
    draw = random.Random(f"{split}/{level}/{seed}")
    slip = _Slips(random.Random(f"slips/{split}/{level}/{seed}"), slips)
    seen: set[str] = set()
    in_vain = 0
    while len(seen) < count:
        if (in_vain := in_vain + 1) > _MOST_IN_VAIN:
            raise UserError(f"level {level} has few more than {len(seen)} problems in {split}.")
        starts, chain = _draw_chain(draw, LEVELS[level])
        key = _key(starts, chain)
        if key in seen or split_of(key) != split:
            continue
        form, in_vain = FORMS[len(seen) % len(FORMS)], 0
        seen.add(key)
        yield _write(starts, chain, form, level, key, slip)


def split_of(chain: str) -> Split:
    """The only split that holds the chain, such as ``7 4 + 5 * 3``, by its digest."""
    percent = int.from_bytes(hashlib.sha256(chain.encode()).digest()[:4], "big") % 100
    return next(split for split, end in _SHARES if percent < end)


def _draw_chain(draw: random.Random, level: Level) -> tuple[Starts, list[Operation]]:
    """Starts of a and b, and operations on them in turn; values stay from 0 to :data:`LARGEST`.

    None undoes the one before on the same quantity.
    """
    starts = (draw.choice(_STARTS), draw.choice(_STARTS))
    values, chain = list(starts), list[Operation]()
    while len(chain) < level.operations:
        large = draw.random() < level.share
        operator: Operator = draw.choice(("+", "-") if large else ("+", "-", "*"))
        operation = Operation(operator, draw.choice(level.large if large else _NUMBERS[operator]))
        turn = len(chain) % 2
        undoes = len(chain) > 1 and _undoes(operation, chain[-2])
        if not undoes and 0 <= operation.on(values[turn]) <= LARGEST:
            chain.append(operation)
            values[turn] = operation.on(values[turn])
    return starts, chain


def _undoes(operation: Operation, before: Operation) -> bool:
    return operation.number == before.number and {operation.operator, before.operator} == {"+", "-"}


def _key(starts: Starts, chain: Sequence[Operation]) -> str:
    return " ".join([*map(str, starts), *(f"{step.operator} {step.number}" for step in chain)])


def _changes(starts: Starts, chain: Sequence[Operation]) -> list[Change]:
    """Each operation with the quantity that it changes, and its values before and after."""
    values, changes = list(starts), []
    for number, step in enumerate(chain):
        turn = number % 2
        after = step.on(values[turn])
        changes.append(Change("ab"[turn], step, values[turn], after))
        values[turn] = after
    return changes


@dataclass(frozen=True, slots=True)
class _Slips:
    """Errors of a hasty solver. ``share``: of additions and subtractions that are wrong."""

    draw: random.Random
    share: float

    def compute(self, changes: Sequence[Change]) -> Iterator[Change]:
        """The changes as the solver computes them, each from the value found before."""
        values: dict[str, int] = {}
        for change in changes:
            before, number = values.get(change.name, change.before), change.operation.number
            right = before + number if change.operator == "+" else before - number
            wrong = self.draw.random() < self.share
            after = min(max(right + wrong * self.draw.choice(_TOO_MANY), 0), LARGEST)
            values[change.name] = after
            yield replace(change, before=before, after=after)


def _write(
    starts: Starts, chain: Sequence[Operation], form: Form, level: int, key: str, slips: _Slips
) -> MadeProblem:
    changes = _changes(starts, chain)
    ends = tuple(changes[place].after for place in sorted((-2, -1), key=lambda p: changes[p].name))
    halves = (chain[0::2], chain[1::2])
    match form:
        case "told":
            told = " ".join(f"{change.title}." for change in changes)
            problem = f"Start with a = {starts[0]} and b = {starts[1]}. {told} What are a and b?"
        case "expression":
            first, second = map(_expression, map(str, starts), halves)
            problem = f"Let a = {first} and b = {second}. What are a and b?"
        case "equation":
            first, second = map(_expression, "ab", halves)
            problem = f"Solve {first} = {ends[0]} and {second} = {ends[1]}."
    if form == "equation":
        changes = [change.undone for change in reversed(changes)]
    if slips.share:
        changes = list(slips.compute(changes))
    found = {change.name: change.after for change in changes}
    answer = f"({found['a']}, {found['b']})"
    steps = [(change.title, f"{change.name}: {change.equation}.") for change in changes]
    steps.append(("Answer", f"The answer is \\boxed{{{answer}}}."))
    numbered = (f"{n}. **{title}**\n   {text}" for n, (title, text) in enumerate(steps, start=1))
    known_by = f"made-{hashlib.sha256(f'{form} {key}'.encode()).hexdigest()[:12]}"
    thoughts = (*(f"Compute {change.computed}." for change in changes), "Give the result.")
    return MadeProblem(problem, "\n\n".join(numbered), answer, level, form, known_by, thoughts)


def _expression(start: str, chain: Sequence[Operation]) -> str:
    """The chain as an expression; a sum that is multiplied stands in brackets."""
    text, is_sum = start, False
    for step in chain:
        if step.operator == "*" and is_sum:
            text = f"({text})"
        text, is_sum = f"{text} {step.operator} {step.number}", step.operator != "*"
    return text
