from __future__ import annotations

import logging
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from srl_swe.training.timing import DIFFERENCE, WeightSyncAlarm


def logged(folder: Path, differences: list[float | None], rank: int = 0) -> None:
    args, control, alarm = TrainingArguments(str(folder)), TrainerControl(), WeightSyncAlarm()
    for step, difference in enumerate(differences, start=1):
        state = TrainerState(global_step=step, is_world_process_zero=rank == 0)
        logs = {"loss": 0.0} if difference is None else {DIFFERENCE: difference}
        alarm.on_log(args, state, control, logs=logs)


def test_log_probabilities_that_drift_apart_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "srl_swe"):
        logged(tmp_path, [0.0008, 0.01, 0.3, 0.4])
    assert [record.message[:28] for record in caplog.records] == [
        "step 3: the log-probabilities"[:28]
    ]
    assert "0.3 apart" in caplog.text


@pytest.mark.parametrize(("differences", "rank"), [([0.0008, 0.01], 0), ([None], 0), ([0.3], 1)])
def test_synced_weights_no_vllm_and_other_ranks_are_silent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, differences: list[float | None], rank: int
) -> None:
    with caplog.at_level(logging.WARNING, "srl_swe"):
        logged(tmp_path, differences, rank)
    assert not caplog.records
