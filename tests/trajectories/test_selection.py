from __future__ import annotations

from dataclasses import replace

import pytest

from srl_swe.errors import UserError
from srl_swe.trajectories import ReadReport
from srl_swe.trajectories.row_facts import NO_INSTANCE
from srl_swe.trajectories.select import (
    Selection,
    Unselected,
    is_held_out,
    select,
)
from srl_swe.types import Action, Observation, Step, Trajectory

TEACHER = "claude-3-7-sonnet-20250219"


def made(
    number: int, *, instance: str = "a__b-1", resolved: bool | None = True, model: str = TEACHER
) -> Trajectory:
    step = Step(f"thought {number}", Action("bash", {"command": "ls"}), Observation("x"))
    return Trajectory(instance, (step,), resolved=resolved, model=model)


def test_the_papers_selection_counts_what_it_drops() -> None:
    report = ReadReport(records=10)
    all_of_them = [
        made(0),
        made(0),
        made(1, resolved=False),
        made(2, resolved=None),
        made(3, model="gpt-4o"),
        made(4),
        made(5),
        made(6),
        made(0, instance="a__b-2"),
        made(9, instance="Django__django-11119"),
    ]
    selection = Selection(
        resolved_only=True,
        model=TEACHER,
        per_instance=3,
        drop_duplicates=True,
        not_in=frozenset({"django__django-11119"}),
    )
    found = list(select(all_of_them, selection, report))
    assert found == [all_of_them[i] for i in (0, 5, 6, 8)]
    assert report.dropped == {
        Unselected.DUPLICATE: 1,
        Unselected.UNRESOLVED: 1,
        Unselected.RESOLVED_UNKNOWN: 1,
        Unselected.OTHER_MODEL: 1,
        Unselected.INSTANCE_FULL: 1,
        Unselected.EVALUATED: 1,
    }
    assert report.given == len(found)


def test_the_default_selection_drops_nothing() -> None:
    all_of_them = [made(0), made(0), made(1, resolved=None, model="x")]
    assert list(select(all_of_them, Selection())) == all_of_them


def test_a_copys_number_does_not_hide_an_evaluated_instance() -> None:
    selection = Selection(not_in=frozenset({"django__django-11119"}))
    assert not list(select([made(0, instance="django__django-11119_3")], selection))


def test_another_output_makes_another_trajectory() -> None:
    one = made(0)
    other = replace(one, steps=(replace(one.steps[0], observation=Observation("y")),))
    assert list(select([one, other], Selection(drop_duplicates=True))) == [one, other]


def test_a_run_without_steps_and_one_in_which_nothing_ran_are_counted() -> None:
    report = ReadReport(records=3)
    nothing = replace(made(0), steps=(replace(made(0).steps[0], executed=False),))
    empty = replace(made(0), steps=())
    assert list(select([made(0), nothing, empty], Selection(), report)) == [made(0)]
    assert report.dropped == {Unselected.NO_STEPS: 1, Unselected.NOTHING_RAN: 1}


def unnamed(number: int) -> Trajectory:
    return replace(made(number, instance=f"all-{number}"), notes=(NO_INSTANCE,))


NOT_IN = Selection(not_in=frozenset({"a__b-1"}))


def test_a_run_that_names_no_instance_may_be_evaluated_on_and_is_refused() -> None:
    with pytest.raises(UserError, match=r"2 of 4 records name no instance.*--instance"):
        list(select([made(0), unnamed(1), made(2), unnamed(3)], NOT_IN))


def test_what_becomes_of_runs_that_name_no_instance_can_be_said() -> None:
    some = [unnamed(1), made(2, instance="a__b-2")]
    report = ReadReport(records=2)
    assert list(select(some, replace(NOT_IN, unnamed="keep"), report)) == some
    assert report.remarks == ["1 of 2 records name no instance, which --not-in needs"]
    report = ReadReport(records=2)
    assert list(select(some, replace(NOT_IN, unnamed="drop"), report)) == some[1:]
    assert report.dropped == {Unselected.UNNAMED: 1}


def test_runs_that_name_no_instance_are_not_counted_as_one_of_the_same() -> None:
    some, report = [unnamed(1), unnamed(1), made(2), made(3)], ReadReport(records=4)
    assert list(select(some, Selection(per_instance=1), report)) == some[:3]
    assert report.remarks == ["2 of 4 records name no instance, which --per-instance needs"]


def test_how_many_records_name_no_outcome_is_said() -> None:
    report = ReadReport(records=2)
    some = [made(1, resolved=None), made(2)]
    assert list(select(some, Selection(resolved_only=True), report)) == some[1:]
    assert report.remarks == ["1 of 2 records name no outcome, which --resolved-only needs"]


def test_whole_instances_are_held_out_by_a_seeded_split() -> None:
    some = [made(n, instance=f"a__b-{n % 500}") for n in range(1000)]
    held = {t.instance_id for t in some if is_held_out(t, 0.1, seed=7)}
    assert 25 <= len(held) <= 75
    assert held == {t.instance_id for t in reversed(some) if is_held_out(t, 0.1, seed=7)}
    assert held != {t.instance_id for t in some if is_held_out(t, 0.1, seed=8)}
    assert not any(is_held_out(t, 0.0, seed=7) for t in some)
    assert all(is_held_out(t, 1.0, seed=7) for t in some)
