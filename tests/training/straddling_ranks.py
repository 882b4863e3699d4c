"""Run by torchrun from a test: one group over two ranks, under TRL's own trainer and under ours."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import load_from_disk
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from srl_swe.training.grpo_trainer import DynamicSamplingGRPOTrainer
from srl_swe.training.train import leave_process_group


def unlike(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(ids) % 101 / 101 for ids in completion_ids]


def main(policy: str, data: str, output: Path) -> None:
    def trained(trainer_type: type[GRPOTrainer]) -> Any:
        args = GRPOConfig(
            str(output), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
            num_generations=8, per_device_train_batch_size=4, max_completion_length=8, seed=7,
            loss_type="grpo", learning_rate=1e-3, max_steps=2, save_strategy="no", logging_steps=1,
        )  # fmt: skip
        trainer: Any = trainer_type(
            model=policy,
            args=args,
            reward_funcs=unlike,
            train_dataset=load_from_disk(data),
            processing_class=AutoTokenizer.from_pretrained(policy, padding_side="left"),
        )
        trainer.train()
        return trainer

    plain, ours = trained(GRPOTrainer), trained(DynamicSamplingGRPOTrainer)
    weights = [[*one.accelerator.unwrap_model(one.model).parameters()] for one in (plain, ours)]
    seen = {
        "equal": all(torch.equal(a, b) for a, b in zip(*weights, strict=True)),
        "group_std": [row["group_std"] for row in ours.state.log_history if "loss" in row],
        "replies": [
            (reply.row["instance_id"], reply.row["step_index"], reply.group, reply.trained)
            for reply in ours.sampled.replies
        ],
    }
    path = output / f"rank-{ours.accelerator.process_index}.json"
    path.write_text(json.dumps(seen))
    leave_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    os._exit(0)  # gloo's threads may abort an interpreter that shuts down under load
