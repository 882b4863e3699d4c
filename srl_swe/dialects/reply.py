"""The protocol of a dialect, the results of parsing, and the thought before an action."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from srl_swe.types import Action, Observation

Strictness = Literal["strict", "lenient"]
"""``strict``: one thought that is not empty, then one action, nothing else.
``lenient``: one action; the thought may be missing and text may follow. The paper asks for
``<think>...</think>`` followed by the action, without details (section 3)."""


class FormatReason(StrEnum):
    """Why a reply is not in the format, by the names in training logs."""

    NO_THINK = "no_think"
    EMPTY_THOUGHT = "empty_thought"
    NO_ACTION = "no_action"
    TWO_ACTIONS = "two_actions"
    BAD_ACTION = "bad_action"
    BAD_TOOL = "bad_tool"
    TRAILING_TEXT = "trailing_text"


class UnwritableStep(ValueError):
    """The dialect has no text for this step that would be read back as the same step."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A parsed reply: an action, or the reason why it has none."""

    thought: str
    action: Action | None
    reason: FormatReason | None = None
    """None exactly if ``action`` is not."""


@dataclass(frozen=True, slots=True)
class Solution:
    """A parsed reply of any number of actions, for prompts that ask for all remaining ones."""

    thought: str
    actions: tuple[Action, ...]
    reason: FormatReason | None = None
    """None exactly if there are actions."""


class Dialect(Protocol):
    """How system prompt, replies and observations are written. A module can be one."""

    TOOLSET: str
    """The tool set that carries out a rollout's actions (:mod:`srl_swe.tools.toolsets`)."""
    SYSTEM_PROMPT: str
    SOLUTION_PROMPT: str
    """The system prompt that asks for all remaining actions in one reply."""

    def render_action(self, action: Action) -> str:
        """The action's text, which rewards compare and later prompts show.

        Raises UnwritableStep if the dialect has no text for such an action.
        """

    def declare(self, action: Action) -> str:
        """A line about a past action's tool, for the system prompt's list of tools.

        Empty if the list has the tool already, or if the prompt has no list.
        """

    def render_reply(self, thought: str, action: Action) -> str:
        """The reply that :meth:`parse_reply` reads back. Raises UnwritableStep."""

    def parse_reply(
        self, text: str, strictness: Strictness = "strict", *, think_opened: bool = False
    ) -> Reply:
        """Never raises. ``think_opened``: the chat template already wrote the opening tag."""

    def parse_solution(
        self, text: str, strictness: Strictness = "strict", *, think_opened: bool = False
    ) -> Solution:
        """Like :meth:`parse_reply`, for a reply that may hold several actions. Never raises."""

    def render_observation(self, observation: Observation) -> str:
        """The user message that answers an action."""

    def explain(self, reason: FormatReason) -> str:
        """The observation that explains the fault of a reply to the policy."""


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """How the replies of a policy are written and read."""

    dialect: Dialect
    strictness: Strictness = "strict"
    think_opened: bool = False
    """The chat template ends its generation prompt with ``<think>``; replies omit the tag."""
    whole_solution: bool = False
    """A reply holds all remaining actions instead of one."""

    def parse(self, text: str) -> Reply:
        """The reply's single action. Never raises."""
        return self.dialect.parse_reply(text, self.strictness, think_opened=self.think_opened)

    def parse_solution(self, text: str) -> Solution:
        """The reply's actions, one or more. Never raises."""
        return self.dialect.parse_solution(text, self.strictness, think_opened=self.think_opened)


_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)


def split_thought(text: str, *, think_opened: bool = False) -> tuple[str | None, str]:
    """The thought at the start of a reply, or None, and the rest.

    >>> split_thought("<think> why </think>ls")
    ('why', 'ls')
    """
    if text.count("\r\n") == text.count("\n"):  # line ends of the endpoint, not of a file's text
        text = text.replace("\r\n", "\n")
    if think_opened and not text.lstrip().startswith("<think>"):
        text = f"<think>{text}"
    match = _THOUGHT.match(text)
    return (match[1].strip(), text[match.end() :]) if match else (None, text)


def read_answer(
    text: str, strictness: Strictness = "strict", *, think_opened: bool = False
) -> tuple[str, FormatReason | None]:
    """The reply without its thought, and the fault of the thought. Never raises.

    A thought that is not closed is one fault, also of a lenient reader: nothing follows it.

    >>> read_answer("<think>why</think>ls")
    ('ls', None)
    """
    thought, rest = split_thought(text, think_opened=think_opened)
    return rest, thought_fault(thought, rest, strictness)


def write_reply(
    thought: str,
    action: Action,
    render_action: Callable[[Action], str],
    parse_reply: Callable[[str], Reply],
) -> str:
    """Thought and action as one reply. Raises UnwritableStep if it could not be read back."""
    text = f"<think>\n{thought}\n</think>\n\n{render_action(action)}"
    read = parse_reply(text)
    if read.action != action or read.thought != thought.strip():
        raise UnwritableStep(f"this step would be read back as something else ({read.reason})")
    return text


def thought_fault(thought: str | None, rest: str, strictness: Strictness) -> FormatReason | None:
    """The fault of a thought; a lenient reader accepts any closed thought, or none."""
    is_open = thought is None and rest.lstrip().startswith("<think>")
    if thought or (strictness == "lenient" and not is_open):
        return None
    return FormatReason.NO_THINK if thought is None else FormatReason.EMPTY_THOUGHT
