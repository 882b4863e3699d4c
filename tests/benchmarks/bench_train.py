"""One step of SRL beside the same step of plain TRL, by phase, with its peak memory.

A random Qwen2 of 15 million parameters takes one step of four prompts and eight replies of 100
tokens each; the prompts are about as long as those of real step contexts. Every trainer runs in
a process of its own, one after another, with the same rows and settings:

plain     TRL's GRPOTrainer
trimmed   ours: groups stay together, every pass is cut to the columns that its rows use
shared    ours with ``share_prompt: true``
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_table import Row, publish
from chatml_tokenizer import save_tokenizer
from datasets import Dataset, load_from_disk
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from srl_swe.bundled import bundled
from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.rollout.local_policy import PLAIN
from srl_swe.training.grpo_trainer import DynamicSamplingGRPOTrainer
from srl_swe.training.srl_trainer import ReplyScorer, StepReward
from srl_swe.training.timing import Stopwatch
from srl_swe.trajectories import load_trajectories

PROMPT_TOKENS = (1100, 1400, 1600, 1900)
"""Around the median of 290 real step contexts (SWE-smith's trajectories, windows of two pairs),
which is 1,637 at four characters per token; their ninth decile is 3,056."""
GROUP, REPLY_TOKENS = 8, 100
TRAINERS = ("plain", "trimmed", "shared")
PHASES = ("sample", "reward", "forward_backward")


@dataclass(frozen=True, slots=True)
class Scale:
    """What is trained; ``layers`` and ``hidden`` of a Qwen2 with 8,192 tokens."""

    layers: int
    hidden: int
    prompts: int
    steps: int


FULL = Scale(layers=6, hidden=320, prompts=4, steps=1)
SMALL = Scale(layers=2, hidden=64, prompts=2, steps=1)


def rows(quick: bool) -> list[Row]:
    """Seconds and peak memory of each trainer, all in one run."""
    scale = SMALL if quick else FULL
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _save_policy(scale, folder / "policy")
        _save_rows(scale, folder / "policy", folder / "rows")
        measured = {name: _measure(name, scale, folder) for name in TRAINERS}
    plain = measured["plain"]
    cut, shared = (measured[name] for name in TRAINERS[1:])
    peer = f"plain TRL, {plain['tokens']:.0f} tokens forwarded"
    whole = [
        _row("srl_step_s", "s", shared["step"], plain["step"], peer),
        _row("srl_step_trimmed_s", "s", cut["step"], plain["step"], peer),
        _row("peak_mb", "MB", shared["peak_mb"], plain["peak_mb"], "plain TRL"),
        _row("peak_trimmed_mb", "MB", cut["peak_mb"], plain["peak_mb"], "plain TRL"),
        _row("tokens_forwarded", "1", shared["tokens"], plain["tokens"], "plain TRL"),
        _row("tokens_forwarded_trimmed", "1", cut["tokens"], plain["tokens"], "plain TRL"),
    ]
    parts = [
        _row(f"{phase}{suffix}_s", "s", ours[phase], plain[phase], "plain TRL")
        for suffix, ours in (("", shared), ("_trimmed", cut))
        for phase in PHASES
    ]
    return whole + parts


def _row(metric: str, unit: str, ours: float, peer: float, peer_name: str) -> Row:
    return Row(metric, unit, ours, peer, peer_name, peer / ours if peer and ours else None, 1)


def _measure(name: str, scale: Scale, folder: Path) -> dict[str, float]:
    """Train in another process, whose peak memory is its own."""
    command = [sys.executable, __file__, "--train", name, "--folder", str(folder)]
    ended = subprocess.run(
        [*command, "--steps", str(scale.steps), "--prompts", str(scale.prompts)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def _texts() -> list[str]:
    trajectories = load_trajectories(bundled("trajectories") / "starter.jsonl")
    return [
        text
        for trajectory in trajectories
        for step in trajectory.steps
        for text in (
            step.thought,
            step.action.text if step.action else "",
            step.observation.text if step.observation else "",
        )
    ]


def _save_policy(scale: Scale, folder: Path) -> None:
    save_tokenizer(_texts(), folder, vocab_size=8192)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    config = Qwen2Config(
        vocab_size=8192,
        hidden_size=scale.hidden,
        intermediate_size=4 * scale.hidden,
        num_hidden_layers=scale.layers,
        num_attention_heads=scale.hidden // 32,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)


def _save_rows(scale: Scale, policy: Path, folder: Path) -> None:
    """Prompts of the wanted lengths, from the bundled trajectories' text over and over."""
    tokenizer: Any = AutoTokenizer.from_pretrained(policy)
    ids = tokenizer("\n".join(_texts()))["input_ids"]
    prompts = []
    for number, length in enumerate(PROMPT_TOKENS[: scale.prompts]):
        shifted = ids[1000 * number :] + ids * (length // len(ids) + 1)
        prompts.append([{"role": "user", "content": tokenizer.decode(shifted[: length - 8])}])
    experts = [f"<function=bash>\nls {number}\n</function>" for number in range(scale.prompts)]
    Dataset.from_dict({"prompt": prompts, "expert_action": experts}).save_to_disk(folder)


def train(name: str, folder: Path, steps: int, prompts: int) -> dict[str, float]:
    """Seconds per step by phase, tokens of all forward passes with a loss, peak MB."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    reward = StepReward(ReplyScorer(tokenizer, ReplyFormat(get_dialect("xml"))))
    args = GRPOConfig(
        str(folder / name),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        loss_type="grpo",
        max_steps=steps,
        num_generations=GROUP,
        per_device_train_batch_size=GROUP,
        gradient_accumulation_steps=prompts,
        max_completion_length=REPLY_TOKENS,
        generation_kwargs={"min_new_tokens": REPLY_TOKENS},
        disable_tqdm=True,
        seed=0,
        **PLAIN,
    )
    make: Any = GRPOTrainer
    if name != "plain":
        make = partial(DynamicSamplingGRPOTrainer, share_prompt=name == "shared")
    trainer = make(
        model=str(folder / "policy"),
        args=args,
        reward_funcs=reward,
        train_dataset=load_from_disk(str(folder / "rows")),
        processing_class=tokenizer,
    )
    watch, tokens = Stopwatch(time.perf_counter), _count_tokens(trainer)
    for phase, method in (
        ("sample", "_generate_single_turn"),
        ("reward", "_calculate_rewards"),
        ("forward_backward", "training_step"),
    ):
        setattr(trainer, method, watch.phase(phase)(getattr(trainer, method)))
    with watch.phase("rest"):
        trainer.train()
    spent = {phase: seconds / steps for phase, seconds in watch.take().items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    empty = dict.fromkeys(PHASES, 0.0)
    return {
        **empty,
        **spent,
        "step": sum(spent.values()),
        "tokens": sum(tokens) / steps,
        "peak_mb": peak,
    }


def _count_tokens(trainer: Any) -> list[int]:
    counted: list[int] = []

    def count(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get("fused_lm_head"):
            packed = [part.input_ids for part in kwargs.get("packed", ())]
            counted.append(sum(ids.numel() for ids in packed or [kwargs["input_ids"]]))

    trainer.model.register_forward_pre_hook(count, with_kwargs=True)
    return counted


def main(arguments: Sequence[str]) -> None:
    """Measure all trainers; with ``--train``, be the process of one of them."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--train", choices=TRAINERS)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--prompts", type=int)
    options, rest = parser.parse_known_args(arguments)
    if options.train:
        print(json.dumps(train(options.train, options.folder, options.steps, options.prompts)))
    else:
        publish("One SRL step: four prompts, eight replies of 100 tokens", rows, rest)


if __name__ == "__main__":
    main(sys.argv[1:])
