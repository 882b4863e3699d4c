"""The rewards that a recipe can name."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from numbers import Real
from operator import itemgetter
from typing import Protocol

from srl_swe.dialects import FormatReason, ReplyFormat
from srl_swe.errors import UserError
from srl_swe.plugins import find_named
from srl_swe.rewards.final_answer import final_answer_rewards
from srl_swe.rewards.gated import gated_rewards
from srl_swe.rewards.holistic import solution_text
from srl_swe.rewards.rule import rule_rewards
from srl_swe.rewards.similarity import similarity_rewards
from srl_swe.rewards.structural import structural_rewards


def exact_rewards(candidates: Iterable[str], expert: str) -> list[float]:
    """Exact match: r = [candidate = expert], 1.0 or 0.0 for each candidate.

    The texts are canonical (:attr:`srl_swe.types.Action.text`): white space around the tags of a
    reply is ignored, the order of arguments is not. Ours; validation reports it beside the
    paper's similarity. Weaknesses: most groups are all 0 and dynamic sampling drops them, and a
    script or an edit of ten lines is never hit. Useful as a share of a mixture.

    >>> exact_rewards(["ls", "ls ", "pwd"], "ls")
    [1.0, 0.0, 0.0]
    """
    return [float(candidate == expert) for candidate in candidates]


class StepRewardFunction(Protocol):
    """An entry of :data:`STEP_REWARDS`."""

    def __call__(self, candidates: Iterable[str], expert: str, /) -> list[float]:
        """Values in [0, 1] of actions' canonical texts, 1 for the expert's own. Never raises.

        -1 for a reply out of the format is given by :func:`group_rewards`.
        """
        ...


STEP_REWARDS: Mapping[str, StepRewardFunction] = {
    "similarity": similarity_rewards,
    "exact": exact_rewards,
    "gated": gated_rewards,
    "structural": structural_rewards,
    "rule": rule_rewards,
    "holistic": similarity_rewards,
    "final_answer": final_answer_rewards,
}
"""By name in recipes and logs. ``similarity`` is the paper's, and the default."""


def find_step_reward(name: str) -> StepRewardFunction:
    """The reward of that name, or an extension (:mod:`srl_swe.plugins`).

    Raises UserError for an unknown name.
    """
    return STEP_REWARDS.get(name) or find_named("reward", name, STEP_REWARDS)


WHOLE_SOLUTION = frozenset({"holistic", "final_answer"})
"""Rewards of replies with all remaining actions; the others judge one action."""


def weight_shares(rewards: Mapping[str, float]) -> dict[str, float]:
    """The weights of a mixture, scaled to add up to 1.

    Thus a mixture lies in [0, 1] as each of its rewards does, a reply out of the format earns
    -1 once, and the epsilon of dynamic sampling means the same for every recipe.
    Raises UserError for an invalid mixture.

    >>> weight_shares({"gated": 3, "exact": 1})
    {'gated': 0.75, 'exact': 0.25}
    """
    for name in rewards:
        find_step_reward(name)
    total = math.fsum(rewards.values())
    if not (all(weight > 0 for weight in rewards.values()) and 0 < total < math.inf):
        raise UserError(f"rewards: weights must be finite and above 0, not {dict(rewards)}.")
    if 0 < len(WHOLE_SOLUTION & set(rewards)) < len(rewards):
        raise UserError(
            f"rewards: {' and '.join(sorted(WHOLE_SOLUTION & set(rewards)))} judge a reply with "
            "all remaining actions, the others one action; they can't be mixed."
        )
    return {name: weight / total for name, weight in rewards.items()}


def asks_for_solution(rewards: Iterable[str]) -> bool:
    """Whether these rewards judge replies that hold all remaining actions."""
    return not WHOLE_SOLUTION.isdisjoint(rewards)


BROKEN_FORMAT = -1.0
"""The reward of a reply that breaks the format (paper, section 3)."""


@dataclass(frozen=True, slots=True)
class StepScore:
    """The reward of one reply. ``similarity`` is None exactly if ``reason`` is not."""

    reward: float
    similarity: float | None
    reason: FormatReason | None


@dataclass(frozen=True, slots=True)
class ReadReply:
    """A reply as rewards see it. ``reason`` is None exactly if ``action`` is not."""

    thought: str
    action: str | None
    """The dialect's text of its action, or of all its actions for a whole solution."""
    reason: FormatReason | None


def read_reply(text: str, form: ReplyFormat) -> ReadReply:
    """Parse a reply in the requested form. Never raises."""
    if form.whole_solution:
        solution = form.parse_solution(text)
        texts = [form.dialect.render_action(action) for action in solution.actions]
        return ReadReply(solution.thought, solution_text(texts) or None, solution.reason)
    reply = form.parse(text)
    action = form.dialect.render_action(reply.action) if reply.action else None
    return ReadReply(reply.thought, action, reply.reason)


def group_rewards(
    replies: Sequence[ReadReply], expert: str, function: StepRewardFunction = similarity_rewards
) -> list[float]:
    """-1 for each reply out of the format, else the function's value for its action.

    Training, validation and difficulty all get their rewards here. ``expert`` is the text of the
    expert's action, or of all remaining ones.
    """
    actions = [reply.action for reply in replies if reply.action]
    given = list(function(actions, expert))
    if len(given) != len(actions) or not all(map(_is_number, given)):
        raise UserError(
            f"the reward {getattr(function, '__name__', function)} gave {given!r:.80} for "
            f"{len(actions)} actions: it must give one finite number for each."
        )
    values = iter(given)
    return [next(values) if reply.action else BROKEN_FORMAT for reply in replies]


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def batch_rewards(
    replies: Iterable[ReadReply], experts: Iterable[str], function: StepRewardFunction
) -> list[float]:
    """:func:`group_rewards` of a batch, on all cores; equal pairs are compared once.

    Texts are compared without holding the GIL. An extension's reward may not be made for threads,
    or judge a group as a whole: it scores group after group, neighbours with one expert, in the
    calling thread.
    """
    rows = list(zip(experts, replies, strict=True))
    if function not in STEP_REWARDS.values():
        scored = (
            group_rewards([reply for _, reply in group], expert, function)
            for expert, group in groupby(rows, itemgetter(0))
        )
        return [reward for rewards in scored for reward in rewards]
    candidates: dict[str, dict[str, None]] = defaultdict(dict)
    for expert, reply in rows:
        if reply.action:
            candidates[expert][reply.action] = None
    cores = os.cpu_count() or 1
    size = max(1, sum(map(len, candidates.values())) // (4 * cores))
    parts = [
        (expert, actions[start : start + size])
        for expert, actions in ((expert, list(held)) for expert, held in candidates.items())
        for start in range(0, len(actions), size)
    ]
    with ThreadPoolExecutor(cores) as pool:
        values = list(pool.map(lambda part: function(part[1], part[0]), parts))
    known = {
        (expert, action): value
        for (expert, actions), part in zip(parts, values, strict=True)
        for action, value in zip(actions, part, strict=True)
    }
    return [
        known[expert, reply.action] if reply.action else BROKEN_FORMAT for expert, reply in rows
    ]


def step_reward(reply_text: str, expert_action: str, form: ReplyFormat) -> StepScore:
    """The paper's reward of one reply (section 3): -1, or the similarity of its action.

    The thought is not compared. With ``form.whole_solution`` both the reply and ``expert_action``
    hold all remaining actions.
    """
    reply = read_reply(reply_text, form)
    (reward,) = group_rewards([reply], expert_action)
    return StepScore(reward, reward if reply.action else None, reply.reason)
