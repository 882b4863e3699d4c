"""The prompt of one step: the issue and a window of the history.

:func:`make_prompt` renders training examples and the prompts of rollouts alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from srl_swe.dialects import Dialect, UnwritableStep
from srl_swe.types import Message, Observation, Step

Item = TypeVar("Item")
CountTokens = Callable[[Sequence[Message]], int]
"""Tokens of messages under the policy's chat template.

If the last message is not the assistant's, the generation prompt is counted too.
"""

WORKDIR = "/testbed"
"""The repository's folder in the system prompts."""
ELIDED = Observation("(old observation left out)")


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the past that a prompt holds.

    ``pairs``: number of the last action/observation pairs; None: the full history. Paper: 2.
    ``observation_chars``: each observation is cut in its middle to this many characters.
    ``token_budget``: None: unlimited; else the oldest observations are left out first, then
    the oldest pairs; the issue is never cut. ``thoughts``: whether past replies keep theirs;
    the paper drops them.
    """

    pairs: int | None = 2
    observation_chars: int = 10_000
    token_budget: int | None = None
    thoughts: bool = False


PAPER_WINDOW = Window()


class OverBudget(ValueError):
    """The issue alone exceeds the token budget."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A past step as two messages: the policy's reply and the observation.

    ``is_writable`` False: the dialect has no form of that action, so no prompt can show it.
    ``declaration`` is a line for the system prompt about a tool missing there, or empty.
    """

    reply: str
    observation: str
    is_writable: bool = True
    declaration: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """``elided`` adds one per observation left out for the budget, and one more per pair."""

    messages: tuple[Message, ...]
    elided: int = 0


def make_messages(
    problem_statement: str,
    history: Sequence[Step],
    dialect: Dialect,
    window: Window = PAPER_WINDOW,
    count_tokens: CountTokens | None = None,
    workdir: str = WORKDIR,
) -> list[Message]:
    """The prompt after ``history``: system, issue, then the window's pairs, oldest first.

    ``workdir`` is the repository's folder. Raises as :func:`make_prompt` does.
    """
    past = [make_pair(step, dialect, window) for step in _last(history, window.pairs)]
    prompt = make_prompt(problem_statement, past, dialect, window, count_tokens, workdir)
    return list(prompt.messages)


def make_pair(step: Step, dialect: Dialect, window: Window) -> Pair:
    """The step as later prompts show it; without an action, the whole text of its reply."""
    observation = dialect.render_observation(step.observation or Observation(""))
    cut = cut_middle(observation, window.observation_chars)
    if step.action is None:
        return Pair(step.thought, cut)
    declaration = dialect.declare(step.action)
    if window.thoughts:
        with suppress(UnwritableStep):  # because of the thought, or else of the action
            return Pair(dialect.render_reply(step.thought, step.action), cut, True, declaration)
    try:
        return Pair(dialect.render_action(step.action), cut, True, declaration)
    except UnwritableStep:
        return Pair("", cut, is_writable=False)


def make_prompt(
    problem_statement: str,
    past: Sequence[Pair],
    dialect: Dialect,
    window: Window = PAPER_WINDOW,
    count_tokens: CountTokens | None = None,
    workdir: str = WORKDIR,
) -> Prompt:
    """The prompt after ``past``, with as little left out as the budget allows.

    Its system prompt names ``workdir``, and declares each foreign tool with a call in the prompt.
    Tokens are counted O(log pairs) times, and once if everything fits.
    Raises OverBudget if the budget can't be met, UnwritableStep if the dialect
    has no form of a past action, ValueError if a budget comes without ``count_tokens``.
    """
    budget, shown = window.token_budget, _last(past, window.pairs)
    if not all(pair.is_writable for pair in shown):
        raise UnwritableStep("the dialect has no form of an action that the prompt has to show")
    marker = dialect.render_observation(ELIDED)
    issue: Message = {"role": "user", "content": problem_statement.strip()}
    system = dialect.SYSTEM_PROMPT.replace(WORKDIR, workdir)

    def prompt(elided: int) -> Prompt:
        pairs = _elide(shown, elided, marker)
        declared = sorted({pair.declaration for pair in pairs} - {""})
        tools = "\n".join([system.rstrip("\n"), *declared]) + "\n" if declared else system
        messages: list[Message] = [{"role": "system", "content": tools}, issue]
        for pair in pairs:
            messages.append({"role": "assistant", "content": pair.reply})
            messages.append({"role": "user", "content": pair.observation})
        return Prompt(tuple(messages), elided)

    whole = prompt(0)
    if budget is None:
        return whole
    if count_tokens is None:
        raise ValueError("a token budget needs count_tokens")
    if count_tokens(whole.messages) <= budget:
        return whole
    rest = range(1, 2 * len(shown) + 1)
    fits = bisect_left(rest, True, key=lambda n: count_tokens(prompt(n).messages) <= budget)
    if fits == len(rest):
        raise OverBudget(f"the issue alone is over {budget} tokens")
    return prompt(rest[fits])


def _elide(shown: Sequence[Pair], elided: int, marker: str) -> list[Pair]:
    """Leave out the oldest ``elided`` observations, and once all are gone, the oldest pairs.

    An observation shorter than the marker stays, hence each elision makes a prompt shorter.
    """
    observations, dropped = min(elided, len(shown)), max(elided - len(shown), 0)
    old = [
        replace(pair, observation=min(pair.observation, marker, key=len))
        for pair in shown[dropped:observations]
    ]
    return [*old, *shown[observations:]]


def _last(items: Sequence[Item], count: int | None) -> Sequence[Item]:
    return items if count is None else items[max(0, len(items) - count) :]


def cut_middle(text: str, limit_chars: int) -> str:
    """The text with its middle replaced by a note of how much was cut, if it is too long."""
    if len(text) <= limit_chars:
        return text
    head, tail = limit_chars // 2, limit_chars - limit_chars // 2
    return f"{text[:head]}\n({len(text) - limit_chars} characters cut)\n{text[-tail:]}"
