from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.experiments.experiment import RESULTS_FILE, get_arms, load_results, measured
from srl_swe.experiments.generated_evaluation import (
    RESULT_FILE,
    GeneratedEvaluation,
    StepKind,
    StepReply,
    is_broken,
    step_kind,
)
from srl_swe.experiments.generated_plan import (
    ARMS,
    BUDGETS,
    Costs,
    GeneratedPlan,
    GeneratedResult,
    Split,
    check_gate,
    expected_seconds,
    held_out_by_rows,
    split_instances,
    with_arms,
)
from srl_swe.experiments.generated_report import (
    edits_table,
    kinds_table,
    load_evaluations,
    pairs_table,
    results_table,
    save_report,
    seeds_table,
)
from srl_swe.files import append_record, write_atomic
from srl_swe.reports.intervals import wilson_interval
from srl_swe.types import Action, Instance, Outcome, Trajectory, Verdict

from ..html_page import HtmlPage

SPLIT = Split(("held/out",), ("t1", "t2"), ("h1", "h2", "h3"))
COSTS = Costs(prompt=1000, reply=100, imitation=250, turns=8)


def instances(*repos: str, each: int = 3) -> list[Instance]:
    return [
        Instance(f"{repo.replace('/', '__')}-{number}", repo, "0" * 40, "It fails.", "image")
        for repo in repos
        for number in range(each)
    ]


def experts(of: Sequence[Instance]) -> list[Trajectory]:
    return [Trajectory(instance.instance_id, ()) for instance in of]


def test_held_out_repositories_share_no_instance_with_training() -> None:
    rows = instances("a/a", "b/b", "c/c", "d/d")
    split = split_instances(rows, experts(rows[:-1]), ["b/b"])
    assert split.held_out_repos == ("b/b",)
    assert {name[0] for name in split.held_out} == {"b"}
    assert {name[0] for name in split.training} == {"a", "c", "d"}
    assert len(split.training) == 8, "an instance without a trajectory is not trained on"


def test_the_split_depends_on_names_alone_and_puts_shown_instances_first() -> None:
    rows = instances("a/a", "b/b", "c/c", "d/d")
    shown = [row for row in rows if not row.instance_id.endswith("-1")]
    split = split_instances(rows, experts(shown), [])
    assert len(split.held_out_repos) == 1
    assert split == split_instances(rows[::-1], experts(shown[::-1]), [])
    assert [name.endswith("-1") for name in split.held_out] == [False, False, True]


@pytest.mark.parametrize(
    ("held_out", "shown", "words"),
    [
        (["a/aa"], 6, r"no such repository. Did you mean 'a/a'"),
        (["a/a", "b/b"], 6, "0 training instances with a trajectory and 6 held-out"),
        (["b/b"], 1, "1 training instances with a trajectory and 3 held-out"),
    ],
)
def test_a_suite_that_can_not_be_split_is_refused(
    held_out: list[str], shown: int, words: str
) -> None:
    rows = instances("a/a", "b/b")
    with pytest.raises(UserError, match=words):
        split_instances(rows, experts(rows[:shown]), held_out)


def test_the_split_of_the_rows_decides_which_repositories_are_held_out() -> None:
    rows = instances("a/a", "b/b", "c/c")

    def splits(*of_repos: str) -> dict[str, str]:
        by_repo = dict(zip(("a/a", "b/b", "c/c"), of_repos, strict=True))
        return {row.instance_id: by_repo[row.repo] for row in rows}

    assert held_out_by_rows(rows, splits("train", "test", "test")) == ("b/b", "c/c")
    assert held_out_by_rows(rows, splits("test", "test", "test")) == (), "nothing to train on"
    assert held_out_by_rows(rows, splits("", "", "")) == ()
    with pytest.raises(UserError, match=r"nothing is held out: .*--hold-out, or .*--held-out"):
        held_out_by_rows(rows, splits("train", "train", "train"))
    both = {**splits("train", "test", "test"), rows[0].instance_id: "test"}
    with pytest.raises(UserError, match="a/a has rows of the splits train and test"):
        held_out_by_rows(rows, both)


