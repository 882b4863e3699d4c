"""Supervised reinforcement learning on step contexts (paper, sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from trl.trainer.grpo_config import GRPOConfig

from srl_swe.dialects import ReplyFormat
from srl_swe.errors import UserError
from srl_swe.rewards import (
    ReadReply,
    StepScore,
    batch_rewards,
    find_step_reward,
    read_reply,
    weight_shares,
)
from srl_swe.rollout.tokens import decode_reply
from srl_swe.training.callbacks import add_callbacks
from srl_swe.training.data import (
    check_asks_for_steps,
    check_dialect,
    check_expert_actions,
    expert_column,
    fitting_prompts,
    load_step_contexts,
    load_tokenizer,
    reply_ends,
    reply_format,
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
    trl_refusals,
)
from srl_swe.training.validate_episodes import ValidationBench


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
        form: ReplyFormat,
        end_ids: Collection[int] = (),
    ) -> None:
        """``end_ids``: the tokens that end a reply; if empty, any special token does."""
        self.tokenizer = tokenizer
        self.expert_column = expert_column(form)
        """The data set's column to compare replies with."""
        self.form = form
        self.end_ids = end_ids
        self._ids: Sequence[Sequence[int]] = ()
        self._replies: list[DecodedReply] = []
        self._rewards: dict[tuple[str, ...], list[float]] = {}

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
            reads = [reply.read for reply in replies]
            self._rewards[key] = batch_rewards(reads, experts, find_step_reward(name))
        return self._rewards[key]

    def similarities(
        self, completion_ids: Sequence[Sequence[int]], experts: Sequence[str]
    ) -> list[float | None]:
        """The paper's similarity for each reply; None for one out of format."""
        ratios = self.rewards("similarity", completion_ids, experts)
        replies = self.replies(completion_ids)
        return [r if reply.read.action else None for r, reply in zip(ratios, replies, strict=True)]

    def _read(self, ids: Sequence[int]) -> DecodedReply:
        text, ended = decode_reply(self.tokenizer, ids, self.end_ids)
        return DecodedReply(text, ended, read_reply(text, self.form))


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
        scorer = self._scorer
        experts = columns[scorer.expert_column]
        if self._tells:
            replies = [reply.read for reply in scorer.replies(completion_ids)]
            log_extra("expert_action", list(experts))
            log_extra("action", [reply.action for reply in replies])
            log_extra("similarity", scorer.similarities(completion_ids, experts))
            log_extra("format", [reply.reason or "ok" for reply in replies])
        return list(scorer.rewards(self.__name__, completion_ids, experts))


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

    def _keep_replies(
        self, inputs: list[dict[str, Any]], completion_ids: list[list[int]], rewards: Tensor
    ) -> None:
        super()._keep_replies(inputs, completion_ids, rewards)
        mixed = (rewards * self.reward_weights.to(rewards.device)).sum(dim=1).tolist()
        self._scored += scored_replies(self._scorer, inputs, completion_ids, mixed)


def scored_replies(
    scorer: ReplyScorer,
    rows: Sequence[Mapping[str, Any]],
    completion_ids: Sequence[Sequence[int]],
    rewards: Sequence[float],
) -> list[ScoredReply]:
    """Describe each reply for the statistics; ``rewards``: the mixture's."""
    experts = [row[scorer.expert_column] for row in rows]
    similarities = scorer.similarities(completion_ids, experts)
    replies = scorer.replies(completion_ids)
    return [
        ScoredReply(
            StepScore(reward, similarity, reply.read.reason),
            row["tool"],
            row["step_index"] / row["n_steps"],
            truncated=not reply.ended,
            chars=len(reply.text),
            thought_chars=len(reply.read.thought),
            action_chars=len(reply.read.action or ""),
        )
        for row, reply, reward, similarity in zip(rows, replies, rewards, similarities, strict=True)
    ]


def make_srl_trainer(
    recipe: SrlRecipe, args: GRPOConfig, model: ModelArguments, scorer: ReplyScorer, rows: Dataset
) -> SrlTrainer:
    """Make the trainer that samples and trains in turn."""
    with trl_refusals():
        return SrlTrainer(
            model=recipe.model,
            args=args,
            train_dataset=rows,
            processing_class=scorer.tokenizer,
            dynamic_sampling=recipe.dynamic_sampling,
            share_prompt=recipe.share_prompt,
            share_prompt_tokens=recipe.share_prompt_tokens,
            scorer=scorer,
            rewards=weight_shares(recipe.rewards),
            **model.for_trainer,
        )


MakeTrainer = Callable[[SrlRecipe, GRPOConfig, ModelArguments, ReplyScorer, Dataset], Any]


def train_srl(
    recipe: SrlRecipe,
    bench: ValidationBench | None = None,
    make_trainer: MakeTrainer = make_srl_trainer,
) -> Path:
    """Train, or resume training, and return the folder of the final policy.

    A finished run returns at once. ``bench`` is for ``validation.instances``; ``make_trainer``:
    another one for a recipe with ``asynchronous`` (:func:`srl_swe.training.train.train`). Raises
    UserError if a check before the first step fails.
    """
    data = load_step_contexts(recipe.data)
    run = open_run(recipe)
    if run.final.is_dir():
        return run.final
    model = model_arguments(recipe)
    args: GRPOConfig = make_trainer_args(GRPOConfig, trainer_section(recipe), run.path, model)
    scorer, rows = on_every_rank(lambda: _checked(recipe, args, model, data))
    trainer = make_trainer(recipe, args, model, scorer, rows)
    add_callbacks(trainer, recipe, run, bench)
    return train_to_end(trainer, run)


def trainer_section(recipe: SrlRecipe) -> dict[str, Any]:
    """The recipe's fields of GRPOConfig; the paper's loss by default, where TRL's is ``dapo``."""
    return {"loss_type": "grpo", **recipe.trainer}


def _checked(
    recipe: SrlRecipe, args: GRPOConfig, model: ModelArguments, data: Dataset
) -> tuple[ReplyScorer, Dataset]:
    """The scorer and the rows to train on, after all checks."""
    if args.reward_weights is not None:
        raise UserError("trainer: reward_weights are for `rewards: {name: weight}` to say.")
    check_expert_actions(data, recipe.data)
    check_dialect(data, recipe.data, recipe.dialect)
    tokenizer = load_tokenizer(recipe.model, model.init_kwargs)
    form = reply_format(recipe, tokenizer, args)
    if form.whole_solution:
        data = with_solutions(data, form.dialect)
    else:
        check_asks_for_steps(data, recipe.data)
    rows = fitting_prompts(recipe, args, data, tokenizer, as_made=not form.whole_solution)
    check_run(recipe, args, model, len(rows))
    ends = reply_ends(recipe.model, tokenizer, model.init_kwargs.get("revision"))
    return ReplyScorer(tokenizer, form, ends), rows
