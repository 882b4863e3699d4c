from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from transformers import TrainerControl, TrainerState, TrainingArguments

from srl_swe.reports.figures import TOKEN_KINDS
from srl_swe.reports.record import read_metrics
from srl_swe.training.alarms import DIFFERENCE, WeightSyncAlarm
from srl_swe.training.recipe import DynamicSampling, SftRecipe
from srl_swe.training.sft_trainer import train_sft
from srl_swe.training.srl_trainer import train_srl
from srl_swe.training.timing import Stopwatch, TokenCounts, weight_sync


def ticking(*times: float) -> Callable[[], float]:
    """A clock that shows these times, one a look."""
    shown: Iterator[float] = iter(times)
    return lambda: next(shown)


def test_a_phase_inside_another_stops_the_outer_ones_clock() -> None:
    watch = Stopwatch(ticking(0, 1, 4, 6, 6))
    with watch.phase("generate"), watch.phase("reward"):
        pass
    assert watch.take() == {"generate": 1 + 2, "reward": 3}


def test_what_was_taken_is_not_counted_again() -> None:
    watch = Stopwatch(ticking(0, 2, 5, 9, 9, 9))
    with watch.phase("backward"):
        assert watch.take() == {"backward": 2}
        assert watch.take() == {"backward": 3}
    assert watch.take() == {"backward": 4}
    assert watch.take() == {}


def test_a_phase_that_fails_is_closed() -> None:
    watch = Stopwatch(ticking(0, 1, 5))
    with pytest.raises(ZeroDivisionError), watch.phase("reward"):
        raise ZeroDivisionError
    assert watch.take() == {"reward": 1}


def test_a_timed_function_is_what_it_was() -> None:
    watch = Stopwatch(ticking(0, 7, 7))
    add = watch.phase("sync")(lambda a, b: a + b)
    assert add(1, b=2) == 3
    assert watch.take() == {"sync": 7}


class Embedding(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(9, 2)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embed

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.embed, ids, use_reentrant=False).sum()


def test_tokens_are_counted_once_in_the_phase_that_forwards_them() -> None:
    watch, model = Stopwatch(ticking(*range(9))), Embedding()
    counts = TokenCounts(lambda: watch.current)
    counts.watch(model)
    model(torch.ones(5, 5, dtype=torch.long))
    assert counts.take() == {}, "between two phases nothing is counted"
    with watch.phase("backward"):
        model(torch.ones(2, 4, dtype=torch.long)).backward()  # checkpointing forwards them again
    counts.add("backward", [[1, 2], [1, 2], [3]], [2, 1, 0])
    counts.add("backward", [[1, 2]], [1])
    counts.add("generate", [[1]], [1])
    expected = {"backward_computed": 8, "backward_real": 11, "backward_needed": 6}
    assert counts.take() == expected, "a prompt is needed once, and not without a reply"
    assert counts.take() == dict.fromkeys(expected, 0)
    counts.add("backward", [[1, 2]], [1])
    assert counts.take()["backward_needed"] == 3


SHORT_LAST_UPDATES = {
    "per_device_train_batch_size": 8,
    "steps_per_generation": 1,
    "gradient_accumulation_steps": 3,
}
"""Four batches an epoch: three in its first update, one in its second."""


@pytest.mark.train
@pytest.mark.parametrize("batch", [{}, SHORT_LAST_UPDATES], ids=["whole", "short"])
def test_the_phases_of_a_step_are_disjoint_and_sum_up_to_it(
    srl_recipe: Callable[..., Any], warm_policy: Path, batch: dict[str, Any]
) -> None:
    sampling = DynamicSampling(epsilon=0.1, max_rounds=2)
    recipe = srl_recipe(warm_policy, dynamic_sampling=sampling, max_steps=4, beta=0.1, **batch)
    train_srl(recipe)
    for row in read_metrics(Path(recipe.output) / "metrics.jsonl"):
        phases = ("generate", "reward", "logprob", "backward", "optimizer", "other")
        spent = [row[f"time/{phase}_s"] for phase in phases]
        assert min(spent) > 0, "the reference policy's forward pass is logprob"
        assert 0.8 * row["time/step_s"] < sum(spent) <= row["time/step_s"] * 1.001
        assert row["time/tokens_per_s"] > 0
        for phase in ("generate", "logprob", "backward"):
            computed, real, needed = (row[f"tokens/{phase}_{kind}"] for kind in TOKEN_KINDS)
            assert real > needed > 0
            spare = computed - needed if phase == "generate" else computed - real
            assert spare > -64, "the last token of a sampled reply is not forwarded"


@pytest.mark.train
def test_fine_tuning_has_its_seconds_too(policy: Path, data: Path, tmp_path: Path) -> None:
    trainer = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "max_steps": 2}
    train_sft(SftRecipe(str(policy), str(data), str(tmp_path / "run"), trainer=trainer))
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert len(rows) == 2
    for row in rows:
        assert row["time/step_s"] > row["time/optimizer_s"] > 0
        assert row["time/tokens_per_s"] > 0


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


def test_a_server_gets_its_weights_by_trls_way() -> None:
    def sync() -> None:
        pass

    assert weight_sync(SimpleNamespace(mode="server", sync_weights=sync)) is sync
