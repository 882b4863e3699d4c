"""Answers: read from replies, compared by math-verify in processes that can be ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from srl_swe.domains import MATH, Problem, answer_check
from srl_swe.domains.answer_check import AnswerCheck, AnswerTimeout
from srl_swe.domains.worked import last_boxed, same_text
from srl_swe.types import Outcome

SAME = [
    # numbers
    ("25", "25"),
    ("25", "025"),
    ("25", "25.0"),
    ("1000", "1,000"),
    ("-3", "- 3"),
    ("0.5", ".5"),
    ("1.07e16", r"1.07 \times 10^{16}"),
    ("2.88e-19", "2.88E-19"),
    ("4.49", "4.49"),
    # fractions, roots, constants
    ("1/2", r"\frac{1}{2}"),
    (r"\frac{1}{2}", r"\dfrac12"),
    (r"\frac{1}{2}", "0.5"),
    (r"-\frac{2}{3}", r"\frac{-2}{3}"),
    (r"2\sqrt{2}", r"\sqrt{8}"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
    (r"\frac{\pi}{3}", r"\pi/3"),
    (r"2^{10}", "1024"),
    (r"\log_2 8", "3"),
    (r"1+\sqrt{3}i", r"1+\sqrt{3} i"),
    # units
    ("10", r"10 \mathrm{~cm}"),
    (r"5\text{ miles}", "5"),
    (r"90^\circ", "90"),
    ("18", r"\$18"),
    (r"12\%", r"12\%"),
    (r"12\%", "0.12"),
    # expressions and equations
    ("(x+1)^2", "x^2+2x+1"),
    ("x(x+1)", "x^2 + x"),
    ("x=3", "3"),
    ("y=2x+1", "y = 1 + 2x"),
    # sets, tuples, intervals, matrices
    (r"\{1,2,3\}", r"\{3, 2, 1\}"),
    ("1,2", "2,1"),
    ("(1,2)", r"\left(1, 2\right)"),
    ("(1,2]", "(1, 2]"),
    (r"(-\infty, 3)", r"(-\infty,3)"),
    (r"[0,1] \cup [2,3]", r"[0,1]\cup[2,3]"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
    # text
    ("east", r"\text{east}"),
    (r"\text{Tuesday}", "Tuesday."),
    (r"\text{(B)}", "(B)"),
    ("A", r"\text{A}"),
    ("xy - x", "x(y-1)"),
]
DIFFERENT = [
    ("25", "26"),
    ("25", "-25"),
    ("0.333", r"\frac{1}{3}"),
    ("1.07e16", "1.07e15"),
    (r"\frac{1}{2}", r"\frac{2}{1}"),
    (r"\sqrt{2}", "1.4"),
    (r"\pi", "3.14"),
    ("1+2i", "1-2i"),
    ("x^2+1", "x^2-1"),
    ("x=3", "x=4"),
    (r"\{1,2,3\}", r"\{1,2\}"),
    ("(2,3)", "(3,2)"),
    ("[1,2]", "(1,2)"),
    ("(1,2]", "[1,2)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    ("east", "seat"),
    (r"\text{even}", "odd"),
    ("A", "B"),
    ("Tuesday", "7"),
    ("25", ""),
    (r"1\frac{2}{3}", "12/3"),
    ("1 2/3", "12/3"),
]
HANGS = "9^{9^{9^{9^{9}}}} + \\frac{1}{9^{9^{9^{9}}}}"


@pytest.fixture(scope="module")
def check() -> AnswerCheck:
    pytest.importorskip("math_verify", reason="needs the extra `math`")
    return AnswerCheck(timeout_s=3.0)


def test_the_table_is_whole() -> None:
    assert len(SAME) + len(DIFFERENT) == 63


@pytest.mark.parametrize(("expected", "given"), SAME)
def test_equal_answers_in_different_words_are_the_same(
    check: AnswerCheck, expected: str, given: str
) -> None:
    assert check(expected, given)


@pytest.mark.parametrize(("expected", "given"), DIFFERENT)
def test_different_answers_are_not_the_same(check: AnswerCheck, expected: str, given: str) -> None:
    assert not check(expected, given)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"So \boxed{1}, no: $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{\{1, \{2\}\}}", r"\{1, \{2\}\}"),
        (r"\boxed {7}", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{1} and \boxed{cut", "1"),
        ("It is 7.", None),
        ("\\boxed{" * 20_000, None),
    ],
)
def test_the_answer_is_the_last_box_that_is_closed(reply: str, answer: str | None) -> None:
    assert last_boxed(reply) == answer


@pytest.mark.slow
def test_a_comparison_ends_by_itself_if_its_parent_was_killed() -> None:
    pytest.importorskip("math_verify", reason="needs the extra `math`")
    command = [sys.executable, "-P", answer_check.__file__, "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        child.stdin.write(f'["5", {json.dumps(HANGS)}]\n'.encode())
        child.stdin.flush()  # and it stays open: nothing else ends the child
        assert child.wait(60) == -signal.SIGALRM


def test_a_hanging_comparison_is_ended_and_the_next_one_works() -> None:
    pytest.importorskip("math_verify", reason="needs the extra `math`")
    check = AnswerCheck(timeout_s=3.0)
    before = {*psutil.Process().children()}
    assert check("2", "4/2")
    (child,) = {*psutil.Process().children()} - before
    child.suspend()  # as one that computes without an end
    began = time.monotonic()
    with pytest.raises(AnswerTimeout, match="longer than 3 s"):
        check("2", "6/3")
    assert time.monotonic() - began < 10
    assert not child.is_running()
    assert check("2", "8/4")


@pytest.mark.parametrize("answer", [HANGS, "\\boxed{" * 500, "(" * 1900, "x" * 5000, "{", "\\"])
def test_a_hostile_answer_is_wrong_or_out_of_time(check: AnswerCheck, answer: str) -> None:
    with suppress(AnswerTimeout):
        assert not check("2", answer)
    assert check("2", "4/2"), "the next comparison has a sound process"


def test_a_verdict_names_both_answers_and_a_timeout_is_no_failure_of_infrastructure() -> None:
    problem = Problem("p-1", "s", "", "How many?", "", answer="20")
    verify = MATH.verifier()
    assert verify(problem, "20").outcome is Outcome.RESOLVED
    wrong = verify(problem, "")
    assert (wrong.outcome, wrong.detail) == (Outcome.UNRESOLVED, "no answer in the reply")

    def slow(expected: str, given: str) -> bool:
        raise TimeoutError("longer than 1 s")

    domain = type(MATH)("", "", name="slow", same_answer=slow)
    timed_out = domain.verifier()(problem, "21")
    assert timed_out.outcome is Outcome.TIMED_OUT
    assert timed_out.detail == "longer than 1 s; the reply's answer: 21"
    assert same_text("North  east", "northeast")
