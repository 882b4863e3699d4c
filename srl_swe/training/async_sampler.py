"""Groups of asynchronous SRL: sampled and scored in a child process, then taken by steps.

TRL's AsyncGRPO starts the child and asks a vLLM server for replies; here it samples one reply per
request, scores it as synchronous training does, and sends whole groups. The trainer
(:mod:`srl_swe.training.async_srl`) decides which of them to train on.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from trl.experimental.async_grpo.async_rollout_worker import (
    AsyncRolloutWorker,
    RolloutGroup,
    TrainingSequence,
    _AsyncRolloutLoop,
)

from srl_swe.dialects import ReplyFormat, Strictness, get_dialect
from srl_swe.training.grpo_trainer import ROW_COLUMNS
from srl_swe.training.recipe import DynamicSampling
from srl_swe.training.srl_trainer import ReplyScorer, StepReward, scored_replies
from srl_swe.training.stats import ScoredReply


@dataclass(frozen=True, slots=True)
class GroupOrder:
    """The prompts of a run by group number: those of a synchronous run, in its order.

    Each epoch has its own permutation of the ``rows`` and leaves out the last ones if they don't
    fill a batch of ``prompts`` prompts, as TRL's RepeatSampler does.
    """

    rows: int
    prompts: int
    seed: int
    shuffle: bool

    @property
    def groups_per_epoch(self) -> int:
        """Groups of one pass over the data."""
        return self.rows // self.prompts * self.prompts

    def numbered(self, taken: Taken) -> Iterator[tuple[int, int]]:
        """Yield the number and the row of each group that is not ``taken``, without end."""
        generator = torch.Generator().manual_seed(self.seed)
        number = 0
        while True:
            order: Sequence[int] = range(self.rows)
            if self.shuffle:
                order = torch.randperm(self.rows, generator=generator).tolist()
            for row in order[: self.groups_per_epoch]:
                if number not in taken:
                    yield number, row
                number += 1


@dataclass(slots=True)
class Taken:
    """The groups that were trained on or discarded: all below ``first``, and those ``beyond``.

    >>> taken = Taken()
    >>> for number in (0, 2, 1, 4): taken.add(number)
    >>> taken
    Taken(first=3, beyond={4})
    """

    first: int = 0
    beyond: set[int] = field(default_factory=set)

    def add(self, number: int) -> None:
        """Take a group."""
        self.beyond.add(number)
        while self.first in self.beyond:
            self.beyond.remove(self.first)
            self.first += 1

    def __contains__(self, number: int) -> bool:
        return number < self.first or number in self.beyond


@dataclass(frozen=True, slots=True)
class GroupReply:
    """One reply of a group. ``logprobs``: of its tokens, as the server sampled them."""

    ids: Sequence[int]
    logprobs: Sequence[float]
    rewards: Sequence[float]
    """One per reward of the mixture."""
    reward: float
    """The mixture's."""
    extras: Mapping[str, Any]
    """Columns of the table of completions."""
    scored: ScoredReply


@dataclass(slots=True)
class ScoredGroup:
    """The replies to one prompt. ``model_version``: the policy's, when the first was asked for."""

    number: int
    row: Mapping[str, Any]
    prompt_ids: Sequence[int]
    replies: Sequence[GroupReply]
    model_version: int
    score_s: float
    enqueued_at: float | None = None
    """Set by TRL's loop."""


