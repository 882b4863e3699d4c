from __future__ import annotations

from typing import Any

import pytest

from srl_swe.trajectories import BrokenRecord
from srl_swe.trajectories.fields import Fields
from srl_swe.trajectories.readers import read_record
from srl_swe.trajectories.row_facts import (
    NO_INSTANCE,
    find_outcome,
    find_patch,
    names_instance,
    plain_instance_id,
    with_instance,
)

CALL = {"id": "1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
MESSAGES = [
    {"role": "user", "content": "Fix."},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
]


@pytest.mark.parametrize(
    ("row", "where", "instance_id"),
    [
        ({"instance_id": "tinydb_0"}, "x.json", "tinydb_0"),
        ({"trajectory_id": "a__b-12_run1", "id": "a__b-12_run1_0"}, "x.jsonl:3", "a__b-12"),
        ({"id": "talonhub_community_pr1593_2"}, "x.jsonl:3", "talonhub_community_pr1593"),
        ({"id": "chatcmpl-1", "trajectory_id": "a__b-1"}, "x.jsonl:3", "a__b-1"),
        ({"image": "some/sweb.eval.x86_64.a_1776_b-1:latest"}, "x.jsonl:3", "a__b-1"),
        ({"docker_image": "xingyaoww/sweb.eval.x86_64.a_s_b-1"}, "x.jsonl:3", "a__b-1"),
        ({}, "runs/django__django-11119.traj.json", "django__django-11119"),
    ],
)
def test_the_instance_is_found_where_a_family_keeps_it(
    row: dict[str, Any], where: str, instance_id: str
) -> None:
    found = read_record({"messages": MESSAGES, **row}, where)
    assert (found.instance_id, found.notes) == (instance_id, ())


@pytest.mark.parametrize(
    ("row", "where", "called"),
    [
        ({}, "runs/all.jsonl:3", "all-3"),
        ({}, "runs/a__b-1.jsonl:3", "a__b-1-3"),
        ({"id": "chatcmpl-1"}, "x.jsonl:3", "chatcmpl-1"),
        ({"id": 7}, "x.jsonl:3", "x-3"),
    ],
)
def test_a_row_that_names_no_instance_says_so(row: dict[str, Any], where: str, called: str) -> None:
    found = read_record({"messages": MESSAGES, **row}, where)
    assert (found.instance_id, found.notes) == (called, (NO_INSTANCE,))
    by_hand = with_instance(found, "a__b-1")
    assert (by_hand.instance_id, names_instance(by_hand)) == ("a__b-1", True)
    assert with_instance(by_hand, "c__d-2") == by_hand, "one that is named keeps its name"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("python__mypy-15976_0", "python__mypy-15976"),
        ("astropy__astropy-12907_run1", "astropy__astropy-12907"),
        ("astropy__astropy-12907_run1_0", "astropy__astropy-12907"),
        ("a__b-1.attempt-3", "a__b-1"),
        ("a__b-12_run1_attempt2", "a__b-12"),
        ("django__django-11119__hw3NZYr", "django__django-11119"),
        ("astropy__astropy-12907_20250101_120000", "astropy__astropy-12907"),
        ("python3__cpython", "python3__cpython"),
        ("owner__my-run-12", "owner__my-run-12"),
        ("x_y_pr15_2", "x_y_pr15"),
        ("pandas-dev__pandas.95280573.pr_53652", "pandas-dev__pandas.95280573.pr_53652"),
        ("oauthlib__oauthlib.1fd52536.combine_file__otc4vogi",) * 2,
        ("tinydb_0", "tinydb_0"),
        ("django__django-11119", "django__django-11119"),
    ],
)
def test_the_number_of_an_attempt_is_not_part_of_an_id(text: str, plain: str) -> None:
    assert plain_instance_id(text) == plain


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        ({"reward": 1.0}, True),
        ({"reward": 0}, False),
        ({"reward": 0.5}, False),
        ({"reward": "1.0"}, True),
        ({"reward": None, "target": True}, True),
        ({"resolved": False, "reward": 1.0}, False),
        ({"resolved": 1}, True),
        ({"reward": float("nan")}, None),
        ({"reward": 7}, None),
        ({}, None),
    ],
)
def test_the_outcome_is_a_flag_or_a_reward(row: dict[str, Any], outcome: bool | None) -> None:
    assert find_outcome(Fields(row, "x")) is outcome
    assert read_record({"messages": MESSAGES, "id": "a__b-1", **row}, "x").resolved is outcome


def test_a_reward_of_any_size_is_read() -> None:
    assert find_outcome(Fields({"reward": 10**400}, "x")) is None


def test_beside_hidden_tests_the_patch_is_the_gold_one() -> None:
    row = {"patch": "diff --git a/x b/x\n-a\n", "test_patch": ""}
    assert find_patch(Fields(row, "x")) is None
    assert find_patch(Fields({**row, "model_patch": "diff --git a/y b/y\n"}, "x")) is not None


def test_an_outcome_that_says_neither_is_a_broken_record() -> None:
    with pytest.raises(BrokenRecord, match="resolved"):
        find_outcome(Fields({"resolved": "maybe"}, "x"))


@pytest.mark.parametrize("column", ["model_patch", "rollout_patch", "generated_patch", "patch"])
def test_the_patch_is_in_the_column_of_its_family(column: str) -> None:
    assert find_patch(Fields({column: "diff --git a/x b/x\r\n-a\r"}, "x")) == (
        "diff --git a/x b/x\n-a\r\n"
    )
