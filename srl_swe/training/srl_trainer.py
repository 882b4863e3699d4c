"""Supervised reinforcement learning on step contexts (paper, sections 3 and 4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from trl.trainer.grpo_config import GRPOConfig

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import UserError
from srl_swe.rewards import (
    ReadReply,
    StepScore,
    asks_for_solution,
    find_step_reward,
    group_rewards,
    read_reply,
    weight_shares,
)
from srl_swe.rollout.replies import check_thought, decode_reply, opens_thought, thought_opening
from srl_swe.training.callbacks import add_callbacks
from srl_swe.training.data import (
    check_dialect,
    check_expert_actions,
    expert_column,
    fitting_prompts,
    load_step_contexts,
    load_tokenizer,
    reply_ends,
    with_solutions,
)
from srl_swe.training.grpo_trainer import DynamicSamplingGRPOTrainer
from srl_swe.training.preflight import check_run, on_every_rank
from srl_swe.training.recipe import SrlRecipe
from srl_swe.training.run_folder import open_run, train_to_end
from srl_swe.training.stats import ScoredReply, reply_stats
from srl_swe.training.trl_config import (
    ModelArguments,
    make_trainer_args,
    model_arguments,
    model_init_kwargs,
    template_kwargs,
    trl_refusals,
)
from srl_swe.training.validate_episodes import ValidationBench

# Step rewards for TRL: one function per name; all of them share one reading of the replies.


@dataclass(frozen=True, slots=True)
class DecodedReply:
    """A sampled reply. ``ended``: by the policy itself, not by the limit of new tokens."""

    text: str
    ended: bool
    read: ReadReply


class ReplyScorer:
    """Reads the replies of a batch, and scores them by each reward of the mixture.

    TRL calls every reward of a mixture with the same list of ids; the readings and scores of
    the last list are cached. A truncated reply keeps its reward: a reply cut before its action
    earns -1, which is a signal.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        replies: ReplyFormat,
        end_ids: Collection[int] = (),
    ) -> None:
        """``end_ids``: the tokens that end a reply; if empty, any special token does."""
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._format = replies
        self._ids: Sequence[Sequence[int]] = ()
        self._replies: list[DecodedReply] = []
        self._rewards: dict[tuple[str, ...], list[float]] = {}

    @property
    def expert_column(self) -> str:
        """The data set's column to compare replies with."""
        return expert_column(self._format)

    def replies(self, completion_ids: Sequence[Sequence[int]]) -> list[DecodedReply]:
        """The replies of a batch, decoded and read."""
        if completion_ids is not self._ids:
            self._replies = [self._read(ids) for ids in completion_ids]
            self._ids, self._rewards = completion_ids, {}
        return self._replies

    def rewards(
        self, name: str, completion_ids: Sequence[Sequence[int]], experts: Sequence[str]
    ) -> list[float]:
        """The reward of that name for each reply; neighbours with one expert are one group."""
        replies, key = self.replies(completion_ids), (name, *experts)
        if key not in self._rewards:
            function = find_step_reward(name)
            rows = zip(experts, (reply.read for reply in replies), strict=True)
            self._rewards[key] = [
                reward
                for expert, group in itertools.groupby(rows, key=lambda row: row[0])
                for reward in group_rewards([read for _, read in group], expert, function)
            ]
        return self._rewards[key]

    def _read(self, ids: Sequence[int]) -> DecodedReply:
        text, ended = decode_reply(self._tokenizer, ids, self._end_ids)
        return DecodedReply(text, ended, read_reply(text, self._format))


class StepReward:
    """One reward function for GRPOTrainer, which logs it as ``rewards/<name>/mean``.

    ``tells``: also fill the columns of TRL's table of completions; one reward per mixture does.
    """

    def __init__(self, scorer: ReplyScorer, name: str = "similarity", *, tells: bool = True):
        self.__name__ = name
        self._scorer = scorer
        self._tells = tells

    def __call__(
        self,
        *,
        completion_ids: Sequence[Sequence[int]],
        log_extra: Callable[[str, list[Any]], None],
        **columns: Any,
    ) -> list[float]:
        """One reward per completion; ``columns`` are those of the step contexts."""
        experts = columns[self._scorer.expert_column]
        if self._tells:
            self._tell(completion_ids, experts, log_extra)
        return list(self._scorer.rewards(self.__name__, completion_ids, experts))

    def _tell(
        self,
        completion_ids: Sequence[Sequence[int]],
        experts: Sequence[str],
        log_extra: Callable[[str, list[Any]], None],
    ) -> None:
        replies = [reply.read for reply in self._scorer.replies(completion_ids)]
        ratios = self._scorer.rewards("similarity", completion_ids, experts)
        similarities = [
            ratio if reply.action else None for ratio, reply in zip(ratios, replies, strict=True)
        ]
        log_extra("expert_action", list(experts))
        log_extra("action", [reply.action for reply in replies])
        log_extra("similarity", similarities)
        log_extra("format", [reply.reason or "ok" for reply in replies])


