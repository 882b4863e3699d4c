from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from srl_swe.engines import SourceEngine
from srl_swe.generation.bugs import Bug, ChangedFunction
from srl_swe.generation.live_code import LiveCode
from srl_swe.generation.repositories import Source
from srl_swe.generation.rows import WORKDIR, repository_image
from srl_swe.generation.suite_server import split_command
from srl_swe.generation.validation import CleanSuite, Reason, SuiteSandbox
from srl_swe.types import Instance

PASSING = ("a", "b", "c", "d")
CLEAN = CleanSuite(
    passing=PASSING,
    flaky=(),
    unnamed=("e[x y]", "f[x y]"),
    functions=(("sizes.py", 4, 9), ("sizes.py", 12, 15), ("sizes.py", 23, 24)),
    calls={"a": (0,), "b": (1,), "c": (0, 1), "d": ()},
    imported=frozenset({2}),
    everywhere=frozenset({"d"}),
    modules=(),
    seconds=1.0,
    limit_s=15.0,
    cpu_s={},
)


def outcomes(*failed: str) -> dict[str, str]:
    return {test: "FAILED" if test in failed else "PASSED" for test in PASSING}


@pytest.mark.parametrize(
    ("changed", "tests"),
    [
        (ChangedFunction("sizes.py", "largest", 4, 9), ["a", "c", "d"]),
        (ChangedFunction("sizes.py", "shrink", 12, 15), ["b", "c", "d"]),
        (ChangedFunction("sizes.py", "unused", 18, 19), ["d"]),
        (ChangedFunction("sizes.py", "Box.__init__", 23, 24), None),
        (ChangedFunction("sizes.py", "Box", 22, 27), None),
    ],
)
def test_tests_that_call_a_changed_function_run_first(
    source: Source, changed: ChangedFunction, tests: list[str] | None
) -> None:
    assert CLEAN.covering([changed], source.folder) == tests


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"refused": "error: patch failed"}, Reason.NOT_APPLIED),
        ({"timeout": True}, Reason.HANGS),
        ({"crashed": "status 11"}, Reason.CRASHES),
        ({"uncollected": 2, "errors": []}, Reason.NOT_COLLECTED),
        ({"runs": {"first": {"ended": "timeout"}}}, Reason.HANGS),
        ({"runs": {"first": {"ended": "status 9"}}}, Reason.CRASHES),
        ({"runs": {"first": {"tests": outcomes()}}}, Reason.NO_TEST_FAILS),
        ({"runs": {"whole": {"tests": outcomes()}}}, Reason.NO_TEST_FAILS),
        ({"runs": {"whole": {"tests": outcomes("a", "b", "c")}}}, Reason.TOO_MANY_FAIL),
        (
            {"runs": {"whole": {"tests": outcomes("a")}, "again": {"tests": outcomes("b")}}},
            Reason.FLAKY,
        ),
    ],
)
def test_reasons_to_drop_a_candidate(answer: dict, reason: Reason) -> None:
    judged = CLEAN.judge("x", answer)
    assert (judged.reason, judged.fail_to_pass) == (reason, ())


def test_failing_tests_without_a_readable_name_are_hidden_too() -> None:
    whole = {"tests": {**outcomes("a"), "e[x y]": "FAILED", "f[x y]": "PASSED"}, "details": {}}
    judged = CLEAN.judge("x", {"runs": {"whole": whole, "again": {"tests": {"a": "FAILED"}}}})
    assert (judged.fail_to_pass, judged.unnamed) == (("a",), ("e[x y]",))


def test_a_test_without_an_outcome_has_failed() -> None:
    judged = CLEAN.decide("x", {"a": "PASSED", "b": "XFAIL", "c": "PASSED"})
    assert (judged.fail_to_pass, judged.pass_to_pass) == (("d",), ("a", "b", "c"))