@pytest.mark.parametrize(
    ("resolved", "edits", "knob"),
    [
        (1, 1, "Raise --warm-steps"),
        (33, 33, "Lower --warm-steps"),
        (0, 20, ""),
        (2, 0, ""),
        (40, 8, ""),
    ],
)
def test_the_gate_names_the_knob_to_turn(resolved: int, edits: int, knob: str) -> None:
    shares = [[place < count for place in range(40)] for count in (resolved, edits)]
    if not knob:
        return check_gate(*shares)
    words = f"{resolved} of 40 held-out instances, and {edits} of 40 of its edits.*{knob}"
    with pytest.raises(UserError, match=words):
        check_gate(*shares)
    return None


def test_the_gate_judges_by_the_samples_that_sandboxes_left() -> None:
    check_gate([], [True, False])
    with pytest.raises(UserError, match="Lower --warm-steps"):
        check_gate([False] * 20, [True] * 20)
    with pytest.raises(UserError, match="run the command again"):
        check_gate([], [])


def test_an_arm_whose_sandboxes_broke_is_not_finished(
    tmp_path: Path, results: list[GeneratedResult]
) -> None:
    broken = [is_broken(tmp_path / measured(each.arm, each.seed)) for each in results]
    assert broken == [False, True, False]
    again = replace(results[1], seconds=90.0)
    append_record(tmp_path / RESULTS_FILE, again)
    assert load_results(tmp_path, GeneratedResult) == [results[0], again, results[2]]


def test_budgets_are_equal_in_expert_steps_or_in_tokens() -> None:
    assert COSTS.of_srl == 2 * 1800
    assert COSTS.passes == round(3600 / 250)
    tokens = COSTS.rlvr_updates(256) * 2 * 8 * COSTS.episode
    assert tokens == pytest.approx(256 * COSTS.of_srl, rel=0.05)
    assert COSTS.rlvr_updates(256, 0.5) == round(COSTS.rlvr_updates(256) / 2)


def test_an_hour_has_three_arms_and_a_night_has_all() -> None:
    assert BUDGETS["hour"].arms == ("warm", "sft", "srl")
    assert BUDGETS["night"].arms == tuple(arm.name for arm in ARMS)
    assert BUDGETS["night"].test_instances >= 100
    assert all(budget.edit_instances >= 100 for budget in BUDGETS.values())
    costs = Costs(prompt=1100, reply=80, imitation=220, turns=9)
    hour = BUDGETS["hour"]
    minutes = sum(expected_seconds(arm, hour, costs) for arm in get_arms(ARMS, hour.arms)) / 60
    assert 30 < minutes < 70
    assert with_arms(hour, ["srl-rule"]).arms == ("warm", "srl-rule")
    with pytest.raises(UserError, match=r"no arm 'srl-rul'. Did you mean 'srl-rule'"):
        with_arms(hour, ["srl-rul"])


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (Action("bash", {"command": "grep -rn total src"}), StepKind.SEARCH),
        (Action("bash", {"command": "cd /testbed && python -m pytest -q"}), StepKind.TEST),
        (Action("bash", {"command": "python reproduce.py"}), StepKind.RUN),
        (Action("bash", {"command": "cat a.py"}), StepKind.VIEW),
        (Action("str_replace_editor", {"command": "view", "path": "/a"}), StepKind.VIEW),
        (Action("str_replace_editor", {"command": "create", "path": "/a"}), StepKind.CREATE),
        (Action("str_replace_editor", {"command": "insert", "path": "/a"}), StepKind.EDIT),
        (Action("submit"), StepKind.SUBMIT),
    ],
)
def test_a_step_has_the_kind_of_its_action(action: Action, kind: StepKind) -> None:
    assert step_kind(action.text) is kind


