import json
from pathlib import Path

import pytest

from srl_swe.evaluation.report import (
    Mark,
    MarkKind,
    Report,
    headline,
    marks,
    patch_marks,
    render_html,
    report_fields,
    save_report,
)
from srl_swe.files import write_atomic
from srl_swe.types import Outcome, Verdict

from ..html_page import HtmlPage
from .patches import INSTANCE, edit, new_file

HELD = {"sandbox": "docker", "network": "none", "memory_bytes": 4 * 2**30}
HOSTILE = '</pre><script>alert("x")</script><img src=http://e.x/a onerror=alert(1)>'


def make_report(**counts: int) -> Report:
    verdicts = [
        Verdict(f"{name}-{number}", Outcome(name))
        for name, count in counts.items()
        for number in range(count)
    ]
    return Report(tuple(verdicts), "swebench 5")


def test_the_fields_are_swebenchs_and_add_up() -> None:
    one_each = dict.fromkeys((outcome.value for outcome in Outcome), 1)
    fields = report_fields(make_report(**one_each))
    assert fields["total_instances"] == 7
    assert fields["submitted_instances"] == 6
    assert fields["completed_instances"] == 2
    assert fields["error_ids"] == ["broken_sandbox-0", "patch_failed-0", "timed_out-0"]
    assert fields["infra_failure_ids"] == ["broken_sandbox-0"]
    assert fields["incomplete_ids"] == ["not_attempted-0"]
    apart = ("completed", "empty_patch", "error")
    assert fields["submitted_instances"] == sum(fields[f"{name}_instances"] for name in apart)


def test_our_fields_include_every_field_of_swebenchs_own_report(tmp_path: Path) -> None:
    from swebench.harness.reporting import make_run_report

    row = {"instance_id": "a", "image": "i"}
    prediction = {"a": {"instance_id": "a", "model_name_or_path": "m", "model_patch": ""}}
    theirs = json.loads(make_run_report(prediction, [row], "r", None, str(tmp_path)).read_text())
    ours = report_fields(Report((Verdict("a", Outcome.EMPTY_PATCH),)))
    assert set(theirs) - set(ours) == {"ambiguous_failure_instances", "ambiguous_failure_ids"}
    shared = set(theirs) & set(ours) - {"failure_reasons"}
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}


def test_a_broken_sandbox_is_no_wrong_answer_and_bounds_say_what_it_hides() -> None:
    report = make_report(resolved=10, unresolved=29, broken_sandbox=1)
    assert report.resolved_rate == pytest.approx(10 / 39)
    assert report.bounds == (10 / 40, 11 / 40)
    assert "1 sandboxes broke: of all 40, between 25.0 and 27.5 %" in headline(report)


def test_with_too_many_broken_sandboxes_there_is_no_rate() -> None:
    report = make_report(resolved=10, unresolved=28, broken_sandbox=3)
    assert report.resolved_rate is None
    assert headline(report).startswith("no rate: 3 sandboxes broke")
    assert report_fields(report)["resolved_rate_95"] is None


def test_no_instances_have_no_rate() -> None:
    assert headline(Report(())) == "no rate: no instances"
    assert make_report(not_attempted=2).resolved_rate == 0.0


def test_the_table_shows_the_outcomes_that_occur() -> None:
    text = str(make_report(resolved=7, timed_out=1))
    assert "resolved 7 of 8 = 87.5 %" in text
    assert "and 2 more" in text
    assert "patch_failed" not in text


def test_a_report_is_written_as_json(tmp_path: Path) -> None:
    save_report(make_report(resolved=1), tmp_path / "r" / "report.json")
    assert json.loads((tmp_path / "r" / "report.json").read_text())["resolved_ids"] == [
        "resolved-0"
    ]


def test_a_report_says_what_the_sandboxes_of_its_rollouts_were_held_to() -> None:
    verdicts = (Verdict("a", Outcome.RESOLVED), Verdict("b", Outcome.RESOLVED))
    held = {"a": {**HELD, "image_digest": "sha256:1"}, "b": {**HELD, "image_digest": "sha256:2"}}
    report = Report(verdicts, "swebench 5", held)
    fields = report_fields(report)
    assert fields["sandbox"] == HELD
    assert fields["sandbox_by_instance"]["b"] == {"image_digest": "sha256:2"}
    assert "rolled out in sandbox docker, network none" in render_html(report, {})


