"""Candidate bugs of a small source: valid, minimal, without tests, and the same everywhere."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from unidiff import PatchSet

from srl_swe.errors import UserError
from srl_swe.generation.bugs import MAX_CHANGED_LINES, Bug, propose_bugs
from srl_swe.generation.code import CodeFile, is_other_code, is_test
from srl_swe.generation.operators import own_operators
from srl_swe.generation.repositories import Source
from srl_swe.git import is_clean, make_repository

for package in ("swesmith", "libcst", "tree_sitter", "astor"):
    pytest.importorskip(package, reason="needs the extra `generate`")

from srl_swe.generation.swe_smith import swe_smith_modifiers

MakeSource = Callable[..., Source]

COUNTER = '''\
"""Counts words."""

from collections import Counter


class Words:
    """The words of some texts."""

    def __init__(self, texts, lower=True):
        self.counts = Counter()
        for text in texts:
            self.add(text.lower() if lower else text)

    def add(self, text, minimum=1):
        """Count the words of a text.

        Short ones are left out.
        """
        words = text.split(",")[1:]
        for word in words:
            # a comment that stays
            if len(word) < minimum or not word:
                continue
            self.counts[word] += 1
        return list(words)

    def most(self, number, default=None):
        if number > len(self.counts) and default is not None:
            return default
        ranked = sorted(self.counts, key=self.counts.get, reverse=True)
        return ranked[:number]
'''
MATHS = """\
def mean(values, start=0):
    total = start
    for index, value in enumerate(values):
        total += value * 2 - index
        if value is None:
            raise ValueError("no value", index)
    return total / len(values) + 1 if values else 0


def clamp(value, low, high):
    if value < low:
        return low
    elif value > high:
        return high
    else:
        value = max(value, low + 1)
    return min(value, high)
