"""What a rank sampled in a step, reply by reply, kept until it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srl_swe.training.grpo.groups import fill_slots

ROW_COLUMNS = ("instance_id", "step_index", "n_steps", "tool", "expert_action")
"""What names the prompt and its target; the prompt itself is in the data set."""

TOKENS_WRITTEN = "tokens_written"
"""Column of a sampler whose completions hold what the policy only read: how many it wrote."""


def tokens_written(inputs: Sequence[Mapping[str, Any]], ids: Sequence[Sequence[int]]) -> int:
    """Tokens that were sampled for the rows, those of cut and of dropped replies included."""
    return sum(
        int(row.get(TOKENS_WRITTEN, len(tokens))) for row, tokens in zip(inputs, ids, strict=True)
    )


@dataclass(frozen=True, slots=True)
class SampledReply:
    """One sampled reply. ``trained`` is False for a member of a group that taught nothing."""

    row: Mapping[str, Any]
    ids: Sequence[int]
    rewards: Sequence[float]
    """One a reward function; NaN where it gave none."""
    extras: Mapping[str, Any]
    """What the reward functions told of it through TRL's ``log_extra``."""
    round: int
    """0 for the batch itself, above for the refills of dynamic sampling."""
    group: int
    """Counted over all ranks: replies with the same round and group share a prompt."""
    advantage: float
    trained: bool


@dataclass(frozen=True, slots=True)
class _Scored:
    rows: list[dict[str, Any]]
    ids: list[list[int]]
    rewards: list[list[float]]
    extras: dict[str, list[Any]]

    def extras_of(self, index: int) -> dict[str, Any]:
        return {
            name: values[index]
            for name, values in self.extras.items()
            if len(values) == len(self.rows)
        }


class SampledReplies:
    """This rank's replies of the last step that sampled any."""

    def __init__(self, group_size: int, rank: int = 0) -> None:
        self._group_size = group_size
        self._rank = rank
        self._step = -1
        self._open: list[_Scored] = []
        self._replies: list[SampledReply] = []

    @property
    def replies(self) -> Sequence[SampledReply]:
        """In the order in which they were sampled."""
        return self._replies

    def add_round(
        self,
        step: int,
        inputs: Sequence[Mapping[str, Any]],
        completion_ids: list[list[int]],
        rewards: list[list[float]],
        extras: Mapping[str, list[Any]],
    ) -> None:
        """One call of the sampler, scored; a new ``step`` forgets the one before."""
        if step != self._step:
            self._step, self._open, self._replies = step, [], []
        rows = [{name: row[name] for name in ROW_COLUMNS if name in row} for row in inputs]
        held = {name: list(values) for name, values in extras.items()}
        self._open.append(_Scored(rows, completion_ids, rewards, held))

    def end_batch(
        self, advantages: Sequence[Sequence[float]], live: Sequence[Sequence[bool]] | None
    ) -> None:
        """The rounds since the last call are one batch: what each reply and group is worth.

        ``live``: of each round, which of this rank's groups are worth training on. None is all,
        and then a group may begin on one rank and end on the next.
        """
        trained = {(s.round, s.group) for s in fill_slots(live) if s.live} if live else None
        for number, (scored, values) in enumerate(zip(self._open, advantages, strict=True)):
            first = self._rank * len(values)
            for index, advantage in enumerate(values):
                self._replies.append(
                    SampledReply(
                        scored.rows[index],
                        scored.ids[index],
                        scored.rewards[index],
                        scored.extras_of(index),
                        number,
                        (first + index) // self._group_size,
                        advantage,
                        trained is None or (number, index // self._group_size) in trained,
                    )
                )
        self._open = []