def test_mixed_network_modes_are_said() -> None:
    held = {"a": HELD, "b": {**HELD, "network": "bridge"}, "c": {**HELD, "network": "none"}}
    report = Report((Verdict("a", Outcome.RESOLVED),), "swebench 5", held)
    assert "network mixed" in render_html(report, {})
    assert report_fields(report)["sandbox"] == {k: v for k, v in HELD.items() if k != "network"}


@pytest.mark.parametrize(
    ("networks", "said"),
    [
        (["bridge", "bridge"], "graded by swebench 5, network bridge"),
        (["bridge", "none"], "networks mixed: bridge, none"),
        (["", ""], "network not recorded"),
        (["", "bridge"], "networks mixed: not recorded, bridge"),
    ],
)
def test_a_report_names_the_network_that_it_was_graded_in(networks: list[str], said: str) -> None:
    verdicts = [Verdict(f"i-{n}", Outcome.UNRESOLVED, network=of) for n, of in enumerate(networks)]
    report = Report((*verdicts, Verdict("e-1", Outcome.EMPTY_PATCH)), "swebench 5")
    assert said in render_html(report, {})
    assert said in " ".join(str(report).split())
    found = report_fields(report)["grading_networks"]
    assert found == {of: [f"i-{n}" for n, o in enumerate(networks) if o == of] for of in networks}


def test_where_no_tests_ran_no_network_is_named() -> None:
    report = Report((Verdict("e-1", Outcome.EMPTY_PATCH),), "swebench 5")
    assert "graded by swebench 5, no tests run" in render_html(report, {})
    assert report_fields(report)["grading_networks"] == {}


def test_where_the_patches_came_from_elsewhere_nothing_is_said_of_sandboxes() -> None:
    fields = report_fields(make_report(resolved=1))
    assert (fields["sandbox"], fields["sandbox_by_instance"]) == ({}, {})
    assert "rolled out" not in render_html(make_report(resolved=1), {})


def test_the_page_escapes_whatever_a_model_wrote(tmp_path: Path) -> None:
    verdict = Verdict(
        "i-1", Outcome.UNRESOLVED, failed=(f"t[{HOSTILE}]",), log_path='a"b', detail=HOSTILE
    )
    page = render_html(Report((verdict,), HOSTILE), {"i-1": HOSTILE})
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;") == 4
    assert ("href", 'a"b') in HtmlPage(page).attributes
    write_atomic(tmp_path / "report.html", render_html(Report((verdict,)), {"i-1": "\udc80"}))


def test_the_page_needs_nothing_from_elsewhere_and_folds_the_long_parts() -> None:
    verdict = Verdict("i-1", Outcome.UNRESOLVED, failed=("t::a",))
    page = render_html(Report((verdict,)), {"i-1": "+patched\n"})
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page
    assert "<details><summary>1 failing test</summary><pre>t::a</pre></details>" in page
    assert "<details><summary>patch</summary><pre>+patched</pre></details>" in page


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "exit_code", "doubt"),
    [
        ("===== 13 passed in 0.10s =====", 0, None),
        ("===== 1 error in 0.10s =====", 2, "it exited with 2"),
        ("", 0, "left no summary"),
        ("===== 13 passed in 0.10s =====", 1, "exited with 1"),
        ("===== 1 failed, 13 passed in 0.10s =====", 0, "exited with 0"),
        ("+ : '>>>>> End Test Output'\n== 13 passed in 0.1s ==", 0, "more than once"),
    ],
)
def test_a_resolved_instance_whose_log_contradicts_itself_is_marked(
    tmp_path: Path, end: str, exit_code: int, doubt: str | None
) -> None:
    names = (*INSTANCE.fail_to_pass, *INSTANCE.pass_to_pass)
    passed = "".join(f"PASSED {name}\n" for name in names)
    (tmp_path / "test_output.txt").write_text(
        f"+ : '>>>>> Start Test Output'\n{passed}{end}\n+ : '>>>>> End Test Output'\n"
        f">>>>> Test Exit Code: {exit_code}\n"
    )
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
    assert "marked" in str(report)