def test_paths_before_the_test_command_count_from_the_repository(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setenv("PYTHONPATH", "")
    command = "PYTHONPATH=src:lib python3 -m pytest -q"
    assert split_command(command, "/testbed") == (True, ["-q"])
    assert sys.path == ["/testbed/src", "/testbed/lib"]


def test_a_suite_survives_its_file() -> None:
    assert TypeAdapter(CleanSuite).validate_json(TypeAdapter(CleanSuite).dump_json(CLEAN)) == CLEAN


LIVE = """\
import functools

def logged(function):
    @functools.wraps(function)
    def wrapped(*arguments):
        return function(*arguments) + 0
    return wrapped

@logged
def times(size, by=2):
    return sum([size for _ in range(by)])

class Box:
    side = 3
    def area(self):
        return self.side ** 2

def pair():
    return (lambda: 1), (lambda: 1)
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return sum([size", "size += 1\n    return sum([size"),
        ("[size for", "[size + 1 for"),
        ("self.side ** 2", "self.side * 5"),
        ("+ 0", "- 1"),
        ("(lambda: 1), (lambda: 1)", "(lambda: 2), (lambda: 3)"),
    ],
)
def test_living_functions_take_new_bodies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    exchanged = _exchanged(tmp_path, monkeypatch, old, new)
    moves_class = new.count("\n") > old.count("\n") and sys.version_info >= (3, 13)
    assert exchanged == (None if moves_class else _results(LIVE.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("by=2", "by=3"),
        ("size, by=2", "size, *, by=2"),
        ("side = 3", "side = 4"),
        ("@logged\n", ""),
        ("return wrapped", "return function"),
        ("import functools", "import functools, os"),
        ("+ 0", "+"),
    ],
)
def test_a_change_that_an_import_would_notice_is_not_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    assert _exchanged(tmp_path, monkeypatch, old, new) is None


def _exchanged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> list[int] | None:
    name = f"live_{abs(hash((old, new)))}"
    (folder / f"{name}.py").write_text(LIVE)
    monkeypatch.syspath_prepend(folder)
    module = importlib.import_module(name)
    live = LiveCode(str(folder))
    assert LIVE.count(old) == 1
    (folder / f"{name}.py").write_text(LIVE.replace(old, new))
    return _results_of(vars(module)) if live.exchange(f"{name}.py") else None


def _results(text: str) -> list[int]:
    names: dict = {}
    exec(text, names)
    return _results_of(names)


def _results_of(names: dict) -> list[int]:
    return [names["times"](5), names["Box"]().area(), *(make() for make in names["pair"]())]


@pytest.mark.docker
@pytest.mark.slow
def test_one_sandbox_judges_candidates_of_every_kind(
    source: Source, image: str, bugs: dict[str, Bug]
) -> None:
    engine = SourceEngine()
    engine.build(source)
    instance = Instance("sizes", "generated/sizes", source.commit, "", repository_image(source))
    with engine.open(instance) as sandbox:
        suite = SuiteSandbox(sandbox, source, WORKDIR)
        clean = replace(suite.measure(), limit_s=90.0)
        assert clean.flaky == ("tests/test_sizes.py::test_the_weather",)
        judged = {name: suite.judge(bug, clean) for name, bug in bugs.items()}
        again = suite.judge(bugs["kept"], clean)
        left = sandbox.exec(f"cd {WORKDIR} && git status --short").output
    assert {name: judgement.reason.value for name, judgement in judged.items()} == {
        name: name.partition(" too")[0] for name in bugs
    }
    assert judged["kept"].fail_to_pass == ("tests/test_sizes.py::test_the_largest_is_found",)
    assert len(judged["kept"].pass_to_pass) == 9
    cached = judged["kept too, by a test that does not call it"]
    assert cached.fail_to_pass == ("tests/test_sizes.py::test_limits_are_kept",)
    (failure,) = judged["kept"].failures
    assert (failure.type, failure.message.splitlines()[0]) == ("AssertionError", "assert 1 == 3")
    assert again == judged["kept"], "the candidates in between have left no trace"
    assert left == ""
