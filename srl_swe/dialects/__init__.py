"""Dialects: the text of replies. Each dialect is a module that satisfies :class:`Dialect`."""

from __future__ import annotations

from srl_swe.dialects import bash_block, xml
from srl_swe.dialects.reply import (
    Dialect,
    FormatReason,
    Reply,
    ReplyFormat,
    Solution,
    Strictness,
    UnwritableStep,
)
from srl_swe.errors import UserError
from srl_swe.types import Action

DIALECTS: dict[str, Dialect] = {"xml": xml, "bash_block": bash_block}

__all__ = [
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
]


def get_dialect(name: str) -> Dialect:
    """The dialect of that name. Raises UserError for an unknown one."""
    try:
        return DIALECTS[name]
    except KeyError:
        raise UserError(f"unknown dialect {name!r}. Known: {', '.join(DIALECTS)}.") from None


def read_actions(text: str) -> list[Action]:
    """All actions in a text that ``render_action`` of any dialect wrote."""
    return xml.read_actions(text) if text.startswith("<") else bash_block.read_actions(text)
