from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srl_swe.reports.record import Alarm, RunRecord
from srl_swe.reports.replies import SHOWN_STEPS, StepReplies, load_replies
from srl_swe.reports.runs import render_report

from ..html_page import HOSTILE, HtmlPage

Write = Callable[..., Path]


def reply(group: int, reward: float | None, **fields: Any) -> dict[str, Any]:
    row = {
        "round": 0,
        "group": group,
        "instance_id": "a__b-1",
        "step_index": group,
        "n_steps": 7,
        "expert_action": "expert's own",
        "format": "ok" if reward != -1.0 else "no_think",
        "completion": f"reply with {reward}",
        "tokens": 9,
        "truncated": False,
        "rewards/similarity": reward,
        "advantage": 0.0,
        "kept": group == 0,
    }
    return row | fields


ROWS = [reply(0, 0.25), reply(0, 0.75), reply(0, -1.0), reply(1, 0.5), reply(1, 0.5)]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes one completion table per step, and returns the run's folder."""

    def written(*steps: int, rows: list[dict[str, Any]] = ROWS) -> Path:
        for step in steps:
            path = tmp_path / "completions" / f"step-{step:06d}.parquet"
            path.parent.mkdir(exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), path)
        return tmp_path

    return written


def page_of(folder: Path, **fields: Any) -> str:
    rows = [{"step": step, "reward/mean": step / 40} for step in range(1, 31)]
    run = RunRecord(folder, rows, {}, {}, {})
    return render_report(replace(run, **fields), "today")


def only(folder: Path, **weights: float) -> StepReplies:
    (step,) = load_replies(folder, weights)
    return step


def test_the_best_and_the_worst_reply_of_a_step_are_shown_beside_the_experts(write: Write) -> None:
    step = only(write(10))
    assert step.best is not None
    assert step.worst is not None
    assert (step.best.text, step.best.reward) == ("reply with 0.75", 0.75)
    assert (step.worst.text, step.worst.ending) == ("reply with -1.0", "no think")
    text = HtmlPage(page_of(write(10))).text
    for words in ("reply with 0.75", "reply with -1.0", "expert's own", "a__b-1, step 0 of 7"):
        assert words in text


def test_kept_and_dropped_groups_are_counted_and_listed(write: Write) -> None:
    step = only(write(10))
    groups = [(group.number, group.rewards, group.kept) for group in step.groups]
    assert groups == [(0, (0.25, 0.75, -1.0), True), (1, (0.5, 0.5), False)]
    text = HtmlPage(page_of(write(10))).text
    assert "5 replies in 2 groups: 1 kept, 1 dropped" in text
    assert "in the format: 4; no think: 1" in text


def test_of_two_equal_rewards_the_better_advantage_is_best(write: Write) -> None:
    rows = [reply(1, 1.0, completion="dropped"), reply(0, 1.0, completion="kept", advantage=0.6)]
    assert (best := only(write(1, rows=rows)).best) is not None
    assert best.text == "kept"


def test_rewards_are_mixed_by_their_weights_and_a_missing_one_counts_nothing(write: Write) -> None:
    rows = [reply(0, 0.5, **{"rewards/exact": 1.0}), reply(0, None, **{"rewards/exact": 0.0})]
    step = only(write(1, rows=rows), similarity=0.5, exact=0.25)
    assert step.groups[0].rewards == (0.5, 0.0)
    assert step.worst is not None
    assert step.worst.rewards == {"similarity": None, "exact": 0.0}
    assert "similarity not given" in HtmlPage(page_of(write(1, rows=rows))).text


def test_an_episode_shows_how_it_ended_and_its_outcome(write: Write) -> None:
    episode = {"instance_id": "a__b-1", "ended": "step_limit", "outcome": "empty_patch"}
    row = {**episode, "completion": "long", "tokens": 5, "truncated": True, "rewards/tests": 0.0}
    best = only(write(1, rows=[row])).best
    assert best is not None
    assert best.ending == "step limit, empty patch, cut at the token limit"
    assert (best.place, best.expert) == ("a__b-1", "")


def test_points_of_the_curves_and_rows_of_the_values_lead_to_their_replies(write: Write) -> None:
    html = page_of(write(1, 10))
    places = set(re.findall(r'id="(step-\d+)"', html))
    assert places == {"step-1", "step-10"}
    for place in places:
        assert f'<a class="sampled" href="#{place}" tabindex="-1"' in html
        assert f'<th scope="row"><a href="#{place}">' in html
    assert 'href="#step-2"' not in html


def test_a_long_run_shows_some_of_its_steps(write: Write) -> None:
    folder = write(*range(1, 3 * SHOWN_STEPS))
    steps = [step.step for step in load_replies(folder, {})]
    assert len(steps) == SHOWN_STEPS
    assert (steps[0], steps[-1]) == (1, 3 * SHOWN_STEPS - 1)
    assert f"evenly spaced among {3 * SHOWN_STEPS - 1}" in HtmlPage(page_of(folder)).text


def test_a_table_is_read_again_once_it_is_rewritten(write: Write) -> None:
    assert only(write(1)).replies == 5
    assert only(write(1, rows=ROWS[:2])).replies == 2


@pytest.mark.parametrize("content", [b"", b"PAR1 torn"])
def test_a_damaged_table_is_named_and_the_others_are_shown(write: Write, content: bytes) -> None:
    folder = write(1, 2)
    (folder / "completions" / "step-000002.parquet").write_bytes(content)
    text = HtmlPage(page_of(folder)).text
    assert "step-000002.parquet can't be read" in text
    assert "reply with 0.75" in text


def test_a_hostile_reply_stays_text_and_shows_its_control_characters(write: Write) -> None:
    bad = f"{HOSTILE}\x1b[31m\u202e"
    hostile = {"completion": bad, "instance_id": bad, "format": bad, "expert_action": bad}
    html = page_of(write(1, rows=[reply(0, 1.0, **hostile)]))
    assert "<script" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert f"{HOSTILE}␛[31m<U+202E>" in HtmlPage(html).text


def test_a_long_reply_is_cut_in_its_middle(write: Write) -> None:
    text = "a" * 3000 + "b" * 3000
    html = page_of(write(1, rows=[reply(0, 1.0, completion=text)]))
    assert "[2,000 characters left out]" in html
    assert text not in html


def test_alarms_stand_on_top_and_lead_to_the_replies_of_their_step(write: Write) -> None:
    alarms = [Alarm(3, "step 3: replies grow"), Alarm(10, "step 10: no format", stopped=True)]
    html = page_of(write(10), alarms=alarms)
    text = HtmlPage(html).text
    assert "Warning: step 3: replies grow" in text
    assert "Stopped the run: step 10: no format" in text
    assert '<a href="#step-10">Replies of step 10</a>' in html
    assert "Alarms" not in HtmlPage(page_of(write(10))).text