@dataclass
class GroupScorer:
    """Scores a group by the recipe's mixture; can be pickled, unlike the scorer that it makes.

    ``rewards``: names and weights.
    """

    tokenizer: PreTrainedTokenizerBase
    dialect: str
    strictness: Strictness
    think_opened: bool
    whole_solution: bool
    end_ids: Collection[int]
    rewards: Mapping[str, float]

    @cached_property
    def _scorer(self) -> ReplyScorer:
        form = ReplyFormat(
            get_dialect(self.dialect), self.strictness, self.think_opened, self.whole_solution
        )
        return ReplyScorer(self.tokenizer, form, self.end_ids)

    def __call__(
        self,
        rows: Sequence[Mapping[str, Any]],
        completion_ids: Sequence[Sequence[int]],
        logprobs: Sequence[Sequence[float]],
    ) -> list[GroupReply]:
        """Score the replies; ``rows``: the step context of each."""
        columns = {self._scorer.expert_column: [row[self._scorer.expert_column] for row in rows]}
        extras: dict[str, list[Any]] = {}
        by_name = [
            StepReward(self._scorer, name, tells=not index)(
                completion_ids=completion_ids, log_extra=extras.__setitem__, **columns
            )
            for index, name in enumerate(self.rewards)
        ]
        by_reply = list(zip(*by_name, strict=True))
        mixed = [
            sum(weight * reward for weight, reward in zip(self.rewards.values(), of, strict=True))
            for of in by_reply
        ]
        scored = scored_replies(self._scorer, rows, completion_ids, mixed)
        return [
            GroupReply(
                ids=completion_ids[index],
                logprobs=logprobs[index],
                rewards=by_reply[index],
                reward=mixed[index],
                extras={name: values[index] for name, values in extras.items()},
                scored=scored[index],
            )
            for index in range(len(rows))
        ]


