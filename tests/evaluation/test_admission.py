from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from srl_swe.errors import UserError
from srl_swe.evaluation.sandbox_tests import check_testable
from srl_swe.evaluation.verdicts import check_gradeable, needing_tests
from srl_swe.instances import instance_from_row, load_instances, row_from_instance
from srl_swe.types import Instance, Prediction

from .conftest import make_instance

A, B = make_instance("a-1"), make_instance("b-1")
ROW = row_from_instance(A)

UNGRADEABLE: dict[str, tuple[dict[str, Any], str]] = {
    "no FAIL_TO_PASS": ({"FAIL_TO_PASS": None}, "its row has no FAIL_TO_PASS"),
    "an empty list": ({"FAIL_TO_PASS": []}, "its row has no FAIL_TO_PASS"),
    "the JSON text of an empty list": ({"FAIL_TO_PASS": "[]"}, "its row has no FAIL_TO_PASS"),
    "an empty text": ({"FAIL_TO_PASS": ""}, "its row has no FAIL_TO_PASS"),
    "an empty name": ({"FAIL_TO_PASS": [""]}, "holds an empty name"),
    "an empty name in JSON": ({"FAIL_TO_PASS": '["t::a", " "]'}, "holds an empty name"),
    "an empty name that passed": ({"PASS_TO_PASS": [""]}, "PASS_TO_PASS holds an empty name"),
    "no script": ({"eval_script": ""}, "its row has no eval_script"),
    "only PASS_TO_PASS": (
        {"FAIL_TO_PASS": [], "PASS_TO_PASS": ["t::b"]},
        "its row has no FAIL_TO_PASS",
    ),
    "nothing at all": (
        {"eval_script": "", "log_parser": "", "eval_type": None, "FAIL_TO_PASS": None},
        "its row has no eval_script, log_parser, eval_type, FAIL_TO_PASS",
    ),
    "a script without marks": ({"eval_script": "pytest\n"}, "does not print '>>>>> Start Test"),
    "a script without an end": (
        {"eval_script": "echo '>>>>> Start Test Output'\npytest\n"},
        "'>>>>> End Test Output'",
    ),
    "an unknown parser": (
        {"log_parser": "parse_log_pytset"},
        r"no log_parser 'parse_log_pytset' \(Did you mean 'parse_log_pytest'\?\)",
    ),
    "another unknown parser": ({"log_parser": "zz"}, "swebench has no log_parser 'zz';"),
    "an unknown type": (
        {"eval_type": "pass_only"},
        "its eval_type 'pass_only' is not one of pass_and_fail, fail_only",
    ),
    "assets that are not JSON": ({"image_assets": "{"}, "image_assets are not a JSON object"),
    "assets that are a list": ({"image_assets": "[1]"}, "image_assets are not a JSON object"),
}


@pytest.mark.parametrize("fault", UNGRADEABLE)
def test_a_row_that_cannot_be_graded_is_refused_in_one_line(fault: str) -> None:
    changes, said = UNGRADEABLE[fault]
    instance = instance_from_row({**ROW, "instance_id": "bad-1", **changes})
    for check in (lambda: check_gradeable([A, instance]), lambda: check_testable(instance)):
        with pytest.raises(UserError, match=said) as refused:
            check()
        assert str(refused.value).startswith("bad-1 can be rolled out but not graded: ")
        assert "\n" not in str(refused.value)


def test_the_other_faulty_rows_are_counted() -> None:
    faulty = [replace(A, fail_to_pass=()), B, replace(B, instance_id="c-1", eval_type="?")]
    with pytest.raises(UserError, match=r"^a-1 .*; 1 other rows can't be graded either\.$"):
        check_gradeable(faulty)


def test_rows_of_swebenchs_schema_pass() -> None:
    check_gradeable([A, B, replace(A, image_assets='{"patch": []}'), *load_instances("starter")])


@pytest.mark.parametrize("tests", [{"t::a": 1}, '{"t::a": 1}', '"t::a"', 7, [["t::a"]], "t::a"])
def test_tests_that_are_not_a_list_of_names_are_refused_as_they_are_read(tests: object) -> None:
    with pytest.raises(UserError, match="FAIL_TO_PASS must be a list of test names"):
        instance_from_row({**ROW, "FAIL_TO_PASS": tests})


@pytest.mark.parametrize(
    ("patches", "tested"),
    [
        ({}, []),
        ({"a-1": "", "b-1": " \n"}, []),
        ({"a-1": "+x", "b-1": ""}, [A]),
        ({"a-1": "\udc80", "b-1": "+x", "z-1": "+x"}, [B]),
    ],
)
def test_only_a_patch_that_can_apply_needs_tests(
    patches: dict[str, str], tested: list[Instance]
) -> None:
    predictions = [Prediction(name, "m", patch) for name, patch in patches.items()]
    assert needing_tests([A, B], predictions) == tested
