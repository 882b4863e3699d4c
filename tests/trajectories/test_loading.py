"""From files, folders, streams and the hub to trajectories that are filtered and counted."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.errors import UserError
from srl_swe.trajectories import (
    BrokenRecord,
    Reading,
    ReadReport,
    load_trajectories,
    parse_filter,
    save_jsonl,
    stream_trajectories,
)
from srl_swe.trajectories.jsonl import render_line
from srl_swe.trajectories.load import Record, read_lines, read_records, read_stream
from srl_swe.trajectories.readers import READERS, read_record
from srl_swe.types import StopReason, Trajectory


def row(instance_id: str) -> dict[str, Any]:
    """A row of SWE-smith's data set."""
    messages = [
        {"role": "user", "content": "<pr_description>\nIt crashes.\n</pr_description>"},
        {"role": "assistant", "content": "Bye.\n\n<function=submit>\n</function>"},
    ]
    return {"instance_id": instance_id, "traj_id": "t", "messages": json.dumps(messages)}


def our_line(instance_id: str) -> str:
    return render_line(Trajectory(instance_id, ()))


def ids(source: str | Path) -> list[str]:
    return [trajectory.instance_id for trajectory in load_trajectories(source)]


def write_one_of_each_kind(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "a.jsonl").write_text(json.dumps(row("a1")) + "\n\n" + our_line("a2"))
    (folder / "b.json").write_text(json.dumps([row("b1"), row("b2")]))
    (folder / "c.json").write_text(our_line("c1") + our_line("c2"))
    (folder / "d.traj").write_text(json.dumps(row("d"), indent=1))
    (folder / "e.txt").write_text("<think>\nx\n</think>\n\n<function=submit>\n</function>\n")
    history = "history:\n  - {role: assistant, content: hello}\n"
    (folder / "deep" / "f.yaml").write_text(history)
    datasets.Dataset.from_list([row("g1"), row("g2")]).to_parquet(folder / "deep" / "g.parquet")
    (folder / "README.md").write_text("no trajectory")


def test_a_folder_is_read_at_any_depth_whatever_the_kind_of_file(tmp_path: Path) -> None:
    write_one_of_each_kind(tmp_path)
    assert ids(tmp_path) == ["a1", "a2", "b1", "b2", "c1", "c2", "d", "f", "g1", "g2", "e"]


def test_compressed_files_are_read_as_the_others(tmp_path: Path) -> None:
    write_one_of_each_kind(tmp_path)
    expected = ids(tmp_path)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert ids(tmp_path) == expected


def test_a_glob_names_files_by_pattern(tmp_path: Path) -> None:
    write_one_of_each_kind(tmp_path)
    assert ids(f"{tmp_path}/[bc].*") == ["b1", "b2", "c1", "c2"]
    assert ids(f"{tmp_path}/**/*.parquet") == ["g1", "g2"]
    with pytest.raises(UserError, match="contains no files"):
        load_trajectories(f"{tmp_path}/x*")


@pytest.mark.parametrize(
    ("text", "places"),
    [
        (our_line("a") + "\n" + our_line("b"), ["stdin:1", "stdin:3"]),
        (json.dumps([row("a"), row("b")]), ["stdin:1:1", "stdin:1:2"]),
        (json.dumps([row("a"), row("b")], indent=1), ["stdin:1", "stdin:2"]),
        (json.dumps(row("a"), indent=1), ["stdin"]),
        ("", []),
    ],
)
def test_what_is_piped_in_is_found_out_by_its_first_line(text: str, places: list[str]) -> None:
    records = list(read_lines(io.BytesIO(text.encode()), "stdin"))
    assert all(isinstance(record, Record) for record in records)
    assert [record.where for record in records] == places


@pytest.mark.parametrize("split", ["", ":train"])
def test_a_data_set_is_streamed_as_from_the_hub(tmp_path: Path, split: str) -> None:
    datasets.Dataset.from_list([row("a"), row("b")]).to_parquet(tmp_path / "train.parquet")
    assert ids(f"hf:{tmp_path}{split}") == ["a", "b"]


def test_a_data_set_or_split_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    datasets.Dataset.from_list([row("a")]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UserError, match="can't be loaded"):
        load_trajectories(f"hf:{tmp_path}:xml")


def test_a_place_names_the_line_or_the_row(tmp_path: Path) -> None:
    write_one_of_each_kind(tmp_path)
    places = [r.where.rpartition("/")[2] for r in read_records(tmp_path)]
    assert places[:5] == ["a.jsonl:1", "a.jsonl:3", "b.json:1", "b.json:2", "c.json:1"]
    assert places[-3:] == ["g.parquet:1", "g.parquet:2", "e.txt"]


def test_lines_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(our_line("a") + "{" + "\n")
    stream = stream_trajectories(path)
    assert next(stream).instance_id == "a"
    with pytest.raises(BrokenRecord, match=r"a\.jsonl:2: not JSON"):
        next(stream)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b"{"),
        ("a.json", b"\xff"),
        ("a.json", b"[" * 200_000),
        ("a.jsonl", b"\xff\n"),
        ("a.jsonl", b'{"x": ' * 200_000 + b"\n"),
        ("a.yaml", b"{"),
        ("a.yaml", b"a: [" * 20_000),
        ("a.yaml", b"a: &a [*a]"),
        ("a.yaml", b"a: 0x" + b"f" * 5000),
        ("a.parquet", b"PAR1"),
        ("a.txt", b"<think>and then? <function=x>"),
        ("a.traj", b"3"),
        ("a.jsonl", b'{"no": "trajectory"}'),
        ("a.jsonl", b"[]"),
        ("a.jsonl.gz", b"{}"),
        ("a.json.gz", gzip.compress(b"{}", mtime=0)[:-9]),
        ("a.json.gz", gzip.compress(b"x", mtime=0)[:10] + b"\xff" * 9),
    ],
)
def test_what_cannot_be_read_is_named_and_can_be_skipped(
    tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "z.jsonl").write_text(our_line("z"))
    with pytest.raises(BrokenRecord, match=f"{name}"):
        load_trajectories(tmp_path)
    report = ReadReport()
    (found,) = load_trajectories(tmp_path, Reading(on_broken="skip"), report)
    assert found.instance_id == "z"
    assert (report.records, report.given, report.dropped) == (2, 1, {"broken": 1})
    assert report.broken[0].where.startswith(f"{tmp_path / name}")


