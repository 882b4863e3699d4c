"""Dialects: how a reply is written. Each is a module that satisfies :class:`Dialect`."""

from __future__ import annotations

from srl_swe.dialects import xml
from srl_swe.dialects.reply import Dialect, FormatReason, Reply, Strictness, UnwritableStep
from srl_swe.errors import UserError

DIALECTS: dict[str, Dialect] = {"xml": xml}

__all__ = [
    "DIALECTS",
    "Dialect",
    "FormatReason",
    "Reply",
    "Strictness",
    "UnwritableStep",
    "get_dialect",
]


def get_dialect(name: str) -> Dialect:
    """The dialect of that name; an unknown one raises UserError that lists the known."""
    try:
        return DIALECTS[name]
    except KeyError:
        raise UserError(f"unknown dialect {name!r}. Known: {', '.join(DIALECTS)}.") from None