class GroupLoop(_AsyncRolloutLoop):
    """TRL's loop with our order of prompts, one turn per reply, and groups sent whole.

    TRL would read a reply for calls of tools, and answer a ``<tool_call>`` of the policy's own
    with a further turn; SRL trains single replies.
    """

    def __init__(
        self,
        *,
        order: GroupOrder,
        taken: Taken,
        scorer: GroupScorer,
        seeded: bool,
        processing_class: PreTrainedTokenizerBase,
        **options: Any,
    ) -> None:
        """``seeded``: give each request a seed, as TRL does for data-parallel engines.

        On a CPU vLLM dies of one if it must read a prompt in parts or anew, as after new weights.
        """
        # TRL refuses a chat template whose replies it can't parse, unless one is set; none is read
        processing_class.response_template = processing_class.response_template or {}
        functions: list[Any] = [scorer]
        super().__init__(
            processing_class=processing_class,
            reward_funcs=functions,
            score_queue_maxsize=1,
            **options,
        )
        self._order, self._taken, self._scorer = order, taken, scorer
        self._seeded = seeded

    def _repeat_iterator(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, row in self._order.numbered(self._taken):
            content = self.dataset[row]
            for _ in range(self.num_generations):
                yield number, content

    async def _generate_one(
        self, prompt: Any, tool_dict: Any, tools: Any, group_id: int = 0
    ) -> Any:
        """One reply: no messages, its ids, one row to train on, and no tools or reward."""
        prompt_ids: Any = self.tokenizer.apply_chat_template(
            list(prompt), return_dict=False, add_generation_prompt=True, **self.chat_template_kwargs
        )
        ids, logprobs = await self._generate_one_turn(prompt_ids)
        mask = [0] * len(prompt_ids) + [1] * len(ids)
        row = TrainingSequence([*prompt_ids, *ids], mask, logprobs, "")
        return [], ids, [row], 0, 0, None

    async def _post(
        self, path: str, payload: dict[str, Any], timeout: float, max_retries: int = 3
    ) -> dict[str, Any]:
        if not self._seeded:
            payload = {name: value for name, value in payload.items() if name != "seed"}
        answer: dict[str, Any] = await super()._post(path, payload, timeout, max_retries)
        return answer

    async def _score_group(self, group: RolloutGroup) -> Any:
        columns, count = group.reward_kwargs, len(group.completions_ids)
        rows = [{name: of[index] for name, of in columns.items()} for index in range(count)]
        sequences = [sequence for (sequence,) in group.completions_sequences]
        started = time.monotonic()
        replies = await asyncio.to_thread(
            self._scorer, rows, group.completions_ids, [row.old_log_probs for row in sequences]
        )
        prompt = sequences[0].input_ids[: -len(replies[0].ids)]
        return [
            ScoredGroup(
                number=group.group_id,
                row={name: rows[0][name] for name in ROW_COLUMNS if name in rows[0]},
                prompt_ids=prompt,
                replies=replies,
                model_version=group.model_version,
                score_s=time.monotonic() - started,
            )
        ]


class GroupWorker(AsyncRolloutWorker):
    """TRL's controller of the child process, which runs :class:`GroupLoop`."""

    _loop_cls = GroupLoop

    def start_after(self, taken: Taken) -> None:
        """Leave out the groups that an earlier start took; called before training."""
        self._loop_kwargs["taken"] = taken


# From sampled groups to the micro-batches of a step, by pure functions. Groups, advantages and
# losses are those of GRPOTrainer; TRL's AsyncGRPO has others.

_ADVANTAGE_EPSILON = 1e-4
"""GRPOTrainer's."""


@dataclass(frozen=True, slots=True)
class StepShape:
    """Sizes of an optimizer step: ``micro_batches`` of ``rows`` replies, in groups of ``group``."""

    micro_batches: int
    rows: int
    group: int

    @property
    def groups(self) -> int:
        """Groups per step."""
        return self.micro_batches * self.rows // self.group


@dataclass(frozen=True, slots=True)
class StepGroups:
    """The groups of a step. ``filling``: dead ones in place of missing live ones."""

    live: Sequence[ScoredGroup]
    filling: Sequence[ScoredGroup]
    dead: Sequence[ScoredGroup]
    """Dead ones, those filling included."""
    stale: int
    """Groups discarded because the policy has moved too far since."""


def take_step(
    next_group: Callable[[], ScoredGroup],
    is_stale: Callable[[ScoredGroup], bool],
    sampling: DynamicSampling | None,
    groups: int,
) -> StepGroups:
    """Collect the groups of a step, in the order of their arrival.

    Without dynamic sampling every group is live. With it, a step that has seen ``groups`` x
    (1 + ``max_rounds``) groups is filled with dead ones.
    """
    live: list[ScoredGroup] = []
    dead: list[ScoredGroup] = []
    stale, most = 0, groups * (1 + (sampling.max_rounds if sampling else 0))
    while len(live) < groups and len(live) + len(dead) < most:
        group = next_group()
        if is_stale(group):
            stale += 1
        elif sampling is None or group_std(group) > sampling.epsilon:
            live.append(group)
        else:
            dead.append(group)
    return StepGroups(live, dead[: groups - len(live)], dead, stale)


def group_std(group: ScoredGroup) -> float:
    """Population standard deviation of the rewards (paper, section 3)."""
    return statistics.pstdev(reply.reward for reply in group.replies)


def advantages(group: ScoredGroup, *, scale: bool) -> list[float]:
    """GRPOTrainer's advantage of each reply; ``scale``: by the sample standard deviation."""
    rewards = [reply.reward for reply in group.replies]
    mean = statistics.fmean(rewards)
    divisor = statistics.stdev(rewards) + _ADVANTAGE_EPSILON if scale else 1.0
    return [(reward - mean) / divisor for reward in rewards]


def loss_factors(
    lengths: Sequence[Sequence[int]], live: Sequence[Sequence[bool]], loss: str, longest: int
) -> list[list[float]]:
    """Return the factor of each reply's advantage that turns TRL's loss into ``loss``.

    ``lengths``: tokens of each reply, by micro-batch; ``live``: whether it trains; ``longest``: the
    limit of new tokens. TRL divides the sum over a micro-batch by its tokens, and averages over the
    micro-batches; PPO's clipped term is proportional to the advantage.
    """
    trained = [
        sum(length for length, is_live in zip(*rows, strict=True) if is_live)
        for rows in zip(lengths, live, strict=True)
    ]
    replies = statistics.fmean(map(sum, live))

    def divisor(length: int, index: int) -> float:
        match loss:
            case "grpo":
                return replies * length
            case "dr_grpo":
                return replies * longest
            case "bnpo":
                return trained[index]
            case _:
                return statistics.fmean(trained)

    return [
        [sum(rows) / (divisor(length, index) or 1.0) for length in rows]
        for index, rows in enumerate(lengths)
    ]


def sample_of(group: ScoredGroup, reply: GroupReply, advantage: float) -> dict[str, Any]:
    """A reply as TRL's collator takes it."""
    before = len(group.prompt_ids)
    return {
        "input_ids": np.array([*group.prompt_ids, *reply.ids], dtype=np.int64),
        "completion_mask": np.array([0] * before + [1] * len(reply.ids), dtype=np.int64),
        "old_log_probs": np.array([0.0] * before + [*reply.logprobs], dtype=np.float32),
        "advantage": advantage,
        "group_id": group.number,
        "metrics": {},
    }
