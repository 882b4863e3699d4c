"""Problems made by a program: exact, repeatable, and in one split each."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from srl_swe.dialects.text_steps import split_solution
from srl_swe.domains import MATH
from srl_swe.domains.worked import last_boxed
from srl_swe.errors import UserError
from srl_swe.experiments.made_problems import LARGEST, LEVELS, MadeProblem, Split, make_problems

SPLITS: tuple[Split, ...] = ("train", "validation", "held_out")


def made(level: int, split: Split = "train", count: int = 60, seed: int = 0) -> list[MadeProblem]:
    return list(make_problems(level, count, split, seed))


def value(text: str, start: int = 0) -> int:
    """The value of an expression of numbers, a, b, + - * and brackets, which a test wrote."""
    assert re.fullmatch(r"[\dab +*()-]+", text)
    return int(eval(text, {"__builtins__": {}}, {"a": start, "b": start}))


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_answers_are_right_in_every_form(level: int) -> None:
    forms = set()
    for problem in made(level):
        forms.add(problem.form)
        text = problem.problem
        answer = tuple(map(int, re.findall(r"\d+", problem.answer)))
        match problem.form:
            case "expression":
                sides = re.fullmatch(r"Let a = (.+) and b = (.+)\. What are a and b\?", text)
                assert tuple(map(value, sides.groups())) == answer
            case "equation":
                sides = re.fullmatch(r"Solve (.+) = (\d+) and (.+) = (\d+)\.", text).groups()
                assert (value(sides[0], answer[0]), value(sides[2], answer[1])) == (
                    int(sides[1]),
                    int(sides[3]),
                )
            case "told":
                start, *parts = text.removesuffix(" What are a and b?").split(". ")
                starts = re.fullmatch(r"Start with a = (\d+) and b = (\d+)", start).groups()
                results = dict(zip("ab", map(int, starts), strict=True))
                for part in parts:
                    word = part.split()[0]
                    number, name = int(re.search(r"\d+", part)[0]), re.search(r"\b[ab]\b", part)[0]
                    results[name] = {
                        "Add": results[name] + number,
                        "Subtract": results[name] - number,
                        "Multiply": results[name] * number,
                    }[word]
                assert tuple(results.values()) == answer
    assert forms == {"told", "expression", "equation"}


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_a_solution_is_a_titled_step_per_operation_and_the_answer(level: int) -> None:
    for problem in made(level, count=30):
        split = split_solution(problem.solution)
        assert split.form == "titled"
        assert len(split.steps) == LEVELS[level].operations + 1
        assert last_boxed(problem.solution) == problem.answer
        for step in split.steps[:-1]:
            left, right = re.fullmatch(
                r"[ab]: (.+) = (\d+)\.", step.text.splitlines()[1].strip()
            ).groups()
            assert eval(left) == int(right)


def test_slips_make_operations_wrong_by_the_share_and_later_steps_go_on_from_them() -> None:
    errors = []
    pairs = zip(made(2), make_problems(2, 60, "train", slips=0.75), strict=True)
    for right, slipped in pairs:
        assert slipped.problem == right.problem
        values: dict[str, int] = {}
        for name, before, sign, number, after in re.findall(
            r"([ab]): (\d+) ([+-]) (\d+) = (\d+)\.", slipped.solution
        ):
            assert values.get(name, int(before)) == int(before)
            values[name] = int(after)
            result = int(before) + int(f"{sign}{number}")
            if 0 <= result <= LARGEST - 6:  # others are cut off
                errors.append(int(after) - result)
        assert slipped.answer == f"({values['a']}, {values['b']})"
    assert sum(map(bool, errors)) / len(errors) == pytest.approx(0.75, abs=0.08)
    assert set(errors) == {0, 4, 5, 6}


def test_the_same_arguments_make_the_same_problems_and_other_seeds_others() -> None:
    assert made(2) == made(2)
    assert made(2) != made(2, seed=1)
    assert made(2, count=10) == made(2)[:10]
    assert len({problem.problem for problem in made(0)}) == 60


@pytest.mark.slow
def test_a_split_that_is_used_up_is_an_error() -> None:
    with pytest.raises(UserError, match="level 0 has few more than"):
        made(0, "held_out", count=100_000)


def test_no_problem_is_in_two_splits_whatever_the_seeds() -> None:
    texts = {
        split: {p.problem for seed in range(4) for p in made(0, split, seed=seed)}
        for split in SPLITS
    }
    for split in SPLITS:
        others = set[str]().union(*(texts[other] for other in SPLITS if other != split))
        assert not texts[split] & others


def test_the_domain_reads_them_as_correct_solutions_and_as_problems(tmp_path: Path) -> None:
    path = tmp_path / "made.jsonl"
    rows = [dataclasses.asdict(problem) for problem in made(1, count=9)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    solutions = [MATH.reader({"id": "id"}).read(row, "row") for row in rows]
    assert all(solution.resolved for solution in solutions)
    assert [solution.instance_id for solution in solutions] == [row["id"] for row in rows]
    problems = MATH.load_problems(str(path))
    verify = MATH.verifier()
    verdicts = [verify(p, row["answer"]).outcome for p, row in zip(problems, rows, strict=True)]
    assert set(verdicts) == {"resolved"}
