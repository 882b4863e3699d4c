from __future__ import annotations

from pathlib import Path

from transformers import TrainerControl, TrainerState, TrainingArguments

from srl_swe.reports.record import read_metrics
from srl_swe.training.callbacks import MetricsLog


def at_step(step: int, rank: int = 0) -> TrainerState:
    return TrainerState(global_step=step, is_world_process_zero=rank == 0)


def log_steps(path: Path, start: int, end: int, rank: int = 0, run: str = "first") -> None:
    """What a Trainer does with its callback from the step that it starts or resumes at."""
    args, control = TrainingArguments(output_dir=str(path.parent)), TrainerControl()
    metrics = MetricsLog(path)
    metrics.on_train_begin(args, at_step(start, rank), control)
    for step in range(start + 1, end + 1):
        metrics.on_log(args, at_step(step, rank), control, logs={"loss": 0.5, "run": run})
    summary = {"train_runtime": 1.0, "train_loss": 0.5}
    metrics.on_log(args, at_step(end, rank), control, logs=summary)


def test_each_step_is_one_line_and_the_summary_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log_steps(path, 0, 3)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    assert len(path.read_text().splitlines()) == 3


def test_a_validation_before_the_first_step_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    args, control = TrainingArguments(output_dir=str(tmp_path)), TrainerControl()
    for _ in range(2):  # the second time as a run that was killed before its first checkpoint
        metrics = MetricsLog(path)
        metrics.on_train_begin(args, at_step(0), control)
        metrics.on_log(args, at_step(0), control, logs={"validation/similarity": 0.5})
    assert read_metrics(path) == [{"step": 0, "validation/similarity": 0.5}]


def test_a_resumed_run_drops_the_steps_that_it_redoes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log_steps(path, 0, 3)
    log_steps(path, 2, 4, run="second")
    rows = [(row["step"], row["run"]) for row in read_metrics(path)]
    assert rows == [(1, "first"), (2, "first"), (3, "second"), (4, "second")]


def test_a_run_from_the_start_forgets_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log_steps(path, 0, 3)
    log_steps(path, 0, 1, run="second")
    assert [(row["step"], row["run"]) for row in read_metrics(path)] == [(1, "second")]


def test_a_line_that_a_kill_cut_short_is_no_row_and_spoils_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log_steps(path, 0, 2)
    with path.open("a") as file:
        file.write('{"step": 3, "los')
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    log_steps(path, 2, 3)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    assert len(path.read_text().splitlines()) == 3


def test_only_the_first_of_several_processes_writes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log_steps(path, 0, 2)
    log_steps(path, 0, 2, rank=1)
    assert len(read_metrics(path)) == 2


def test_a_log_that_does_not_exist_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none.jsonl") == []
