from __future__ import annotations

import random
from dataclasses import replace

import pytest

from srl_swe.errors import PolicyError
from srl_swe.generation.bugs import Bug
from srl_swe.generation.issue_text import (
    Secrets,
    Symptom,
    find_leak,
    make_issue,
    symptom_of,
    template_text,
)
from srl_swe.generation.repositories import Source
from srl_swe.generation.validation import Failure

HIDDEN = ("tests/test_sizes.py::test_the_largest_is_found",)
FAILURE = Failure(
    test=HIDDEN[0],
    type="AssertionError",
    message="assert 1 == 3\n +  where 1 = largest([1, 3, 2])",
    statement="    assert largest([1, 3, 2]) == 3",
    before="def test_the_largest_is_found():\n",
)


@pytest.fixture
def bug(bugs: dict[str, Bug]) -> Bug:
    return bugs["kept"]


@pytest.mark.parametrize(
    ("statement", "kind", "message", "call", "expected", "got"),
    [
        ("assert f(1) == 3", "AssertionError", "assert 1 == 3", "f(1)", "`3`", "`1`"),
        ("assert 3 == f(1)", "AssertionError", "assert 3 == 1", "f(1)", "`3`", "`1`"),
        (
            "assert f(x) == g()",
            "AssertionError",
            "assert 'a' == 'b'\n  - b",
            "f(x)",
            "`'b'`",
            "`'a'`",
        ),
        (
            "assert not f(1)",
            "AssertionError",
            "assert not 5",
            "f(1)",
            "a false value",
            "a true value",
        ),
        (
            "assert 2 in f(1)",
            "AssertionError",
            "assert 2 in [1]",
            "2 in f(1)",
            "this to hold",
            "it does not",
        ),
        ("assert f(1) == 3", "TypeError", "no len", "f(1)", "`3`", "TypeError: no len"),
        ("f(1)", "KeyError", "'a'", "f(1)", "no error", "KeyError: 'a'"),
        ("self.assertEqual(self.f(1), 3)", "AssertionError", "1 != 3", "f(1)", "`3`", "`1`"),
        ("assert_equal(expected, f(1))", "AssertionError", "", "f(1)", "`expected`", ""),
        ("np.testing.assert_equal(f(1), g())", "AssertionError", "", "f(1)", "`g()`", ""),
        ("eq_(3, f(1))", "TypeError", "no len", "f(1)", "`3`", "TypeError: no len"),
        (
            "self.assertTrue(f(1))",
            "AssertionError",
            "False is not true",
            "f(1)",
            "a true value",
            "a false value",
        ),
        (
            "self.assertIn(1, f(2), 'a message')",
            "AssertionError",
            "1 not found in []",
            "1 in f(2)",
            "a true value",
            "a false value",
        ),
        (
            "with self.assertRaises(ValueError):\n    self.f(1)",
            "AssertionError",
            "ValueError not raised",
            "f(1)",
            "`ValueError`",
            "no error",
        ),
        (
            "with pytest.raises(ValueError):\n    f(1)",
            "Failed",
            "DID NOT RAISE <class 'ValueError'>",
            "f(1)",
            "`ValueError`",
            "no error",
        ),
        (
            "with raises((KeyError, ValueError)):\n    x = f(1)\n    g(x)",
            "Failed",
            "DID NOT RAISE any of (KeyError, ValueError)",
            "x = f(1)\ng(x)",
            "`(KeyError, ValueError)`",
            "no error",
        ),
        (
            "with pytest.raises(ValueError, match='x'):\n    f(1)",
            "TypeError",
            "no len",
            "f(1)",
            "`ValueError`",
            "TypeError: no len",
        ),
        (
            "assert f(2) == 4, 'should double'",
            "AssertionError",
            "should double\nassert 3 == 4",
            "f(2)",
            "`4`",
            "`3`",
        ),
        ("assert f(2) == 4, 'text'", "AssertionError", "text", "f(2)", "`4`", ""),
    ],
)
def test_the_symptom_is_read_from_the_failing_statement(
    source: Source, statement: str, kind: str, message: str, call: str, expected: str, got: str
) -> None:
    failure = replace(FAILURE, statement=statement, type=kind, message=message)
    assert symptom_of(failure, source) == Symptom(call, expected, got)


