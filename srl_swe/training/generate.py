"""Greedy replies of a policy on step contexts, scored as in training."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srl_swe.dialects import ReplyFormat, Strictness, get_dialect
from srl_swe.rewards import batch_rewards, find_step_reward, read_reply, similarity_rewards
from srl_swe.rollout.local_policy import LocalModel, Sampling
from srl_swe.rollout.tokens import thought_opening
from srl_swe.training.data import (
    check_asks_for_steps,
    check_expert_actions,
    expert_column,
    load_step_contexts,
    load_tokenizer,
)
from srl_swe.training.recipe import PAPER_REWARD
from srl_swe.types import Message

Reply = Callable[[Sequence[Sequence[Message]]], list[str]]
"""The live policy's greedy replies to prompts. A collective: every rank calls it equally often and
with equally many prompts."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Validation's metrics over ``n`` replies; one out of format is similarity 0, reward -1."""

    n: int
    similarity: float
    format_rate: float
    exact_match: float
    reward: float


_BATCH = 32
"""Prompts of one call of the model."""


def greedy_scores(
    policy: Path,
    data: Path,
    *,
    dialect: str = "xml",
    strictness: Strictness = "strict",
    max_new_tokens: int = 512,
    template: Mapping[str, Any] | None = None,
) -> Scores:
    """Score one greedy reply per step; ``template``: variables of the chat template."""
    contexts = load_step_contexts(str(data))
    check_asks_for_steps(contexts, str(data))
    check_expert_actions(contexts, str(data))
    rows = list(contexts)
    tokenizer = load_tokenizer(str(policy), {})
    model = LocalModel.load(policy, tokenizer, template)
    texts = greedy_replies(model, [row["prompt"] for row in rows], max_new_tokens, _BATCH)
    is_opened = thought_opening(tokenizer, template) == "opened"
    form = ReplyFormat(get_dialect(dialect), strictness, is_opened)
    return score_replies(texts, rows, form)


def greedy_replies(
    model: LocalModel, prompts: Sequence[Any], max_new_tokens: int, batch_size: int
) -> list[str]:
    """The replies in the order of the prompts.

    The model is called once per batch: if its parameters are sharded, every rank must bring the
    same number of prompts.
    """
    replies: dict[int, str] = {}
    for batch in batches_by_length(prompts, batch_size):
        texts = model.reply([prompts[index] for index in batch], Sampling(max_new_tokens))
        replies.update(zip(batch, texts, strict=True))
    return [replies[index] for index in range(len(prompts))]


def score_replies(
    texts: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    form: ReplyFormat,
    weights: Mapping[str, float] = PAPER_REWARD,
) -> Scores:
    """Scores of one reply per row, in the order of the rows; BROKEN_FORMAT is similarity 0.

    ``weights``: the rewards of the recipe, by name, and their shares of its ``reward``.
    """
    replies = [read_reply(text, form) for text in texts]
    experts = [row[expert_column(form)] for row in rows]
    similarities = batch_rewards(replies, experts, similarity_rewards)
    means = {
        name: statistics.fmean(
            similarities
            if name == "similarity"
            else batch_rewards(replies, experts, find_step_reward(name))
        )
        for name in weights
    }
    return Scores(
        n=len(rows),
        similarity=statistics.fmean(max(similarity, 0.0) for similarity in similarities),
        format_rate=statistics.fmean(reply.reason is None for reply in replies),
        exact_match=statistics.fmean(similarity == 1.0 for similarity in similarities),
        reward=sum(share * means[name] for name, share in weights.items()),
    )


def batches_by_length(prompts: Sequence[Any], size: int) -> list[list[int]]:
    """Indices of the prompts in batches; prompts of similar length share a batch."""
    order = sorted(range(len(prompts)), key=lambda index: len(str(prompts[index])))
    return [order[start : start + size] for start in range(0, len(order), size)]
