"""Step rewards as TRL calls them: a function for each name, over one reading of the replies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from srl_swe.dialects import Dialect, Strictness
from srl_swe.rewards import STEP_REWARDS, ReadReply, group_rewards, read_reply
from srl_swe.rollout.replies import decode_reply


@dataclass(frozen=True, slots=True)
class DecodedReply:
    """A sampled reply. ``ended``: by the policy itself, not by the limit of new tokens."""

    text: str
    ended: bool
    read: ReadReply


class ReplyScorer:
    """Reads the replies of a batch, and scores them under each name that it is asked for.

    TRL calls every reward of a mixture with the same list of ids. What was read and computed
    for the last list is kept, so that a mixture costs no more than its parts. A truncated reply
    keeps its reward: one that was cut before its action earns -1, which is a signal.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        dialect: Dialect,
        strictness: Strictness = "strict",
        *,
        think_opened: bool = False,
        whole_solution: bool = False,
        end_ids: Collection[int] = (),
    ) -> None:
        """``end_ids``: what ends a reply; without them any special token does."""
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._dialect = dialect
        self._strictness = strictness
        self._think_opened = think_opened
        self._whole_solution = whole_solution
        self._ids: Sequence[Sequence[int]] = ()
        self._replies: list[DecodedReply] = []
        self._rewards: dict[tuple[str, ...], list[float]] = {}

    @property
    def expert_column(self) -> str:
        """The column of the data set that replies are compared with."""
        return "expert_solution" if self._whole_solution else "expert_action"

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
            rows = zip(experts, (reply.read for reply in replies), strict=True)
            self._rewards[key] = [
                reward
                for expert, group in itertools.groupby(rows, key=lambda row: row[0])
                for reward in group_rewards([read for _, read in group], expert, STEP_REWARDS[name])
            ]
        return self._rewards[key]

    def _read(self, ids: Sequence[int]) -> DecodedReply:
        text, ended = decode_reply(self._tokenizer, ids, self._end_ids)
        read = read_reply(
            text,
            self._dialect,
            self._strictness,
            think_opened=self._think_opened,
            whole_solution=self._whole_solution,
        )
        return DecodedReply(text, ended, read)


class StepReward:
    """One reward function for GRPOTrainer, which logs it as ``rewards/<name>/mean``.

    ``tells``: it also fills the columns of TRL's table of completions; one of a mixture does.
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
        """One reward a completion; ``columns`` are those of the step contexts."""
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
