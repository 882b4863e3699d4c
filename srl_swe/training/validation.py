"""Greedy replies of a policy on step contexts, scored as training scores them."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from srl_swe.dialects import Strictness, get_dialect
from srl_swe.errors import UserError
from srl_swe.rewards import StepScore, step_reward
from srl_swe.training.checks import load_step_contexts, load_tokenizer
from srl_swe.training.replies import decode_reply, opens_thought


@dataclass(frozen=True, slots=True)
class Scores:
    """``similarity_mean`` counts a reply that breaks the format as 0; ``reward_mean`` as -1."""

    n: int
    reward_mean: float
    similarity_mean: float
    format_rate: float
    exact_rate: float
    exact_instances: tuple[str, ...]
    """Instances of which every step in the data was reproduced to the letter."""


def greedy_scores(
    policy: Path,
    data: Path,
    *,
    instance_ids: Collection[str] | None = None,
    dialect: str = "xml",
    strictness: Strictness = "strict",
    max_new_tokens: int = 512,
    batch_size: int = 32,
) -> Scores:
    """Scores of one greedy reply a step; ``instance_ids`` None means all rows of the data."""
    rows = [
        row
        for row in load_step_contexts(str(data))
        if instance_ids is None or row["instance_id"] in instance_ids
    ]
    if not rows:
        raise UserError(f"{data} holds no step of the instances asked for.")
    tokenizer = load_tokenizer(str(policy), {})
    prompts = [row["prompt"] for row in rows]
    texts = _greedy_replies(policy, tokenizer, prompts, max_new_tokens, batch_size)
    think_opened = opens_thought(tokenizer)
    scores = [
        step_reward(text, row["expert_action"], get_dialect(dialect), strictness, think_opened)
        for text, row in zip(texts, rows, strict=True)
    ]
    return summarise(scores, [row["instance_id"] for row in rows])


def summarise(scores: Sequence[StepScore], instance_ids: Sequence[str]) -> Scores:
    """Scores of all, from the score and the instance of each step."""
    similarities = [score.similarity or 0.0 for score in scores]
    exact = [similarity == 1.0 for similarity in similarities]
    failed = {name for name, is_exact in zip(instance_ids, exact, strict=True) if not is_exact}
    return Scores(
        n=len(scores),
        reward_mean=statistics.fmean(score.reward for score in scores),
        similarity_mean=statistics.fmean(similarities),
        format_rate=statistics.fmean(score.reason is None for score in scores),
        exact_rate=statistics.fmean(exact),
        exact_instances=tuple(sorted(set(instance_ids) - failed)),
    )


def _greedy_replies(
    policy: Path,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """The replies in the order of the prompts; prompts of like length share a batch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(str(policy), dtype="auto")
    model = model.to(device).eval()
    order = sorted(range(len(prompts)), key=lambda index: len(str(prompts[index])))
    replies: dict[int, str] = {}
    for batch in _batches(order, batch_size):
        encoded: Any = tokenizer.apply_chat_template(
            [prompts[index] for index in batch],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            output = model.generate(
                **encoded.to(device), max_new_tokens=max_new_tokens, do_sample=False
            )
        new_ids = output[:, encoded["input_ids"].size(1) :].tolist()
        for index, ids in zip(batch, new_ids, strict=True):
            replies[index] = decode_reply(tokenizer, ids)[0]
    return [replies[index] for index in range(len(prompts))]


def _batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
