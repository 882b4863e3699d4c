"""The step-wise similarity reward as TRL calls it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from srl_swe.dialects import Dialect, Strictness
from srl_swe.rewards import StepScore, step_rewards
from srl_swe.training.replies import decode_reply
from srl_swe.training.reply_stats import ScoredReply


class StepReward:
    """A reward function for GRPOTrainer; remembers its scores until they are drained.

    A truncated reply keeps its reward: one that was cut before its action earns -1, which is
    a signal.
    """

    __name__ = "step_reward"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        dialect: Dialect,
        strictness: Strictness = "strict",
        *,
        think_opened: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._dialect = dialect
        self._strictness = strictness
        self._think_opened = think_opened
        self._scored: list[ScoredReply] = []

    def __call__(
        self,
        *,
        completion_ids: Sequence[Sequence[int]],
        expert_action: Sequence[str],
        tool: Sequence[str],
        log_extra: Callable[[str, list[Any]], None],
        **_: Any,
    ) -> list[float]:
        """One reward a completion; the named columns are those of the step contexts."""
        replies = [decode_reply(self._tokenizer, ids) for ids in completion_ids]
        scores = self._score([text for text, _ended in replies], expert_action)
        self._scored += [
            ScoredReply(score, name, not ended, len(text))
            for score, name, (text, ended) in zip(scores, tool, replies, strict=True)
        ]
        log_extra("expert_action", list(expert_action))
        log_extra("similarity", [score.similarity for score in scores])
        log_extra("format", [score.reason or "ok" for score in scores])
        return [score.reward for score in scores]

    def drain(self) -> list[ScoredReply]:
        """This rank's scores since the last call."""
        scored, self._scored = self._scored, []
        return scored

    def _score(self, texts: Sequence[str], expert_actions: Sequence[str]) -> list[StepScore]:
        rows = zip(expert_actions, texts, strict=True)
        scores: list[StepScore] = []
        for expert_action, group in itertools.groupby(rows, key=lambda row: row[0]):
            scores += step_rewards(
                [text for _, text in group],
                expert_action,
                self._dialect,
                self._strictness,
                self._think_opened,
            )
        return scores
