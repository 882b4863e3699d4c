from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from srl_swe.evaluation import Report, render_html, render_table, report_fields
from srl_swe.evaluation.report import Mark, MarkKind, marks, patch_marks
from srl_swe.types import Outcome, Verdict

from .cheats import INSTANCE, edit, new_file

NAMES = (*INSTANCE.fail_to_pass, *INSTANCE.pass_to_pass)
PASSED = "".join(f"PASSED {name}\n" for name in NAMES)


def log(output: str, summary: str, exit_code: int = 0) -> str:
    return (
        f"+ : '>>>>> Start Test Output'\n{output}{summary}\n+ : '>>>>> End Test Output'\n"
        f">>>>> Test Exit Code: {exit_code}\n"
    )


@pytest.mark.parametrize(
    ("patch", "kind"),
    [
        (new_file("tests/test_more.py", "x = 1"), MarkKind.TESTS),
        (new_file("inikit/test_more.py", "x = 1"), MarkKind.TESTS),
        (new_file("conftest.py", "x = 1"), MarkKind.RUNNER),
        (new_file("setup.py", "x = 1"), MarkKind.RUNNER),
        (edit("pyproject.toml", "[tool.pytest.ini_options]\naddopts = '-x'"), MarkKind.RUNNER),
        (new_file(".git/hooks/post-checkout", "x"), MarkKind.GIT),
        (new_file("../evil", "x"), MarkKind.OUTSIDE),
    ],
)
def test_a_patch_is_marked_by_what_it_touches(patch: str, kind: MarkKind) -> None:
    assert [mark.kind for mark in patch_marks(INSTANCE, patch)] == [kind]


def test_the_gold_patch_and_an_ordinary_file_are_not_marked() -> None:
    assert patch_marks(INSTANCE, INSTANCE.gold_patch) == ()
    assert patch_marks(INSTANCE, new_file("inikit/more.py", "x = 1")) == ()
    version = edit("pyproject.toml", "[project]\nname = 'inikit'\nversion = '2'")
    assert [m.kind for m in patch_marks(INSTANCE, version)] in ([], [MarkKind.RUNNER])


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        (log(PASSED, "===== 13 passed in 0.10s ====="), None),
        (log(PASSED, "===== 1 error in 0.10s =====", 2), "it exited with 2"),
        (log(PASSED, ""), "left no summary"),
        (log(PASSED, "===== 13 passed in 0.10s =====", 1), ""),
        (log(PASSED, "===== 1 failed, 13 passed in 0.10s ====="), "exited with 0"),
        (
            log(PASSED + "+ : '>>>>> End Test Output'\n", "== 13 passed in 0.1s =="),
            "more than once",
        ),
    ],
)
def test_a_resolved_instance_whose_log_contradicts_itself_is_marked(
    tmp_path: Path, text: str, doubt: str | None
) -> None:
    (tmp_path / "test_output.txt").write_text(text)
    verdict = Verdict(INSTANCE.instance_id, Outcome.RESOLVED, log_path="test_output.txt")
    found = marks([INSTANCE], {}, [verdict], tmp_path)
    if doubt is None:
        assert found == {}
    else:
        (mark,) = found[INSTANCE.instance_id]
        assert mark.kind is MarkKind.EVIDENCE
        assert doubt in mark.what


def test_marks_are_in_the_report_on_the_page_and_in_the_table() -> None:
    mark = Mark(MarkKind.RUNNER, "<conftest.py>")
    report = Report((Verdict("a", Outcome.RESOLVED),), "swebench 5", marks={"a": (mark,)})
    fields = report_fields(report)
    assert (fields["marked_instances"], fields["marked_ids"]) == (1, ["a"])
    assert fields["marks"] == {"a": [{"kind": "runner", "what": "<conftest.py>"}]}
    page = render_html(report, {})
    assert "runner: &lt;conftest.py&gt;" in page
    assert "marked: 1" in page
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_table(report))
    assert "marked" in console.export_text()
