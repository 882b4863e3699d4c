"""Dialects: the text of replies. A dialect satisfies :class:`Dialect`, most of them as modules."""

from __future__ import annotations

from srl_swe.dialects import bash_block, text_steps, xml
from srl_swe.dialects.reply import (
    Dialect,
    FormatReason,
    Reply,
    ReplyFormat,
    Solution,
    Strictness,
    UnwritableStep,
    read_answer,
)
from srl_swe.plugins import find_named
from srl_swe.types import Action

DIALECTS: dict[str, Dialect] = {"xml": xml, "bash_block": bash_block}
"""The dialects of calls of tools."""
BUNDLED: dict[str, Dialect] = {**DIALECTS, "math": text_steps.MATH}
"""All that ship, with those of worked solutions."""
_MEMBERS = sorted(
    {*Dialect.__annotations__, *(name for name in vars(Dialect) if not name.startswith("_"))}
)

__all__ = [
    "BUNDLED",
    "DIALECTS",
    "Dialect",
    "FormatReason",
    "Reply",
    "ReplyFormat",
    "Solution",
    "Strictness",
    "UnwritableStep",
    "get_dialect",
    "read_actions",
    "read_answer",
]


def get_dialect(name: str) -> Dialect:
    """The dialect of that name, or an extension (:mod:`srl_swe.plugins`).

    Raises UserError for an unknown name.
    """
    return BUNDLED.get(name) or find_named("dialect", name, BUNDLED, needs=_MEMBERS)


def read_actions(text: str) -> list[Action]:
    """All actions in a text that ``render_action`` of any dialect wrote."""
    return xml.read_actions(text) if text.startswith("<") else bash_block.read_actions(text)
