"""Seconds, tokens and memory of SRL on a random Qwen2 of 0.5 billion parameters, on a GPU.

20 steps at a prompt of 4k tokens, a reply of 512, 8 rollouts a prompt, bfloat16. Random weights do
for speed: replies go to their limit. Without a GPU, or with ``--quick``, a model of a few million
parameters takes short steps, which only shows that the benchmark runs.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from bench_table import Row, publish
from chatml_tokenizer import save_tokenizer
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from srl_swe.bundled import bundled
from srl_swe.dialects import get_dialect
from srl_swe.reports.record import load_run
from srl_swe.steps import save_step_contexts
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.training.recipe import SrlRecipe
from srl_swe.training.srl_trainer import train_srl
from srl_swe.trajectories import load_trajectories
from srl_swe.types import Message

PHASES = ("generate", "reward", "logprob", "backward", "optimizer", "step")
WARM_UP_STEPS = 2


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is trained. The model's sizes are Qwen2's of 0.5 B but for the small scale."""

    model: dict[str, int]
    prompt_tokens: int
    reply_tokens: int
    steps: int
    bf16: bool


FULL = Scale(
    {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
    },
    prompt_tokens=4096,
    reply_tokens=512,
    steps=20,
    bf16=True,
)
SMALL = Scale(
    {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 4096,
    },
    prompt_tokens=512,
    reply_tokens=16,
    steps=3,
    bf16=False,
)


def rows(quick: bool) -> list[Row]:
    """Medians over the steps after the first ones, which allocate and compile."""
    scale = SMALL if quick or not torch.cuda.is_available() else FULL
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        contexts = _contexts()
        _save_policy(scale, contexts, folder / "policy")
        _save_rows(scale, contexts, folder / "policy", folder / "steps")
        train_srl(_recipe(scale, folder))
        logged = load_run(folder / "run").rows[WARM_UP_STEPS:]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, small model"
    figures = [("s", f"{phase}_s", f"time/{phase}_s") for phase in PHASES]
    figures.append(("1/s", "tokens_per_s", "time/tokens_per_s"))
    measured = [
        Row(f"srl_{name}", unit, statistics.median(values), None, device, None, len(values))
        for unit, name, key in figures
        if (values := [row[key] for row in logged if key in row])
    ]
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_reserved() / 2**30
        measured.append(Row("srl_peak_gpu", "GiB", peak, None, device, None, 1))
    return measured


def _contexts() -> list[StepContext]:
    """Of the bundled trajectories."""
    return [
        item
        for trajectory in load_trajectories(bundled("trajectories") / "starter.jsonl")
        for item in make_step_contexts(trajectory, get_dialect("xml"))
        if isinstance(item, StepContext)
    ]


def _save_policy(scale: Scale, contexts: Sequence[StepContext], folder: Path) -> None:
    save_tokenizer((message["content"] for one in contexts for message in one.prompt), folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    config = Qwen2Config(
        **scale.model,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)


def _save_rows(scale: Scale, contexts: Sequence[StepContext], policy: Path, folder: Path) -> None:
    """Prompts of the wanted length: the issue, and then the same lines again and again."""
    tokenizer: Any = AutoTokenizer.from_pretrained(policy)
    filler = "\n".join(message["content"] for one in contexts for message in one.prompt)
    ids = tokenizer(filler, truncation=True, max_length=scale.prompt_tokens)["input_ids"]
    text = tokenizer.decode(ids[: scale.prompt_tokens - 64])
    prompt: tuple[Message, ...] = ({"role": "user", "content": text},)
    rows = [replace(one, prompt=prompt) for one in contexts]
    save_step_contexts(rows, folder, "# For a benchmark\n")


def _recipe(scale: Scale, folder: Path) -> SrlRecipe:
    """Plain GRPO, as no group of random replies has a spread; a filter would only leave it out."""
    return SrlRecipe(
        model=str(folder / "policy"),
        data=str(folder / "steps"),
        output=str(folder / "run"),
        completions_every=0,
        trainer={
            "max_steps": scale.steps,
            "num_generations": 8,
            "per_device_train_batch_size": 8,
            "max_completion_length": scale.reply_tokens,
            "learning_rate": 5e-7,
            "bf16": scale.bf16,
            "use_cpu": not torch.cuda.is_available(),
            "gradient_checkpointing": scale.bf16,
            "save_strategy": "no",
            "generation_kwargs": {"min_new_tokens": scale.reply_tokens},
        },
        model_config={"dtype": "bfloat16"} if scale.bf16 else {},
    )


if __name__ == "__main__":
    publish("SRL, one prompt of 8 rollouts a step", rows)
