from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.errors import UserError
from srl_swe.trajectories import (
    Reading,
    ReadReport,
    load_trajectories,
    parse_filter,
    save_jsonl,
    stream_trajectories,
)
from srl_swe.trajectories.readers import READERS
from srl_swe.types import StopReason, Trajectory


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty trajectories: every other one resolved, every third one submitted."""
    path = tmp_path_factory.mktemp("twenty") / "all.jsonl"
    made = [
        Trajectory(
            f"{'django' if n < 5 else 'flask'}__x-{n}",
            (),
            resolved=None if n == 19 else n % 2 == 0,
            model=f"claude-{n % 4}",
            stop_reason=StopReason.SUBMITTED if n % 3 == 0 else None,
        )
        for n in range(20)
    ]
    save_jsonl(path, made)
    with path.open("a") as file:
        file.write("broken\n")
    return path


def numbers(path: Path, report: ReadReport | None = None, **options: object) -> list[int]:
    reading = Reading(on_broken="skip", **options)  # type: ignore[arg-type]
    found = load_trajectories(path, reading, report)
    return [int(trajectory.instance_id.rpartition("-")[2]) for trajectory in found]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["resolved=true"], list(range(0, 20, 2))),
        (["resolved=unknown"], [19]),
        (["resolved=false", "instance=django__*"], [1, 3]),
        (["model=claude-0", "stop=submitted"], [0, 12]),
        (["source=srl-swe", "instance=*-7"], [7]),
    ],
)
def test_filters_keep_what_matches_all_of_them(
    twenty: Path, filters: list[str], expected: list[int]
) -> None:
    report = ReadReport()
    assert numbers(twenty, report, filters=tuple(map(parse_filter, filters))) == expected
    assert report.records == 21
    assert report.given == len(expected)
    assert report.dropped["broken"] == 1


@pytest.mark.parametrize("text", ["resolved", "colour=red", "resolved=yes", ""])
def test_a_filter_that_is_none_is_a_mistake(text: str) -> None:
    with pytest.raises(UserError, match="--filter"):
        parse_filter(text)


def test_a_slice_and_a_limit_take_a_part(twenty: Path) -> None:
    assert numbers(twenty, first=3, last=6) == [3, 4, 5]
    assert numbers(twenty, first=18) == [18, 19]
    assert numbers(twenty, limit=2) == [0, 1]
    assert numbers(twenty, first=3, last=9, limit=2) == [3, 4]


def test_a_limit_stops_reading_before_what_is_broken_further_down(twenty: Path) -> None:
    found = list(stream_trajectories(twenty, Reading(limit=20)))
    assert len(found) == 20


def test_a_shuffle_is_decided_by_its_seed(twenty: Path) -> None:
    first, again, other = (numbers(twenty, shuffle_seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == sorted(other) == list(range(20))


@given(
    seed=st.none() | st.integers(0, 9),
    first=st.integers(0, 25),
    length=st.none() | st.integers(0, 25),
    limit=st.none() | st.integers(1, 25),
    resolved=st.booleans(),
)
def test_every_record_is_given_or_counted_as_dropped(
    twenty: Path,
    seed: int | None,
    first: int,
    length: int | None,
    limit: int | None,
    resolved: bool,
) -> None:
    reading = Reading(
        "skip",
        (parse_filter("resolved=true"),) if resolved else (),
        seed,
        first,
        None if length is None else first + length,
        limit,
    )
    report = ReadReport()
    found = list(stream_trajectories(twenty, reading, report))
    assert report.records == len(found) + report.dropped.total()
    assert report.given == len(found)
    assert all(count > 0 for count in report.dropped.values())


def test_nothing_left_is_a_mistake_that_says_what_was_dropped(twenty: Path) -> None:
    with pytest.raises(UserError, match="20 not instance=x"):
        numbers(twenty, filters=(parse_filter("instance=x"),))


def test_the_page_on_steps_lists_every_family() -> None:
    page = Path(__file__).parents[2] / "docs" / "steps.md"
    table = page.read_text(encoding="utf-8").partition("## Input formats")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    sources = {name for cell in cells for name in cell.split("`")[1::2]}
    assert {reader.name for reader in READERS} <= sources
