"""The thought before an action, as the paper's format has it: ``<think>...</think>``."""

from __future__ import annotations

import re

from srl_swe.dialects.reply import FormatReason, Strictness

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


def thought_fault(thought: str | None, strictness: Strictness) -> FormatReason | None:
    """What is wrong with the thought; a lenient reader takes any, and none."""
    if strictness == "lenient" or thought:
        return None
    return FormatReason.NO_THINK if thought is None else FormatReason.EMPTY_THOUGHT
