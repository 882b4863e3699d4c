"""The prompt of one step: the issue and a window of what happened so far.

The same :func:`make_messages` renders training examples and a rollout's prompts, so that what
is trained on is what is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from srl_swe.dialects import Dialect
from srl_swe.types import Message, Observation, Step

CountTokens = Callable[[Sequence[Message]], int]
"""Tokens of a prompt under the policy's chat template, the generation prompt included."""

ELIDED = Observation("(old observation left out)")


@dataclass(frozen=True, slots=True)
class Window:
    """How much of the past a prompt holds.

    ``pairs``: the last so many action/observation pairs; None is the full history. Paper: 2.
    ``observation_chars``: each observation is cut in its middle to this many characters.
    ``token_budget``: None is no limit; else the oldest observations are left out first, then
    the oldest pairs; the issue is never cut.
    """

    pairs: int | None = 2
    observation_chars: int = 10_000
    token_budget: int | None = None


PAPER_WINDOW = Window()


class OverBudget(ValueError):
    """The issue alone exceeds the token budget."""


def make_messages(
    problem_statement: str,
    history: Sequence[Step],
    dialect: Dialect,
    window: Window = PAPER_WINDOW,
    count_tokens: CountTokens | None = None,
) -> list[Message]:
    """The prompt after ``history``: system, issue, then the window's pairs, oldest first.

    Raises OverBudget if the budget can't be met, ValueError if a budget comes without
    ``count_tokens``.
    """
    if window.token_budget is not None and count_tokens is None:
        raise ValueError("a token budget needs count_tokens")
    first = 0 if window.pairs is None else max(0, len(history) - window.pairs)
    shown = history[first:]
    for elided in _elisions(len(shown)):
        messages = _render(problem_statement, shown, elided, dialect, window)
        if window.token_budget is None or count_tokens is None:
            return messages
        if count_tokens(messages) <= window.token_budget:
            return messages
    raise OverBudget(f"the issue alone is over {window.token_budget} tokens")


@dataclass(frozen=True, slots=True)
class _Elision:
    """Leave out the observations of the first ``observations`` pairs, and drop ``pairs``."""

    observations: int
    pairs: int


def _elisions(pairs: int) -> Iterator[_Elision]:
    """From nothing left out to nothing left, the oldest first."""
    yield from (_Elision(observations, 0) for observations in range(pairs + 1))
    yield from (_Elision(pairs, dropped) for dropped in range(1, pairs + 1))


def _render(
    problem_statement: str,
    shown: Sequence[Step],
    elision: _Elision,
    dialect: Dialect,
    window: Window,
) -> list[Message]:
    messages: list[Message] = [
        {"role": "system", "content": dialect.SYSTEM_PROMPT},
        {"role": "user", "content": problem_statement.strip()},
    ]
    for index, step in enumerate(shown):
        if index < elision.pairs:
            continue
        observation = step.observation or Observation("")
        if index < elision.observations:
            observation = ELIDED
        cut = cut_middle(dialect.render_observation(observation), window.observation_chars)
        messages.append({"role": "assistant", "content": _past_reply(step)})
        messages.append({"role": "user", "content": cut})
    return messages


def _past_reply(step: Step) -> str:
    """The action alone, or the whole text of a reply that held none."""
    return step.action.text if step.action else step.thought


def cut_middle(text: str, limit_chars: int) -> str:
    """The text with its middle replaced by a note of how much was cut, if it is too long."""
    if len(text) <= limit_chars:
        return text
    head, tail = limit_chars // 2, limit_chars - limit_chars // 2
    return f"{text[:head]}\n({len(text) - limit_chars} characters cut)\n{text[-tail:]}"
