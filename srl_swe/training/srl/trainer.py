"""The trainer of SRL: GRPO with a mixture of step rewards, and their statistics in each log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.utils import gather_object  # type: ignore[import-untyped]
from torch import Tensor

from srl_swe.rewards import StepScore
from srl_swe.training.grpo.dynamic_sampling import DynamicSamplingGRPOTrainer
from srl_swe.training.srl.reply_stats import ScoredReply, reply_stats
from srl_swe.training.srl.step_reward import ReplyScorer, StepReward


class SrlTrainer(DynamicSamplingGRPOTrainer):
    """``rewards`` are the mixture's names and weights; TRL is given a function for each.

    What all replies earned, over every rank, round and micro-step, is added to each log.
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
        """Called on every rank."""
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
