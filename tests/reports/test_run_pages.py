from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srl_swe.reports.figures import sections
from srl_swe.reports.record import RunRecord
from srl_swe.reports.runs import (
    differences,
    labels,
    phase_table,
    render_comparison,
    render_report,
    results,
)

from ..html_page import HOSTILE, HtmlPage


def make_run(name: str = "srl", steps: int = 30, **trainer: Any) -> RunRecord:
    rows = [
        {
            "step": step,
            "loss": 1e-9,
            "reward": step / 50,
            "reward/mean": step / 40,
            "reward/p10": -1.0,
            "reward/p90": 1.0,
            "format/ok": 0.9,
            "format/no_think": 0.1,
            "similarity/mean": None,
            "similarity/bash": 0.5,
            "dynamic_sampling/kept_frac": 0.5,
            "learning_rate": 5e-7,
            "time/generate_s": 12.0,
            "time/step_s": 20.0,
            "time/tokens_per_s": 12_345.0,
            "made_up/by_somebody": 3.0,
        }
        for step in range(1, steps + 1)
    ]
    start = {"started": "then", "from_step": 0, "max_steps": 99, "packages": {"trl": "1.16"}}
    manifest = {
        "method": "srl",
        "recipe": {"model": "m", "trainer": {"seed": 1, **trainer}},
        "trainer": {"seed": 1, "beta": 0.0, "output_dir": name, **trainer},
        "starts": [start],
    }
    return RunRecord(Path(name), rows, {}, manifest, {})


def test_the_page_has_a_curve_of_all_that_was_logged() -> None:
    page = HtmlPage(render_report(make_run(), "today"))
    for title in ("Reward", "Groups", "Seconds of a step", "Tokens a second", "Learning rate"):
        assert title in page.text
    assert "made_up/by_somebody" in page.text
    assert "step 30 of 99, under way" in page.text


def test_every_key_of_a_log_is_drawn_once() -> None:
    keys = make_run().keys
    figures = [figure for figures in sections(keys).values() for figure in figures]
    drawn = [key for figure in figures for _, key in figure.lines if key in keys]
    bands = {name for figure in figures for name in (figure.band or ())[1:]}
    assert sorted([*drawn, *(bands & set(keys))]) == sorted(keys)


@pytest.mark.parametrize("steps", [0, 1, 2, 5000])
def test_the_page_stands_with_any_number_of_steps_and_stays_small(steps: int) -> None:
    html = render_report(make_run(steps=steps), "today")
    page = HtmlPage(html)
    assert page.tags.count("svg") == (0 if steps == 0 else page.tags.count("figure"))
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    assert len(html) < 1_000_000


def test_a_page_shows_the_seconds_and_the_waste_of_each_phase() -> None:
    counts = {"computed": 9000.0, "real": 5000.0, "needed": 1250.0}
    logged = {f"tokens/generate_{kind}": count for kind, count in counts.items()}
    run = make_run()
    old = phase_table(run)
    assert old.rows == [("generate", "12", "60 %", *["–"] * 4)], "older runs logged no tokens"
    new = replace(run, rows=[{**row, **logged, "time/reward_s": 0.02} for row in run.rows])
    assert phase_table(new).rows == [
        ("generate", "12", "60 %", "9,000", "5,000", "1,250", "7.20"),
        ("reward", "0.02", "0.1 %", *["–"] * 4),
    ]
    assert "7.20" in HtmlPage(render_report(new, "today")).text
    assert phase_table(replace(run, rows=[{"step": 1, "loss": 1.0}])).rows == []


def test_a_run_of_which_nothing_is_known_yet_has_a_page() -> None:
    empty = RunRecord(Path("run"), [], {}, {}, {})
    assert "No step was logged yet" in HtmlPage(render_report(empty, "today")).text


def test_the_page_runs_nothing_and_fetches_nothing() -> None:
    html = render_report(make_run(), "today")
    assert not {"script", "link", "img", "iframe", "a"} & set(HtmlPage(html).tags)
    assert "://" not in html
    assert "default-src 'none'" in html


def test_hostile_text_stays_text() -> None:
    run = make_run(HOSTILE, steps=3, **{HOSTILE: HOSTILE})
    rows = [{**row, HOSTILE: 1.0, f"format/{HOSTILE}": 1.0} for row in run.rows]
    run = replace(run, rows=rows)
    for html in (render_report(run, HOSTILE), render_comparison(run, make_run())):
        assert "<script" not in html
        assert HOSTILE in HtmlPage(html).text


def test_two_runs_differ_in_what_they_were_told_and_not_in_where_they_lie() -> None:
    found = differences(make_run("a", learning_rate=1e-6), make_run("b", learning_rate=5e-7))
    assert [(d.key, d.first, d.second) for d in found] == [
        ("trainer.learning_rate", "1e-06", "5e-07")
    ]


def test_an_argument_that_another_method_does_not_know_is_no_difference() -> None:
    other = make_run("b")
    manifest = {**other.manifest, "trainer": {"seed": 1, "packing": False}}
    assert differences(make_run("a"), replace(other, manifest=manifest)) == []


def test_a_setting_of_one_run_alone_is_a_difference() -> None:
    (only,) = differences(make_run("a"), make_run("b", temperature=0.7))
    assert (only.key, only.first, only.second) == ("trainer.temperature", "–", "0.7")


def test_results_are_as_they_stand_and_at_their_best() -> None:
    by_label = {r.headline.label: r for r in results(make_run("a"), make_run("b", steps=10))}
    assert by_label["reward"].now == ("0.700", "0.200")
    assert by_label["reward"].best == ("0.750 (step 30)", "0.250 (step 10)")


def test_both_runs_are_drawn_into_each_chart_under_their_names() -> None:
    html = render_comparison(make_run("first"), make_run("second"))
    page = HtmlPage(html)
    assert "step 3: first 0.075" in page.text
    assert "step 3: second 0.075" in page.text


def test_two_runs_of_one_name_are_told_apart_by_their_paths() -> None:
    assert labels(make_run("x/run"), make_run("y/run")) == ("x/run", "y/run")
    assert labels(make_run("x/a"), make_run("y/b")) == ("a", "b")
