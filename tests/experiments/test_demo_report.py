from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from srl_swe.errors import UserError
from srl_swe.experiments.demo import QUICK, run_demo
from srl_swe.experiments.demo_report import (
    CAVEAT,
    CurvePoint,
    DemoSummary,
    render_html,
    results_table,
)
from srl_swe.experiments.policy_evaluation import PolicyResult
from srl_swe.reports.page import Way
from srl_swe.types import Outcome, Verdict
from srl_swe_envs.local import open_local_sandbox

from ..html_page import HOSTILE, HtmlPage


def test_a_fresh_demo_deletes_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds no demo"):
        run_demo(QUICK, tmp_path, open_local_sandbox, fresh=True)
    (tmp_path / "config.json").write_text('{"suite": "starter"}')
    with pytest.raises(UserError, match="holds no demo"):
        run_demo(QUICK, tmp_path, open_local_sandbox, fresh=True)
    assert (tmp_path / "thesis.txt").exists()


def make_policy(label: str, *outcomes: Outcome) -> PolicyResult:
    verdicts = tuple(Verdict(f"starter__toy-{n}", one) for n, one in enumerate(outcomes, 1))
    return PolicyResult(label, 63, 0.4123, 0.905, 0.251, verdicts)


def make_curve(points: int) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(n, 2 * n / points - 1, None if n == 1 else n / points, 0.5, 0.25)
        for n in range(1, points + 1)
    )


def make_summary(points: int = 30) -> DemoSummary:
    return DemoSummary(
        training_ids=("starter__toy-1", "starter__toy-2"),
        held_out_ids=("starter__toy-3",),
        trajectories=8,
        steps_replayed=63,
        steps_as_recorded=61,
        examples=59,
        parameters=1_234_567,
        policies=(
            make_policy("untrained", Outcome.EMPTY_PATCH, Outcome.TIMED_OUT),
            make_policy("SRL", Outcome.RESOLVED, Outcome.BROKEN_SANDBOX, Outcome.UNRESOLVED),
        ),
        family_ids=("starter__toy-1", "starter__toy-2"),
        family=make_policy("family", Outcome.RESOLVED),
        curve=make_curve(points),
        stage_seconds={"replay": 14.2, "SRL": 211.9},
    )


def print_table(summary: DemoSummary) -> str:
    console = Console(width=140)
    with console.capture() as printed:
        console.print(results_table(summary).draw("results"))
    return printed.get()


@pytest.mark.parametrize("number", ["0.412", "90.5%", "25.1%", "0/2", "1/2 (1 broken)", "0/1"])
def test_table_and_page_show_the_same_numbers(number: str) -> None:
    assert number in print_table(make_summary())
    assert number in HtmlPage(render_html(make_summary())).text


def test_the_page_tells_what_was_run_and_what_it_does_not_prove() -> None:
    text = HtmlPage(render_html(make_summary())).text
    assert CAVEAT in text
    assert "61 of 63 steps printed what was recorded" in text
    assert "59 step contexts" in text
    assert "1.23 million" in text
    assert "on 2 instances with such a trajectory and 1 held out" in text
    assert "trained by SFT on 63 expert steps, resolves 1/2 bugs in functions" in text
    single = replace(make_summary(), trajectories=1, training_ids=("starter__toy-1",))
    text = HtmlPage(render_html(single)).text
    assert "1 expert trajectory was replayed" in text
    assert "on 1 instance with" in text


def test_every_instance_has_an_outcome_under_every_policy() -> None:
    html = render_html(make_summary())
    for words in ("empty patch", "timed out", "not attempted", "resolved", "broken sandbox"):
        assert f">{words}</td>" in html
    assert html.count(">held out<") == 1


def test_stages_outcomes_and_more_lead_to_their_pages() -> None:
    ways = [Way("Everything", "view.html", "All.")]
    episodes = {("SRL", "starter__toy-1"): "view.html#key=a"}
    html = render_html(
        make_summary(), ways=ways, stage_links={"SRL": "srl/report.html"}, episodes=episodes
    )
    links = re.findall(r'<a href="(.*?)">(.*?)</a>', html)
    assert links == [
        ("view.html", "Everything"),
        ("view.html#key=a", "resolved"),
        ("srl/report.html", "SRL"),
    ]


def test_seconds_are_bars_and_the_longest_is_full() -> None:
    html = render_html(make_summary())
    assert '211.9&nbsp;s</span><i style="width:100.0%">' in html
    assert '14.2&nbsp;s</span><i style="width:6.7%">' in html


@pytest.mark.parametrize("points", [0, 1, 2, 30, 500])
def test_the_page_is_well_formed_with_any_number_of_steps(points: int) -> None:
    page = HtmlPage(render_html(make_summary(points)))
    assert page.tags.count("svg") == (3 if points else 0)
    assert (page.tags.count("circle") > 0) == (points > 0)
    assert "nan" not in " ".join(value for _, value in page.attributes)


def test_a_page_without_anything_still_stands() -> None:
    empty = replace(
        make_summary(0), training_ids=(), held_out_ids=(), policies=(), stage_seconds={}
    )
    assert "No step of SRL was logged" in HtmlPage(render_html(empty)).text


def test_the_page_fetches_nothing_and_runs_nothing() -> None:
    html = render_html(make_summary())
    page = HtmlPage(html)
    assert not {"script", "link", "img", "iframe", "a"} & set(page.tags)
    assert not {"src", "href", "onload", "onclick"} & {name for name, _ in page.attributes}
    assert "://" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html


def test_hostile_text_stays_text() -> None:
    verdict = Verdict(HOSTILE, Outcome.PATCH_FAILED, detail=HOSTILE)
    summary = replace(
        make_summary(),
        training_ids=(HOSTILE,),
        policies=(replace(make_policy(HOSTILE), verdicts=(verdict,)),),
        stage_seconds={HOSTILE: 1.0},
    )
    html = render_html(summary)
    assert "<script" not in html
    page = HtmlPage(html)
    assert page.text.count(HOSTILE) == 4
    assert ("title", HOSTILE) in page.attributes
    assert HOSTILE in print_table(summary)
