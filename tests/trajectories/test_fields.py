from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from srl_swe.trajectories import BrokenRecord
from srl_swe.trajectories.fields import Fields, name_record, parse_json, render_arguments

ROW = Fields.of({"a": {"b": [{"c": 3}, {"c": "x"}], "t": "{", "n": None}}, "runs.jsonl:17")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: ROW.text("z"), "z: missing"),
        (lambda: ROW.text("a"), "a: expected a text, found an object"),
        (lambda: ROW.mapping("a").text("n"), "a.n: missing"),
        (lambda: ROW.mapping("a").mapping("t"), "a.t: not JSON"),
        (lambda: ROW.mapping("a").items("b")[0].text("c"), "a.b.0.c: expected a text"),
        (lambda: ROW.items("a"), "a: expected a list, found an object"),
        (lambda: ROW.optional_bool("a"), "a: expected true or false"),
        (lambda: ROW.optional_int("a"), "a: expected a whole number"),
        (lambda: Fields.of({"x": [3]}, "f").content("x"), "x.0: expected an object"),
        (lambda: Fields.of(None, "f"), "expected an object, found null"),
    ],
)
def test_a_wrong_value_is_named_with_its_path(read: Callable[[], Any], message: str) -> None:
    with pytest.raises(BrokenRecord) as error:
        read()
    assert message in str(error.value)
    assert error.value.where in {"runs.jsonl:17", "f"}


def test_what_is_not_there_is_none_or_empty() -> None:
    assert ROW.optional_text("z") is None
    assert ROW.items("z") == []
    assert ROW.mapping("z").values == {}
    assert ROW.content("z") == ""


def test_json_within_text_is_read_as_if_it_was_none() -> None:
    row = Fields.of({"list": '[{"a": "x"}]', "map": '{"b": true}'}, "f")
    assert row.items("list")[0].text("a") == "x"
    assert row.mapping("map").optional_bool("b") is True


def test_a_message_of_parts_is_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, "b", {"type": "image_url"}, {"text": "c"}]
    assert Fields.of({"content": parts}, "f").content() == "abc"


def test_arguments_become_texts_and_null_means_not_given() -> None:
    day = datetime.date(2026, 1, 2)
    given = {"a": "é", "b": [1, 50], "c": True, "d": None, "e": day}
    assert render_arguments(given) == {"a": "é", "b": "[1, 50]", "c": "true", "e": '"2026-01-02"'}


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, "1" * 5000])
def test_whatever_is_no_json_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("runs/a__b-1.traj", "a__b-1"),
        ("a__b.1.pr_2.traj.json", "a__b.1.pr_2"),
        ("runs/all.jsonl:3", "all-3"),
        ("stdin", "stdin"),
        ("", ""),
    ],
)
def test_a_record_without_an_id_is_called_after_its_file(where: str, name: str) -> None:
    assert name_record(where) == name
