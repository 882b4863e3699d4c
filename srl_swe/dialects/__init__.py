"""Dialects: how a reply is written. Each is a module that satisfies :class:`Dialect`."""

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
    """The dialect of that name; an unknown one raises UserError that lists the known."""
    try:
        return DIALECTS[name]
    except KeyError:
        raise UserError(f"unknown dialect {name!r}. Known: {', '.join(DIALECTS)}.") from None


def read_actions(text: str) -> list[Action]:
    """The actions of a text that ``render_action`` of any dialect wrote, one or several."""
    return xml.read_actions(text) if text.startswith("<") else bash_block.read_actions(text)
