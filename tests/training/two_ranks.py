"""Run by torchrun for several tests: trains on two ranks and writes down what each one saw."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import load_from_disk
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import UserError
from srl_swe.instances import load_instances
from srl_swe.reports.record import read_metrics
from srl_swe.rollout import EpisodeLimits
from srl_swe.training.grpo_trainer import DynamicSamplingGRPOTrainer
from srl_swe.training.load_recipe import load_recipe
from srl_swe.training.preflight import on_every_rank
from srl_swe.training.recipe import DynamicSampling, RlvrRecipe
from srl_swe.training.rlvr_trainer import train_rlvr
from srl_swe.training.srl_trainer import ReplyScorer, StepReward, train_srl
from srl_swe.training.train import leave_process_group
from srl_swe_envs.local import open_local_sandbox

POLICY, WARM, ACTOR, DATA, OUTPUT = sys.argv[1:]
ON_CPU: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "loss_type": "grpo",
    "learning_rate": 1e-3, "max_steps": 2, "save_strategy": "no",
}  # fmt: skip
GRADIENT_IN_WEIGHTS: dict[str, Any] = {
    "gradient_accumulation_steps": 4, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0,
    "max_steps": 1,
}  # fmt: skip


def make_trainer(
    trainer_type: Callable[..., Any], reward: Any, model: str = POLICY, **fields: Any
) -> Any:
    args = GRPOConfig(OUTPUT, **{**ON_CPU, "report_to": "none", "logging_steps": 1, **fields})
    return trainer_type(
        model=model,
        args=args,
        reward_funcs=reward,
        train_dataset=load_from_disk(DATA),
        processing_class=AutoTokenizer.from_pretrained(POLICY, padding_side="left"),
    )


def weights(trainer: Any) -> list[torch.Tensor]:
    return list(trainer.accelerator.unwrap_model(trainer.model).parameters())


class Seen(StepReward):
    """Remembers the prompts of each round."""

    def __call__(self, **columns: Any) -> list[float]:
        steps = zip(columns["instance_id"], columns["step_index"], strict=True)
        self.rounds = [*getattr(self, "rounds", []), sorted({f"{i}/{s}" for i, s in steps})]
        return super().__call__(**columns)


def refill() -> dict[str, Any]:
    """Both ranks refill dead groups."""
    tokenizer = AutoTokenizer.from_pretrained(POLICY, padding_side="left")
    reward = Seen(ReplyScorer(tokenizer, ReplyFormat(get_dialect("xml"))))
    sampling = DynamicSampling(epsilon=0.1, max_rounds=1)
    ours = partial(DynamicSamplingGRPOTrainer, dynamic_sampling=sampling)
    fields: dict[str, Any] = {"model": WARM, "num_generations": 4, "max_completion_length": 24}
    refused = ""
    try:
        make_trainer(ours, reward, per_device_train_batch_size=2, **fields)
    except UserError as error:
        refused = str(error)
    trainer = make_trainer(ours, reward, per_device_train_batch_size=8, **fields)
    trainer.train()
    digest = hashlib.sha256()
    for parameter in weights(trainer):
        digest.update(parameter.detach().numpy().tobytes())
    return {
        "refused": refused,
        "ranks": trainer.accelerator.num_processes,
        "weights": digest.hexdigest(),
        "rounds": reward.rounds,
        "log": [row for row in trainer.state.log_history if "loss" in row],
    }


def beside_trl(share_prompt: bool = False, **fields: Any) -> dict[str, Any]:
    """The same training under TRL's own trainer and under ours."""

    def unlike(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [sum(ids) % 101 / 101 for ids in completion_ids]

    fields |= {"per_device_train_batch_size": 4, "max_completion_length": 8}
    plain = make_trainer(GRPOTrainer, unlike, seed=7, **fields)
    plain.train()
    sharing = partial(DynamicSamplingGRPOTrainer, share_prompt=share_prompt)
    ours = make_trainer(sharing, unlike, seed=7, **fields)  # sets the seed again
    ours.train()
    pairs = list(zip(weights(plain), weights(ours), strict=True))
    return {
        "equal": all(torch.equal(first, second) for first, second in pairs),
        "difference": max(float((first - second).abs().max()) for first, second in pairs),
        "sorts": ours._sorts,
        "shares": ours._shares,
        "group_std": [row["group_std"] for row in ours.state.log_history if "loss" in row],
        "replies": [
            (reply.row["instance_id"], reply.row["step_index"], reply.group, reply.trained)
            for reply in ours.sampled.replies
        ],
    }


def run_recipe() -> str:
    path = Path(OUTPUT, "srl.yaml")
    recipe: Any = load_recipe(path)
    train_srl(recipe)
    return str(path)


def play() -> list[dict[str, Any]]:
    """Episodes that end after unlike many turns."""
    recipe = RlvrRecipe(
        ACTOR,
        "starter",
        f"{OUTPUT}/episodes",
        "episode",
        limits=EpisodeLimits(steps=1 if os.environ["RANK"] == "1" else 3, format_errors=9),
        dynamic_sampling=DynamicSampling(epsilon=0.01, max_rounds=1),
        trainer={
            **ON_CPU,
            "num_generations": 2,
            "per_device_train_batch_size": 2,
            "max_completion_length": 48,
            "temperature": 0.1,
        },
    )
    train_rlvr(recipe, open_local_sandbox, load_instances("starter")[:2], workers=2)
    return read_metrics(Path(OUTPUT, "episodes", "metrics.jsonl"))


def find() -> None:
    """A mistake that one of the ranks finds."""
    if os.environ["RANK"] == "1":
        raise UserError("only here.")


def stop() -> str:
    try:
        on_every_rank(find)
    except UserError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    kinds = {
        "refill": refill,
        "straddle": partial(beside_trl, num_generations=8),
        "sorted": partial(beside_trl, num_generations=4, **GRADIENT_IN_WEIGHTS),
        "shared": partial(beside_trl, True, num_generations=4, **GRADIENT_IN_WEIGHTS),
        "recipe": run_recipe,
        "episodes": play,
        "stop": stop,
    }
    seen = {name: train() for name, train in kinds.items()}
    Path(OUTPUT, f"rank-{os.environ['RANK']}.json").write_text(json.dumps(seen))
    leave_process_group()
    os._exit(0)  # gloo's threads may abort an interpreter that shuts down under load
