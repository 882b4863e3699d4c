"""Greedy replies of a policy on step contexts, scored as training scores them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from srl_swe.dialects import ReplyFormat, Strictness, get_dialect
from srl_swe.errors import UserError
from srl_swe.rewards import StepScore, step_reward
from srl_swe.rollout.local_policy import Sampling, encode, generate
from srl_swe.rollout.replies import decode_reply, find_end_ids, opens_thought
from srl_swe.training.data import (
    check_expert_actions,
    expert_column,
    load_step_contexts,
    load_tokenizer,
)
from srl_swe.types import Message

# What the processes of one run agree on.


def most_over_ranks(count: int, accelerator: Any) -> int:
    """The largest of the ranks' counts, so that all of them do something as often as one does."""
    counts = torch.tensor([count], device=accelerator.device)
    return int(accelerator.gather(counts).max())


# The seam between a validation and what it consists of.


Reply = Callable[[Sequence[Sequence[Message]]], list[str]]
"""The live policy's greedy replies to prompts. A collective: every rank calls it as often as the
others do, with as many prompts."""


class Examination(Protocol):
    """One part of a validation, such as held-out steps. Every rank is examined on its share."""

    def __call__(self, reply: Reply, step: int) -> dict[str, float]:
        """Figures by name, the same on every rank; one that can't be known is left out."""
        ...


# Replies sampled from a policy that is not trained: several to each prompt, by transformers.


class StepSampler:
    """The frozen policy. Draws from its plain distribution, whatever its own config asks for.

    ``end_ids``: the tokens that end its replies.
    """

    def __init__(
        self,
        policy: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        samples: int,
        temperature: float,
        max_new_tokens: int,
    ) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = AutoModelForCausalLM.from_pretrained(policy, dtype="auto")
        self._model = model.to(device).eval()
        self._tokenizer = tokenizer
        self._sampling = Sampling(max_new_tokens, temperature, samples)
        self.end_ids = find_end_ids(tokenizer, model.generation_config)

    def sample(self, prompts: Sequence[Any], seed: int) -> list[list[int]]:
        """New token ids, the samples of a prompt one after another; padded to one length."""
        torch.manual_seed(seed)
        encoded = encode(self._tokenizer, prompts, self._model.device)
        return generate(self._model, self._tokenizer, encoded, self._sampling, self.end_ids)


METRICS = {
    "similarity": "similarity_mean",
    "format_rate": "format_rate",
    "exact_match": "exact_rate",
    "reward": "reward_mean",
}
"""What validation logs, and by which a best policy can be chosen: fields of :class:`Scores`."""


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
    template: Mapping[str, Any] | None = None,
) -> Scores:
    """Scores of one greedy reply per step; ``instance_ids`` None means all rows of the data.

    ``template``: variables of the chat template.
    """
    contexts = load_step_contexts(str(data))
    check_expert_actions(contexts, str(data))
    rows = [row for row in contexts if instance_ids is None or row["instance_id"] in instance_ids]
    if not rows:
        raise UserError(f"{data} holds no step of the instances asked for.")
    tokenizer = load_tokenizer(str(policy), {})
    model: Any = AutoModelForCausalLM.from_pretrained(str(policy), dtype="auto")
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    prompts = [row["prompt"] for row in rows]
    texts = greedy_replies(model, tokenizer, prompts, max_new_tokens, batch_size, template)
    form = ReplyFormat(get_dialect(dialect), strictness, opens_thought(tokenizer, template))
    return score_replies(texts, rows, form)


def greedy_replies(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    max_new_tokens: int,
    batch_size: int,
    template: Mapping[str, Any] | None = None,
) -> list[str]:
    """The replies in the order of the prompts; prompts of like length share a batch.

    ``model`` is in eval mode. As many calls of it as there are batches: where parameters are
    sharded, every rank must bring the same number of prompts.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(str(prompts[index])))
    end_ids = find_end_ids(tokenizer, model.generation_config, template)
    replies: dict[int, str] = {}
    for batch in _batches(order, batch_size):
        asked = [prompts[index] for index in batch]
        encoded = encode(tokenizer, asked, model.device, template)
        new_ids = generate(model, tokenizer, encoded, Sampling(max_new_tokens), end_ids)
        for index, ids in zip(batch, new_ids, strict=True):
            replies[index] = decode_reply(tokenizer, ids, end_ids)[0]
    return [replies[index] for index in range(len(prompts))]


def score_replies(
    texts: Sequence[str], rows: Sequence[Mapping[str, Any]], form: ReplyFormat
) -> Scores:
    """Scores of one reply per row, in the order of the rows."""
    expert = expert_column(form)
    scores = [step_reward(text, row[expert], form) for text, row in zip(texts, rows, strict=True)]
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


def _batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