class SrlTrainer(DynamicSamplingGRPOTrainer):
    """GRPO with a mixture of step rewards.

    ``rewards``: names and weights of the mixture; TRL gets one function per name. Each log has
    the statistics of all replies, over every rank, round and micro-step.
    """

    def __init__(
        self, *args: Any, scorer: ReplyScorer, rewards: Mapping[str, float], **kwargs: Any
    ) -> None:
        functions = [
            StepReward(scorer, name, tells=index == 0) for index, name in enumerate(rewards)
        ]
        kwargs["args"].reward_weights = list(rewards.values())
        super().__init__(*args, reward_funcs=functions, **kwargs)
        self._scorer = scorer
        self._scored: list[ScoredReply] = []

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the statistics to the log; called on every rank."""
        scored, self._scored = self._scored, []
        logs.update(reply_stats(gather_object(scored)))
        super().log(logs, start_time)

    def _calculate_rewards(
        self,
        inputs: list[dict[str, Any]],
        prompts: list[Any],
        completions: list[Any],
        completion_ids_list: list[list[int]],
    ) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.model.training:
            weighted = (rewards * self.reward_weights.to(rewards.device)).sum(dim=1)
            mine = weighted.view(self.accelerator.num_processes, len(inputs))
            values = mine[self.accelerator.process_index].tolist()
            self._scored += self._score(inputs, completion_ids_list, values)
        return rewards

    def _score(
        self,
        inputs: Sequence[Mapping[str, Any]],
        completion_ids: Sequence[Sequence[int]],
        rewards: Sequence[float],
    ) -> list[ScoredReply]:
        experts = [row[self._scorer.expert_column] for row in inputs]
        ratios = self._scorer.rewards("similarity", completion_ids, experts)
        replies = self._scorer.replies(completion_ids)
        return [
            ScoredReply(
                StepScore(reward, ratio if reply.read.action else None, reply.read.reason),
                row["tool"],
                row["step_index"] / row["n_steps"],
                truncated=not reply.ended,
                chars=len(reply.text),
                thought_chars=len(reply.read.thought),
                action_chars=len(reply.read.action or ""),
            )
            for row, reply, reward, ratio in zip(inputs, replies, rewards, ratios, strict=True)
        ]


def train_srl(recipe: SrlRecipe, bench: ValidationBench | None = None) -> Path:
    """Train, or resume training, and return the folder of the final policy.

    A finished run returns at once. ``bench`` is for ``validation.instances``. Raises UserError if
    a check before the first step fails.
    """
    data = load_step_contexts(recipe.data)
    run = open_run(recipe)
    if run.final.is_dir():
        return run.final
    model = model_arguments(recipe)
    args: GRPOConfig = make_trainer_args(GRPOConfig, trainer_section(recipe), run.path, model)
    tokenizer, rows = on_every_rank(lambda: _checked(recipe, args, model, data))
    with trl_refusals():
        trainer = SrlTrainer(
            model=recipe.model,
            args=args,
            train_dataset=rows,
            processing_class=tokenizer,
            dynamic_sampling=recipe.dynamic_sampling,
            scorer=_scorer(recipe, args, tokenizer),
            rewards=weight_shares(recipe.rewards),
            **model.for_trainer,
        )
    add_callbacks(trainer, recipe, run, bench)
    return train_to_end(trainer, run)


def trainer_section(recipe: SrlRecipe) -> dict[str, Any]:
    """The recipe's fields of GRPOConfig; the paper's loss by default, where TRL's is ``dapo``."""
    return {"loss_type": "grpo", **recipe.trainer}


def _checked(
    recipe: SrlRecipe, args: GRPOConfig, model: ModelArguments, data: Dataset
) -> tuple[PreTrainedTokenizerBase, Dataset]:
    """The tokenizer and the rows to train on, after all checks."""
    if args.reward_weights is not None:
        raise UserError("trainer: reward_weights are for `rewards: {name: weight}` to say.")
    check_expert_actions(data, recipe.data)
    check_dialect(data, recipe.data, recipe.dialect)
    tokenizer = load_tokenizer(recipe.model, model.init_kwargs)
    opening = thought_opening(tokenizer, template_kwargs(args))
    check_thought(recipe.model, opening, recipe.strictness)
    whole = asks_for_solution(recipe.rewards)
    if whole:
        data = with_solutions(data, get_dialect(recipe.dialect))
    rows = fitting_prompts(recipe, args, data, tokenizer, as_made=not whole)
    check_run(recipe, args, model, len(rows))
    return tokenizer, rows


def _scorer(recipe: SrlRecipe, args: GRPOConfig, tokenizer: PreTrainedTokenizerBase) -> ReplyScorer:
    replies = ReplyFormat(
        get_dialect(recipe.dialect),
        recipe.strictness,
        opens_thought(tokenizer, template_kwargs(args)),
        asks_for_solution(recipe.rewards),
    )
    revision = model_init_kwargs(args).get("revision")
    return ReplyScorer(tokenizer, replies, reply_ends(recipe.model, tokenizer, revision))
