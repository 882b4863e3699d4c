from __future__ import annotations

from threading import Barrier

import pytest

from srl_swe.experiments.experiment import Stage, run_stages


def no_result(*_: object) -> None:
    pass


def test_finished_stages_are_skipped_and_the_others_keep_their_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spent_s, kept = {"one": 20.0}, dict[str, str]()
    stages = [Stage(name, 10.0, name.upper) for name in ("one", "two", "three")]
    run_stages("demo", stages, spent_s, lambda stage, result: kept.__setitem__(stage.title, result))
    assert kept == {"two": "TWO", "three": "THREE"}
    assert spent_s == {"one": 20.0, "two": 0.0, "three": 0.0}
    done, two, three = capsys.readouterr().err.splitlines()
    assert done == "demo 1/3: one: done before"
    assert two == "demo 2/3: two (ETA 0:00:40)", "at the pace of the first, twice the expected"
    assert three == "demo 3/3: three (ETA 0:00:10)"


def test_a_stage_that_fails_ends_the_run_and_stays_undone() -> None:
    spent_s = dict[str, float]()

    def fail() -> None:
        raise ValueError("no engine")

    stages = [Stage("one", 1.0, no_result), Stage("two", 1.0, fail), Stage("three", 1.0, no_result)]
    with pytest.raises(ValueError, match="no engine"):
        run_stages("demo", stages, spent_s, no_result)
    assert spent_s == {"one": 0.0}


def test_as_many_stages_run_at_once_as_are_asked_for() -> None:
    both = Barrier(2, timeout=20)
    spent_s = dict[str, float]()
    stages = [Stage(name, 1.0, both.wait) for name in ("one", "two")]
    run_stages("study", stages, spent_s, no_result, at_once=2)
    assert sorted(spent_s) == ["one", "two"]
