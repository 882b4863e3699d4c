from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srl_swe.cli.main import app
from srl_swe.errors import UserError
from srl_swe.evaluation.compare import (
    compare_evaluations,
    load_evaluation,
    render_comparison_page,
)
from srl_swe.evaluation.report import Report, save_report
from srl_swe.trajectories import save_jsonl
from srl_swe.types import Outcome, Trajectory, Verdict

from ..html_page import HOSTILE, HtmlPage, dead_links

OUTCOMES = {"r": Outcome.RESOLVED, "u": Outcome.UNRESOLVED, "b": Outcome.BROKEN_SANDBOX}


def write(folder: Path, outcomes: str) -> Path:
    """A report with one instance per letter: resolved, unresolved, broken; a dot is none."""
    folder.mkdir()
    verdicts = [
        Verdict(f"a__b-{number}", OUTCOMES[letter])
        for number, letter in enumerate(outcomes)
        if letter != "."
    ]
    save_report(Report(tuple(verdicts)), folder / "report.json")
    return folder


def test_instances_are_compared_in_pairs_and_broken_ones_are_left_out(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", "rrrrrruub."), write(tmp_path / "b", "ruuuuuurrr")
    compared = compare_evaluations(load_evaluation(first), load_evaluation(second))
    assert compared.both == ("a__b-0",)
    assert compared.only_first == tuple(f"a__b-{n}" for n in range(1, 6))
    assert compared.only_second == ("a__b-7",)
    assert compared.neither == ("a__b-6",)
    assert compared.left_out == ("a__b-8", "a__b-9")
    assert compared.p_value == 2 * (1 + 6) / 2**6


def test_swebenchs_own_report_is_read(tmp_path: Path) -> None:
    own = {"resolved_ids": ["a"], "unresolved_ids": ["b"], "submitted_ids": ["a", "b"]}
    (tmp_path / "own.json").write_text(json.dumps(own))
    found = load_evaluation(tmp_path / "own.json")
    assert (found.resolved, found.counted) == ({"a"}, {"a", "b"})
    assert compare_evaluations(found, found).p_value == 1
    (tmp_path / "own.json").write_text(json.dumps(own | {"infra_failure_ids": ["b"]}))
    assert load_evaluation(tmp_path / "own.json").counted == {"a", "b"}


def test_the_command_prints_a_table_or_one_json_document(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / "a", "rru")), str(write(tmp_path / "b", "rur"))]
    table = CliRunner().invoke(app, ["compare", *paths], catch_exceptions=False).stdout
    assert "p = 1" in table
    assert "a__b-1" in table
    printed = CliRunner().invoke(app, ["compare", *paths, "--json"], catch_exceptions=False).stdout
    assert json.loads(printed)["only_second"] == ["a__b-2"]


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_what_is_no_report_is_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(UserError, match=r"report\.json"):
        load_evaluation(tmp_path)


def test_nothing_in_common_is_one_line(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", "r."), write(tmp_path / "b", ".r")
    with pytest.raises(UserError, match="no instance in common"):
        compare_evaluations(load_evaluation(first), load_evaluation(second))


def test_the_page_has_a_row_per_instance_and_those_that_differ_first(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", "ruub"), write(tmp_path / "b", "rru.")
    compared = compare_evaluations(load_evaluation(first), load_evaluation(second))
    html = render_comparison_page(compared, {(str(second), "a__b-1"): "view.html#key=b/a__b-1"})
    rows = re.findall(r'<tr><th scope="row">(a__b-\d)</th>(.*?)</tr>', html, re.DOTALL)
    found = {name: re.findall(r'<td class="(\w+| )+"', cells) for name, cells in rows}
    assert [name for name, _ in rows] == ["a__b-1", "a__b-2", "a__b-0", "a__b-3"]
    assert found["a__b-1"] == ["unresolved", "resolved"]
    assert found["a__b-3"][0] == "broken_sandbox"
    assert '<a href="view.html#key=b/a__b-1">resolved</a>' in dict(rows)["a__b-1"]
    text = HtmlPage(html).text
    assert "p = 1" in text
    assert "1 instance is not counted in both" in text


def test_equal_evaluations_have_a_page_too(tmp_path: Path) -> None:
    found = load_evaluation(write(tmp_path / "a", "rb"))
    text = HtmlPage(render_comparison_page(compare_evaluations(found, found))).text
    assert "Both resolve the same instances" in text


def test_names_of_swebenchs_report_stay_text(tmp_path: Path) -> None:
    own = {"resolved_ids": [HOSTILE], "submitted_ids": [HOSTILE]}
    (tmp_path / "own.json").write_text(json.dumps(own))
    found = load_evaluation(tmp_path / "own.json")
    html = render_comparison_page(compare_evaluations(found, found))
    assert "<script" not in html
    assert HOSTILE in HtmlPage(html).text


def test_the_command_writes_the_page_to_out(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / "a", "ru")), str(write(tmp_path / "b", "rr"))]
    page = tmp_path / "pages" / "compare.html"
    ended = CliRunner().invoke(app, ["compare", *paths, "--out", str(page)], catch_exceptions=False)
    assert ended.output.rstrip().endswith(str(page))
    assert "Resolved by one alone" in page.read_text()
    assert "href" not in page.read_text(), "no episodes are there"


def test_each_outcome_leads_to_its_own_episode_even_from_folders_of_one_name(
    tmp_path: Path,
) -> None:
    folders = [tmp_path / name / "eval" for name in ("a", "b")]
    for number, folder in enumerate(folders):
        folder.parent.mkdir()
        write(folder, "ru")
        rollouts = [Trajectory(f"a__b-{n}", (), model=f"policy {number}") for n in range(2)]
        save_jsonl(folder / "rollouts.jsonl", rollouts)
    page = tmp_path / "compare.html"
    CliRunner().invoke(app, ["compare", *map(str, folders), "--out", str(page)])
    links = set(re.findall(r'href="(.*?)"', page.read_text()))
    assert links == {
        f"compare-episodes.html#key=eval/a__b-{n}{again}" for n in range(2) for again in ("", "~")
    }
    assert dead_links(page) == []
