from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from srl_swe.errors import UserError
from srl_swe.reports.record import RunRecord, find_runs, load_run
from srl_swe.reports.runs import Headline, best, headlines_of, now


def make_run(folder: Path, rows: Sequence[Mapping[str, Any]], **manifest: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def record(*rows: Mapping[str, Any]) -> RunRecord:
    return RunRecord(Path("run"), rows, {}, {}, {})


def test_runs_are_found_at_any_depth_and_a_plain_folder_is_none(tmp_path: Path) -> None:
    make_run(tmp_path / "a" / "one", [{"step": 1}])
    make_run(tmp_path / "two", [])
    (tmp_path / "other").mkdir()
    assert [run.name for run in find_runs([tmp_path])] == ["one", "two"]
    assert [run.name for run in find_runs([tmp_path / "two", tmp_path])] == ["one", "two"]
    with pytest.raises(UserError, match="other holds no run"):
        load_run(tmp_path / "other")
    with pytest.raises(UserError, match="no folder at"):
        find_runs([tmp_path / "missing"])


def test_a_broken_manifest_is_said_in_a_sentence(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [])
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        load_run(folder)


def test_a_run_under_way_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [{"step": 1}, {"step": 2}], starts=[{"max_steps": 9}])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    run = load_run(folder)
    assert (run.step, run.last_step, run.finished) == (2, 9, False)


def test_what_is_no_finite_number_is_no_value() -> None:
    run = record({"step": 1, "a": float("nan")}, {"step": 2}, {"step": 3, "a": None, "b": True})
    assert run.values("a") == [(1, None), (3, None)]
    assert run.values("b") == [(3, None)]


def test_a_rate_that_a_step_leaves_out_is_zero_there_and_another_figure_is_missing() -> None:
    run = record({"step": 1, "format/ok": 1.0}, {"step": 2, "format/no_think": 0.5}, {"step": 3})
    assert run.values("format/no_think") == [(1, 0.0), (2, 0.5)]
    assert record({"step": 1, "a": 1.0}, {"step": 2}).values("a") == [(1, 1.0)]


def test_a_figure_stands_at_the_mean_of_its_last_steps_and_validation_at_its_last() -> None:
    rows = [
        {"step": n, "reward/mean": float(n), "validation/similarity": 1 / n} for n in range(1, 9)
    ]
    reward = Headline("reward", "reward/mean")
    assert now(record(*rows), reward) == 6.0
    assert now(record(*rows), Headline("v", "validation/similarity")) == 1 / 8
    assert best(record(*rows), reward) == (8, 8.0)
    assert best(record(*rows), Headline("v", "validation/similarity")) == (1, 1.0)
    assert now(record(), reward) is None


def test_the_best_is_the_first_of_equals_and_low_where_low_is_good() -> None:
    run = record(*({"step": n, "loss": loss} for n, loss in enumerate((3.0, 1.0, 1.0))))
    assert best(run, Headline("loss", "loss", "low")) == (1, 1.0)
    assert best(run, Headline("loss", "loss", None)) is None


def test_the_loss_of_grpo_is_no_headline_and_that_of_fine_tuning_is() -> None:
    grpo = record({"step": 1, "loss": 0.0, "reward": 1.0, "reward/mean": 0.9})
    sft = record({"step": 1, "loss": 2.0})
    assert [one.key for one in headlines_of([grpo])] == ["reward/mean"]
    assert [one.key for one in headlines_of([grpo, sft])] == ["reward/mean", "loss"]


def test_a_file_of_another_program_under_the_name_of_ours_has_no_step(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('[1]\n{"loss": 1}\n{"step": 3, "loss": 2}\n{"step": 4')
    assert load_run(tmp_path).step == 3
    (tmp_path / "manifest.json").write_text("[1]")
    with pytest.raises(UserError, match=r"manifest.json: damaged \(holds no object\)"):
        load_run(tmp_path)
