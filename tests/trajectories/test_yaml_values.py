from __future__ import annotations

import time
import tracemalloc

import pytest

from srl_swe.trajectories.fields import parse_yaml


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
    ],
    ids=range(15),
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
