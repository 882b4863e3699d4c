"""Results that something has damaged since: one line with the way out, and nothing is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from srl_swe.cli.main import app
from srl_swe.errors import UserError
from srl_swe.evaluation.grading import append_verdict, load_verdicts
from srl_swe.evaluation.predictions import load_predictions
from srl_swe.experiments.policy_evaluation import PolicyResult, load_result
from srl_swe.instances import load_instances
from srl_swe.replay.batch import attempt_all
from srl_swe.reports.record import load_run
from srl_swe.rollout.batch import load_rollouts
from srl_swe.steps.card import load_card
from srl_swe.steps.rows import load_rows
from srl_swe.trajectories.jsonl import load_jsonl, render_line
from srl_swe.types import Outcome, Verdict
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.slow


def read_difficulties(path: Path) -> object:
    pytest.importorskip("trl", reason="needs the extra `train`")
    from srl_swe.training import difficulty

    return difficulty.read_difficulties(path)


ROOT = Path(__file__).parents[2]
STARTER = load_jsonl(ROOT / "trajectories/starter.jsonl")
INSTANCES = {one.instance_id: one for one in load_instances("starter")}
GARBAGE = b"\x80\x00\xff\n"
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda raw: GARBAGE * 50,
    "garbage before": lambda raw: GARBAGE + raw,
    "garbage after": lambda raw: raw + GARBAGE,
    "torn in the middle": lambda raw: raw[: len(raw) // 3] + b"\n" + raw,
    "a list": lambda raw: raw + b"[]\n",
    "a number": lambda raw: raw + b"3\n",
    "nested too deeply": lambda raw: raw + b"[" * 100_000 + b"\n",
}


def replayed(folder: Path) -> None:
    attempt_all(STARTER[:1], INSTANCES, open_local_sandbox, folder, until=1)


PROFILE = {"instance_id": "a", "row": 0, "mean": 0.5, "std": 0.1, "rewards": [0.4, 0.6]}
SHAPES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "replays.jsonl": (replayed, ""),
    "rollouts.jsonl": (lambda folder: load_rollouts(folder / "rollouts.jsonl"),
                       render_line(STARTER[0])),
    "profile.jsonl": (lambda folder: read_difficulties(folder / "profile.jsonl"),
                      json.dumps(PROFILE) + "\n"),
    "predictions.jsonl": (
        lambda folder: load_predictions(folder / "predictions.jsonl", []),
        json.dumps({"instance_id": "a", "model_name_or_path": "m", "model_patch": ""}) + "\n",
    ),
}  # fmt: skip
"""Files of lines: what reads them in a folder, and a whole one; the replays are really made."""


def whole(folder: Path, name: str) -> bytes:
    read, text = SHAPES[name]
    if text:
        (folder / name).write_text(text)
    read(folder)
    return (folder / name).read_bytes()


def assert_named(folder: Path, name: str, damaged: bytes) -> None:
    (folder / name).write_bytes(damaged)
    with pytest.raises(UserError) as raised:
        SHAPES[name][0](folder)
    assert "\n" not in str(raised.value)
    assert f"{name}:" in str(raised.value)
    assert (folder / name).read_bytes() == damaged, "nothing is lost"


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", SHAPES)
def test_a_damaged_line_is_named_and_nothing_is_taken_away(
    tmp_path: Path, name: str, damage: str
) -> None:
    assert_named(tmp_path, name, DAMAGE[damage](whole(tmp_path, name)))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        *(("replays.jsonl", "replay", value) for value in ([], "x", {"a": 1}, 3)),
        *(("replays.jsonl", "seconds", value) for value in (None, [], "x")),
        *(("rollouts.jsonl", "steps", value) for value in (None, "x", [3], {"a": 1})),
        *(("rollouts.jsonl", "format", value) for value in (None, "x", [3])),
        *(("profile.jsonl", "row", value) for value in (None, [], "x", {"a": 1})),
        *(("profile.jsonl", "rewards", value) for value in (None, 3, ["x"], [None])),
        *(("predictions.jsonl", "instance_id", value) for value in (None, [], 3)),
    ],
)
def test_a_line_whose_values_are_of_another_kind_is_named(
    tmp_path: Path, name: str, key: str, value: object
) -> None:
    held = json.loads(whole(tmp_path, name))
    assert_named(tmp_path, name, json.dumps({**held, key: value}).encode() + b"\n")
    del held[key]
    if key != "replay":  # without it the attempt has failed, and is tried again
        assert_named(tmp_path, name, json.dumps(held).encode() + b"\n")


@pytest.mark.parametrize("name", ["replays.jsonl", "rollouts.jsonl"])
def test_the_line_that_a_kill_cut_short_is_no_damage(tmp_path: Path, name: str) -> None:
    raw = whole(tmp_path, name)
    (tmp_path / name).write_bytes(raw + raw[: len(raw) // 2])
    SHAPES[name][0](tmp_path)
    assert (tmp_path / name).read_bytes() == raw


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    raw = whole(tmp_path, "rollouts.jsonl")
    (tmp_path / "rollouts.jsonl").write_bytes(raw.removesuffix(b"\n"))
    assert load_rollouts(tmp_path / "rollouts.jsonl")
    assert (tmp_path / "rollouts.jsonl").read_bytes() == raw


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_verdicts_are_graded_again_and_the_others_are_used(
    tmp_path: Path, damage: str
) -> None:
    log = tmp_path / "verdicts.jsonl"
    append_verdict(log, "key", Verdict("a", Outcome.RESOLVED))
    good = log.read_bytes()
    log.write_bytes(DAMAGE[damage](good))
    assert set(load_verdicts(log)) == (set() if damage == "garbage" else {"key"})
    log.write_bytes(good)
    for field in asdict(Verdict("a", Outcome.RESOLVED)):
        row = json.loads(good) | {field: {"another": "kind"}, "key": f"without {field}"}
        with log.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
    assert set(load_verdicts(log)) == {"key"}


WHOLE_FILES: dict[str, Callable[[Path], Any]] = {
    "result.json": load_result,
    "card.json": load_card,
    "manifest.json": load_run,
}


@pytest.mark.parametrize("content", [GARBAGE, b"", b"{", b"[]", b"3", b"[" * 100_000,
                                     b'{"starts": 3}', b'{"starts": [3]}',
                                     b'{"starts": [{"devices": [3]}]}'], ids=repr)  # fmt: skip
@pytest.mark.parametrize("name", WHOLE_FILES)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as raised:
        WHOLE_FILES[name](tmp_path)
    assert "\n" not in str(raised.value)


def test_damaged_metrics_leave_out_the_lines_that_are_none(tmp_path: Path) -> None:
    good = b'{"step": 1, "loss": 2.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(GARBAGE + b"[" * 100_000 + b"\n" + good + b"[]\n{")
    assert [row["step"] for row in load_run(tmp_path).rows] == [1]
    listed = CliRunner().invoke(app, ["runs", "list", str(tmp_path)])
    assert listed.exit_code == 0, listed.output


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "steps"
    built = CliRunner().invoke(
        app, ["steps", "--out", str(folder), "--limit", "1", "--workers", "1"]
    )
    assert built.exit_code == 0, built.output
    return folder


@pytest.mark.parametrize("damage", ["garbage", "torn in the middle", "a list", "nested too deeply"])
@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000.arrow"])
def test_a_damaged_data_set_is_named(steps: Path, tmp_path: Path, name: str, damage: str) -> None:
    folder = Path(shutil.copytree(steps, tmp_path / "steps"))
    if damage in {"a list", "nested too deeply"} and name.endswith(".arrow"):
        pytest.skip("what follows the end of a table is not read")
    (folder / name).write_bytes(DAMAGE[damage]((folder / name).read_bytes()))
    with pytest.raises(UserError, match="damaged") as raised:
        load_rows(folder)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_result_is_read_back(tmp_path: Path) -> None:
    result = PolicyResult("x", 1, 0.5, 1.0, 0.0, (Verdict("a", Outcome.RESOLVED),))
    (tmp_path / "result.json").write_text(json.dumps(asdict(result)))
    assert load_result(tmp_path) == result