def test_other_files_beside_trajectories_are_counted_and_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "preds.json").write_text('{"a__b-1": {"model_patch": ""}}')
    (tmp_path / "config.yaml").write_text("agent: {}\n")
    (tmp_path / "notes.txt").write_text("went well")
    (tmp_path / "z.jsonl").write_text(our_line("z"))
    report = ReadReport()
    (found,) = load_trajectories(tmp_path, report=report)
    assert found.instance_id == "z"
    assert (report.records, report.dropped) == (4, {"in files of another kind": 3})
    for name in ("preds.json", "config.yaml", "notes.txt"):
        with pytest.raises(BrokenRecord, match="of a known format"):
            load_trajectories(tmp_path / name)


def test_a_run_folder_of_swe_agents_holds_predictions_too(tmp_path: Path) -> None:
    step = {"action": "submit", "observation": "", "thought": "t", "state": {"a": "b"}}
    run = {"environment": "a__b-1", "trajectory": [step], "history": [], "info": {}}
    (tmp_path / "a__b-1").mkdir()
    (tmp_path / "a__b-1" / "a__b-1.traj").write_text(json.dumps(run))
    prediction = {"instance_id": "a__b-1", "model_patch": "", "model_name_or_path": "m"}
    (tmp_path / "all_preds.jsonl").write_text(json.dumps(prediction) + "\n")
    instance = {"instance_id": "a__b-1", "repo": "a/b", "base_commit": "x"}
    (tmp_path / "instances.jsonl").write_text(json.dumps(instance) + "\n")
    report = ReadReport()
    assert [t.instance_id for t in load_trajectories(tmp_path, report=report)] == ["a__b-1"]
    assert report.dropped == {"in files of another kind": 2}
    with pytest.raises(BrokenRecord, match="of a known format"):
        load_trajectories(tmp_path / "all_preds.jsonl")


BOM = "\ufeff"
SCRIPT = "<think>\nx\n</think>\n\n<function=submit>\n</function>\n"
YAML = "history:\n  - {role: assistant, content: hello}\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", our_line("a")),
        ("a.jsonl", our_line("a") + our_line("b")),
        ("a.yaml", YAML),
        ("a.txt", SCRIPT),
    ],
)
def test_a_byte_order_mark_is_not_part_of_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    plain = load_trajectories(tmp_path / name)
    (tmp_path / name).write_text(BOM + text, encoding="utf-8")
    assert load_trajectories(tmp_path / name) == plain


def of_stream(data: bytes) -> list[Trajectory]:
    found = list(read_stream(io.BytesIO(data), "stdin"))
    assert all(isinstance(record, Record) for record in found), found
    return [read_record(r.value, "stdin") for r in found if isinstance(r, Record)]


@pytest.mark.parametrize(
    "text",
    [
        our_line("a") + our_line("b"),
        "\n\n" + our_line("a"),
        json.dumps(row("a")),
        json.dumps(row("a"), indent=1),
        json.dumps([row("a"), row("b")], indent=1),
        json.dumps({"traj_id": "t"})[:-1]
        + ',\n"messages":'
        + json.dumps(row("a")["messages"])
        + "}",
        SCRIPT,
        YAML,
        BOM + our_line("a"),
        BOM + json.dumps(row("a"), indent=1),
    ],
    ids=range(10),
)
def test_stdin_takes_what_a_path_takes(text: str) -> None:
    assert of_stream(text.encode())


def test_a_table_on_stdin_is_read_too(tmp_path: Path) -> None:
    datasets.Dataset.from_list([row("a"), row("b")]).to_parquet(tmp_path / "x.parquet")
    assert len(of_stream((tmp_path / "x.parquet").read_bytes())) == 2


@pytest.mark.parametrize("data", [b"\xff", b"{", b"a: &a [*a]", b"PAR1", b"[" * 100_000, b"hm"])
def test_what_stdin_cannot_be_is_a_broken_record(data: bytes) -> None:
    (record,) = read_stream(io.BytesIO(data), "stdin")
    with pytest.raises(BrokenRecord, match="stdin"):
        raise record if isinstance(record, BrokenRecord) else read_failure(record)


def read_failure(record: Record) -> BrokenRecord:
    try:
        read_record(record.value, record.where)
    except BrokenRecord as broken:
        return broken
    pytest.fail(f"read: {record}")


def test_a_broken_line_of_many_on_stdin_is_one_broken_record() -> None:
    lines = ("broken\n" + our_line("a") + our_line("b")).encode()
    found = list(read_stream(io.BytesIO(lines), "stdin"))
    assert [isinstance(record, Record) for record in found] == [False, True, True]


def test_half_of_a_surrogate_pair_does_not_come_through(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(our_line("a").replace('"a"', '"a\\ud800"'))
    (record,) = read_records(path)
    assert isinstance(record, Record)
    assert record.value["instance_id"] == "a?"


def test_files_are_shuffled_by_their_seed(tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / f"{name}.jsonl").write_text(our_line(name))
    orders = [[r.where for r in read_records(tmp_path, shuffle_seed=s)] for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


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
