from __future__ import annotations

import datetime
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from srl_swe.trajectories import BrokenRecord
from srl_swe.trajectories.fields import (
    Fields,
    name_record,
    parse_json,
    parse_yaml,
    render_arguments,
)

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


def bomb(levels: int) -> str:
    first = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    rest = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, levels)]
    return first + "".join(rest)


def merges(levels: int) -> str:
    first = "a0: &a0 {x: 1, y: 2}\n"
    rest = [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, levels)]
    return first + "".join(rest)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (bomb(10), "unfold"),
        (merges(10), "unfold"),
        ('a: &a "' + "x" * 100_000 + '"\nb: [' + ", ".join(["*a"] * 500) + "]", "unfold"),
        ("a: &a [*a]", "refers to a value that holds it"),
        ("a: &a {b: {c: *a}}", "refers to a value that holds it"),
        ("a: 0x" + "f" * 5000, "a number of 5002 digits"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("a: " + "1:" * 300_000 + "1", "a number of 600001 digits"),
        ("a: 0b" + "1" * 100_000, "a number of 100002 digits"),
        ('a: !!int "' + "9" * 5000 + '"', "a number of 5000 digits"),
        ("a: [" * 20_000, "nested too deep"),
        ("- " * 20_000 + "x", "nested too deep"),
        ('!!python/object/apply:os.system ["ls"]', "not YAML"),
        ("a: *x", "not YAML"),
        ("a: 2020-02-31", "day is out of range"),
        ('a: !!int ""', "not YAML"),
        ("a: !!bool maybe", "not YAML"),
        ("a: !!timestamp foo", "not YAML"),
        ("a: " + "1:" * 200 + "1.5", "not YAML"),
        ("a: 0x" + "f" * 3900, "a number of 3902 digits"),
    ],
    ids=range(20),
)
def test_what_would_take_hours_or_gigabytes_is_refused_at_once(text: str, why: str) -> None:
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(ValueError, match=why):
        parse_yaml(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.monotonic() - started < 20
    assert peak < 100 * 2**20


def test_aliases_of_an_honest_file_are_followed() -> None:
    assert parse_yaml("a: &a {b: [1, 2]}\nc: *a") == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}


def test_values_are_those_that_json_has() -> None:
    text = "7: 2020-01-01\ntrue: !!binary aGk=\nset: !!set {x}\nbig: 0xff\n"
    assert parse_yaml(text) == {"7": "2020-01-01", "True": "b'hi'", "set": ["x"], "big": 255}