"""
FILES = {"words/__init__.py": COUNTER, "words/maths.py": MATHS}
MANY = 80


@pytest.fixture(scope="session")
def make_source(tmp_path_factory: pytest.TempPathFactory) -> MakeSource:
    """Makes a source of files by path; ``paths`` are those of its spec."""

    def make(files: Mapping[str, str], paths: tuple[str, ...] = (), name: str = "words") -> Source:
        folder = tmp_path_factory.mktemp("source") / name
        as_bytes = {path: (False, text.encode()) for path, text in files.items()}
        commit = make_repository(as_bytes, name, folder)
        return Source(name, str(folder), commit, folder, test="pytest", paths=paths)

    return make


@pytest.fixture(scope="session")
def words(make_source: MakeSource) -> Source:
    """A source of two modules; its other files are tests and set-up."""
    files = {
        "words/__init__.py": COUNTER,
        "words/maths.py": MATHS,
        "words/test_maths.py": MATHS,
        "tests/helpers.py": MATHS,
        "setup.py": MATHS,
    }
    return make_source(files)


@pytest.fixture(scope="session")
def bugs(words: Source) -> list[Bug]:
    return list(propose_bugs(words, count=MANY, seed=3))


def _applied(source: Source, bug: Bug, *options: str) -> None:
    subprocess.run(
        ["git", "apply", *options], cwd=source.folder, input=bug.patch, text=True, check=True
    )


def test_a_small_source_has_bugs_of_many_kinds(words: Source, bugs: list[Bug]) -> None:
    kinds = {operator for bug in bugs for operator in bug.operators}
    known = {one.name for one in (*own_operators(), *swe_smith_modifiers())}
    assert len(bugs) == MANY
    assert kinds <= known
    assert len(kinds) > 20
    assert any(name.startswith("func_pm_") for name in kinds)


@pytest.mark.slow
def test_each_bug_applies_compiles_and_is_undone(words: Source, bugs: list[Bug]) -> None:
    clean = {path: CodeFile(path, text) for path, text in FILES.items()}
    for bug in bugs:
        _applied(words, bug)
        paths = [function.path for function in bug.functions]
        for path in paths:
            buggy = (words.folder / path).read_text()
            compile(buggy, path, "exec")
            assert is_other_code(clean[path], buggy, 1)
        _applied(words, bug, "--reverse")
        assert [file.path for file in PatchSet(bug.patch)] == list(dict.fromkeys(paths))
    assert is_clean(words.folder, words.commit)


def test_changed_lines_are_few_and_within_the_named_functions(bugs: list[Bug]) -> None:
    for bug in bugs:
        places: dict[str, set[int]] = {}
        for one in bug.functions:
            span = set(range(one.first_line, one.last_line + 1))
            places[one.path] = places.get(one.path, set()) | span
        for file in PatchSet(bug.patch):
            removed = [line for hunk in file for line in hunk if line.is_removed]
            added = [line for hunk in file for line in hunk if line.is_added]
            assert {line.source_line_no for line in removed} <= places[file.path]
            assert len(removed) + len(added) <= MAX_CHANGED_LINES * len(bug.operators)
            kept = {line.value for line in removed if line.value.strip().startswith("#")}
            if "func_pm" not in "".join(bug.operators):
                assert not kept  # comments stay


def test_names_are_qualified_and_lines_those_of_the_clean_file(bugs: list[Bug]) -> None:
    found = {
        (one.path, one.name, one.first_line, one.last_line) for b in bugs for one in b.functions
    }
    assert ("words/__init__.py", "Words.add", 14, 25) in found
    assert ("words/maths.py", "clamp", 10, 17) in found


def test_tests_and_set_up_are_never_changed(bugs: list[Bug]) -> None:
    assert {one.path for bug in bugs for one in bug.functions} == set(FILES)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.py", False),
        ("a/latest.py", False),
        ("a/contest/b.py", False),
        ("a/testing.py", False),
        ("a/test_b.py", True),
        ("a/b_test.py", True),
        ("a/tests/b.py", True),
        ("a/testing/b.py", True),
        ("conftest.py", True),
        ("docs/conf.py", True),
        ("a/_tests/util.py", True),
        ("a/unit_tests/helpers.py", True),
    ],
)
def test_which_files_are_tests(path: str, expected: bool) -> None:
    assert is_test(path) == expected


def test_one_or_two_edits_over_one_or_two_files(bugs: list[Bug]) -> None:
    shapes = {(len(bug.operators), len(PatchSet(bug.patch))) for bug in bugs}
    assert shapes == {(1, 1), (2, 1), (2, 2)}


@pytest.mark.slow
def test_a_larger_count_and_another_process_give_the_same_stream(words: Source) -> None:
    program = (
        "import json, sys\n"
        "from dataclasses import asdict\n"
        "from pathlib import Path\n"
        "from srl_swe.generation.bugs import propose_bugs\n"
        "from srl_swe.generation.repositories import Source\n"
        "name, commit, folder = sys.argv[1:]\n"
        "source = Source(name, folder, commit, Path(folder))\n"
        "print(json.dumps([asdict(bug) for bug in propose_bugs(source, count=8, seed=3)]))\n"
    )
    streams = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, words.name, words.commit, str(words.folder)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        streams.append(json.loads(done.stdout))
    here = [json.loads(json.dumps(asdict(bug))) for bug in propose_bugs(words, count=12, seed=3)]
    assert streams[0] == streams[1] == here[:8]


def test_another_seed_gives_another_stream(words: Source) -> None:
    first, second = (
        [bug.bug_id for bug in propose_bugs(words, count=10, seed=seed)] for seed in (1, 2)
    )
    assert first != second


def test_the_place_of_the_checkout_does_not_matter(
    words: Source, make_source: MakeSource, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", str(words.folder), str(elsewhere)], check=True)
    moved = replace(words, folder=elsewhere)
    assert list(propose_bugs(words, count=8, seed=1)) == list(propose_bugs(moved, count=8, seed=1))


def _repeats(values: Iterable[str]) -> int:
    values = list(values)
    return len(values) - len(set(values))


def test_no_near_duplicates(bugs: list[Bug]) -> None:
    assert _repeats(bug.bug_id for bug in bugs) == 0
    assert _repeats(mark for bug in bugs for mark in bug.fingerprints) == 0


def test_paths_limit_where_bugs_are_made(words: Source) -> None:
    some = propose_bugs(replace(words, paths=("words/maths.py",)), count=8, seed=1)
    assert {one.path for bug in some for one in bug.functions} == {"words/maths.py"}


def test_operators_and_second_edits_can_be_chosen(words: Source) -> None:
    names = ["wrong_boundary", "dropped_not"]
    found = list(propose_bugs(words, count=9, seed=1, operators=names, two_edits=0.0))
    assert found
    assert {bug.operators for bug in found} <= {(name,) for name in names}
    with pytest.raises(UserError, match=r"'wrong_bound'\. Did you mean 'wrong_boundary'"):
        next(propose_bugs(words, count=1, seed=1, operators=["wrong_bound"]))


def test_a_source_without_functions_is_refused(make_source: MakeSource) -> None:
    source = make_source({"a.py": "x = 1\n"}, paths=("a.py",))
    with pytest.raises(UserError, match=r"no function to change in a\.py"):
        next(propose_bugs(source, count=1, seed=1))


def test_files_that_can_not_be_read_as_python_are_left_out(make_source: MakeSource) -> None:
    source = make_source(
        {"a.py": MATHS, "broken.py": "def f(:\n", "mac.py": "def f(a):\r    return a + 1\r"}
    )
    found = propose_bugs(source, count=8, seed=1)
    assert {one.path for bug in found for one in bug.functions} == {"a.py"}


class TestSweSmith:
    @pytest.mark.parametrize("modifier", swe_smith_modifiers(), ids=lambda one: one.name)
    def test_edits_are_single_and_undo_no_indentation(self, modifier) -> None:  # type: ignore[no-untyped-def]
        import random

        nested = "class Out:\n    if True:\n" + "".join(
            f"        {line}\n" if line else "\n" for line in (COUNTER + MATHS).split("\n")
        )
        for text in (COUNTER, MATHS, nested):
            code = CodeFile("m.py", text)
            for definition in code.definitions:
                for start, end, new in modifier.replacements(definition, random.Random(1)):
                    ast.parse(text[:start] + new + text[end:])

    def test_flips_at_one_place_only(self) -> None:
        import random

        text = "def f(a, b):\n    if a < b and a:\n        a = a + b\n    return a + b\n"
        (definition,) = CodeFile("m.py", text).definitions
        swap = next(one for one in swe_smith_modifiers() if one.name == "func_pm_op_swap")
        edits = swap.replacements(definition, random.Random(1))
        assert {text[:a] + new + text[b:] for a, b, new in edits} == {
            text.replace("a < b and a", "a and a < b"),
            text.replace("a = a + b", "a = b + a"),
            text.replace("return a + b", "return b + a"),
        }
