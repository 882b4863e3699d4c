"""The thought before an action, as the paper's format has it: ``<think>...</think>``."""

from __future__ import annotations

import re

from srl_swe.dialects.reply import FormatReason, Reply, Strictness, UnwritableStep
from srl_swe.types import Action

_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)


def split_thought(text: str, *, think_opened: bool = False) -> tuple[str | None, str]:
    """The thought that a reply begins with, None where it doesn't, and what follows.

    >>> split_thought("<think> why </think>ls")
    ('why', 'ls')
    """
    if think_opened and not text.lstrip().startswith("<think>"):
        text = f"<think>{text}"
    match = _THOUGHT.match(text)
    return (match[1].strip(), text[match.end() :]) if match else (None, text)


def join_thought(thought: str, action: str) -> str:
    """The reply of a thought and the text of an action."""
    return f"<think>\n{thought}\n</think>\n\n{action}"


def check_read_back(read: Reply, thought: str, action: Action) -> None:
    """Raises UnwritableStep unless a written reply was read back as what it was made of."""
    if read.action != action or read.thought != thought.strip():
        raise UnwritableStep(f"this step would be read back as something else ({read.reason})")


def thought_fault(thought: str | None, strictness: Strictness) -> FormatReason | None:
    """What is wrong with the thought; a lenient reader takes any, and none."""
    if strictness == "lenient" or thought:
        return None
    return FormatReason.NO_THINK if thought is None else FormatReason.EMPTY_THOUGHT