def test_addresses_and_scratch_folders_are_left_out(source: Source) -> None:
    message = "assert <Box at 0x7f00> == '/tmp/.srl_swe_suite_ab/scratch/x'"
    failure = replace(FAILURE, message=message, statement="assert f() == g()")
    assert symptom_of(failure, source) == Symptom("f()", "`'/tmp/folder'`", "`<Box>`")


def test_an_issue_shows_the_call_with_its_imports(source: Source, bug: Bug) -> None:
    issue = make_issue(bug, source, [FAILURE], HIDDEN)
    assert issue is not None
    code = issue.text.partition("```python\n")[2].partition("```")[0]
    assert code == "from sizes import largest\n\nlargest([1, 3, 2])\n"
    assert "`3`" in issue.text and "`1`" in issue.text


def test_parameters_are_shown_with_their_values(source: Source, bug: Bug) -> None:
    failure = replace(
        FAILURE,
        test="tests/test_sizes.py::test_shrinking_ends_at_ten[15]",
        statement="    assert shrink(size) <= 10",
        arguments=("size",),
        values=(("size", "15"),),
    )
    symptom = symptom_of(failure, source)
    assert symptom is not None
    assert symptom.set_up == ("from sizes import shrink", "size = 15")
    unknown = symptom_of(replace(failure, values=()), source)
    assert unknown is not None and unknown.set_up == ()


def test_wordings_differ_by_seed_and_repeat_for_one(source: Source) -> None:
    symptom = Symptom("f(1)", "`3`", "`1`")
    texts = [template_text(symptom, source, random.Random(seed)) for seed in range(30)]
    assert len(set(texts)) > 20
    assert texts[7] == template_text(symptom, source, random.Random(7))


@pytest.mark.parametrize(
    "leak",
    [
        "        if found is None or size < found:",  # changed, buggy
        "the line `if found is None or size  >  found:` is wrong",  # changed, clean
        "look at def largest(sizes):\n  found = None\n    for size in sizes:",  # source
        "a wrong_boundary in the code",
        "see test_the_largest_is_found",
        "see tests/test_sizes.py",
        "see test_sizes",
    ],
)
def test_the_leak_check_refuses(source: Source, bug: Bug, leak: str) -> None:
    secrets = Secrets.of(bug, source, HIDDEN)
    assert find_leak(f"# Wrong result\n\n{leak}\n", secrets)


def test_the_leak_check_lets_a_call_and_a_name_pass(source: Source, bug: Bug) -> None:
    text = "# `largest` is wrong\n\n```python\nlargest([1, 3, 2])\n```\n\nExpected 3, got 1.\n"
    assert find_leak(text, Secrets.of(bug, source, HIDDEN)) is None


def test_an_issue_that_can_only_leak_is_not_made(source: Source, bug: Bug) -> None:
    leaking = replace(FAILURE, statement="assert test_sizes.largest([2]) == 2")
    assert make_issue(bug, source, [leaking], HIDDEN) is None


@pytest.mark.parametrize(
    ("answer", "written_by"),
    [
        ("# largest([1, 3, 2]) is 1\n\nIt should be 3, as that is the largest.", "endpoint"),
        ("# Fix test_the_largest_is_found\n\nIt fails, please have a look at it.", "fallback"),
        (PolicyError("gone"), "fallback"),
    ],
)
def test_an_endpoints_text_has_to_pass_the_leak_check_too(
    source: Source, bug: Bug, answer: str | PolicyError, written_by: str
) -> None:
    def write(_: object) -> str:
        if isinstance(answer, PolicyError):
            raise answer
        return answer

    issue = make_issue(bug, source, [FAILURE], HIDDEN, write)
    assert issue is not None and issue.written_by == written_by
    assert (issue.text.strip() == answer) == (written_by == "endpoint")
