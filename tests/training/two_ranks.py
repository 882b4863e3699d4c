"""Run by torchrun from a test: trains on two processes and writes down what each one saw."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from datasets import load_from_disk
from transformers import AutoTokenizer
from trl import GRPOConfig

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import UserError
from srl_swe.training.grpo_trainer import DynamicSamplingGRPOTrainer
from srl_swe.training.recipe import DynamicSampling
from srl_swe.training.srl_trainer import ReplyScorer, StepReward
from srl_swe.training.train import leave_process_group


class Seen(StepReward):
    """Remembers the prompts of each round."""

    def __call__(self, **columns: Any) -> list[float]:
        steps = zip(columns["instance_id"], columns["step_index"], strict=True)
        self.rounds = [*getattr(self, "rounds", []), sorted({f"{i}/{s}" for i, s in steps})]
        return super().__call__(**columns)


def main(policy: str, data: str, output: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    reward = Seen(ReplyScorer(tokenizer, ReplyFormat(get_dialect("xml"))))

    def make_trainer(rows: int) -> DynamicSamplingGRPOTrainer:
        args = GRPOConfig(
            str(output), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
            num_generations=4, per_device_train_batch_size=rows, max_completion_length=24,
            loss_type="grpo", learning_rate=1e-3, max_steps=2, save_strategy="no", logging_steps=1,
        )  # fmt: skip
        return DynamicSamplingGRPOTrainer(
            model=policy,
            args=args,
            reward_funcs=reward,
            train_dataset=load_from_disk(data),
            processing_class=tokenizer,
            dynamic_sampling=DynamicSampling(epsilon=0.1, max_rounds=1),
        )

    refused = ""
    try:
        make_trainer(rows=2)
    except UserError as error:
        refused = str(error)
    trainer = make_trainer(rows=8)
    trainer.train()
    digest = hashlib.sha256()
    for parameter in trainer.accelerator.unwrap_model(trainer.model).parameters():
        digest.update(parameter.detach().numpy().tobytes())
    seen = {
        "refused": refused,
        "ranks": trainer.accelerator.num_processes,
        "weights": digest.hexdigest(),
        "rounds": reward.rounds,
        "log": [row for row in trainer.state.log_history if "loss" in row],
    }
    path = output / f"rank-{trainer.accelerator.process_index}.json"
    path.write_text(json.dumps(seen))
    leave_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    os._exit(0)  # gloo's threads may abort an interpreter that shuts down under load