def evaluation(arm: str, resolved: str, edits: str, broken: str = "") -> GeneratedEvaluation:
    """``resolved``, ``edits``, ``broken``: the digits of held-out instances."""
    outcomes = {
        digit: Outcome.BROKEN_SANDBOX
        if digit in broken
        else Outcome.RESOLVED
        if digit in resolved
        else Outcome.UNRESOLVED
        for digit in "123"
    }
    replies = [
        StepReply(
            f"h{digit}", 4, StepKind.EDIT, True, True, 0.9, digit in edits,
            no_op=digit not in edits, changed=digit in edits,
            executed=Outcome.RESOLVED if digit in edits else Outcome.EMPTY_PATCH,
        )
        for digit in "123"
    ]  # fmt: skip
    view = StepReply("h1", 1, StepKind.VIEW, True, False, 0.0, False)
    apart = StepReply("t1", 1, StepKind.VIEW, False, True, 1.0, True)
    verdicts = [Verdict(f"h{digit}", found) for digit, found in outcomes.items()]
    verdicts.append(Verdict("t1", Outcome.RESOLVED))
    return GeneratedEvaluation(arm, "", (*replies, view, apart), tuple(verdicts))


@pytest.fixture
def results(tmp_path: Path) -> list[GeneratedResult]:
    """Two seeds of the warm start, and one of SRL."""
    from pydantic import TypeAdapter

    found = {
        ("srl", 0): evaluation("srl", "12", "123"),
        ("warm", 0): evaluation("warm", "1", "1", broken="3"),
        ("warm", 1): evaluation("warm", "", "2"),
    }
    made = []
    for (arm, seed), each in found.items():
        made.append(GeneratedResult(arm, seed, 8 if arm == "srl" else 0, 4000, 60.0))
        append_record(tmp_path / RESULTS_FILE, made[-1])
        place = tmp_path / measured(made[-1].arm, made[-1].seed) / RESULT_FILE
        write_atomic(place, TypeAdapter(GeneratedEvaluation).dump_json(each))
    assert load_results(tmp_path, GeneratedResult) == made
    return made


def test_shares_have_intervals_over_instances_and_leave_out_broken_sandboxes(
    results: list[GeneratedResult], tmp_path: Path
) -> None:
    warm, srl = results_table(results, SPLIT, tmp_path).rows
    low, high = wilson_interval(0.5, 3)  # of h1 in one seed of two; h3 broke in one
    assert warm[:2] == ("warm start", f"0.17 [{low:.2f}, {high:.2f}] of 3")
    assert warm[2] == "0.33 [0.06, 0.79] of 3"
    assert srl[:3] == ("SRL", "0.67 [0.21, 0.94] of 3", "1.00 [0.44, 1.00] of 3")
    assert srl[3:] == ("0.68", "0.75", "0.75", "1.00 [0.21, 1.00] of 1", "8", "4,000", "60")


def test_every_seed_every_kind_and_every_pair_has_its_row(
    results: list[GeneratedResult], tmp_path: Path
) -> None:
    found = load_evaluations(results, tmp_path)
    assert kinds_table(found).columns == ("arm", "view (n = 1)", "edit (n = 3)")
    assert kinds_table(found).rows[1] == ("SRL", "0.00 / 0.00", "1.00 / 0.90")
    assert edits_table(found).rows[0] == ("warm start", "6", "6", "2", "4", "2", "2")
    assert seeds_table(found, SPLIT).rows[0] == ("warm start", "0", "1 of 2", "1 of 3", "1 of 1")
    assert pairs_table(found, SPLIT).rows == [
        ("SRL", "warm start", "0", "1", "0", "1", "2", "0", "0.5")
    ]


def test_the_page_has_all_tables_and_leads_to_episodes(
    results: list[GeneratedResult], tmp_path: Path
) -> None:
    plan = dataclasses.replace(BUDGETS["hour"], model="model")
    hrefs = {("seed-0/measured-srl", "h1"): "view.html#key=x"}
    save_report(plan, SPLIT, COSTS, results, folder=tmp_path, episodes=hrefs)
    html, table = (tmp_path / "report.html").read_text(), (tmp_path / "table.md").read_text()
    assert '<a href="view.html#key=x">resolved</a>' in html
    text = HtmlPage(html).text
    for words in ("Held out whole: held/out", "Every seed", "McNemar", "decides nothing"):
        assert words in text
        assert words in table
    assert "random weights" not in text
    save_report(GeneratedPlan(), SPLIT, COSTS, results, folder=tmp_path)
    assert "random weights" in (tmp_path / "report.html").read_text()
