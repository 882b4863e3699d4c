"""How many terminal cells a text takes, and how to make it take a given number."""

from __future__ import annotations

import unicodedata
from typing import Literal

Align = Literal["left", "right", "center"]

ELLIPSIS = "…"


def char_width(char: str) -> int:
    """0 for a combining mark, 2 for a wide East Asian character, else 1."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def display_width(text: str) -> int:
    """The number of terminal cells of a one-line text.

    >>> display_width("日本"), display_width("abc")
    (4, 3)
    """
    return sum(char_width(char) for char in text)


def pad(text: str, width: int, align: Align = "left") -> str:
    """Fill up with blanks. A text that is too wide comes back as it is."""
    missing = max(width - display_width(text), 0)
    if align == "right":
        return " " * missing + text
    if align == "center":
        left = missing // 2
        return " " * left + text + " " * (missing - left)
    return text + " " * missing


def truncate(text: str, width: int) -> str:
    """Cut a text to at most `width` cells, an ellipsis showing where it was cut.

    >>> truncate("Mississippi", 6)
    'Missi…'
    """
    if width < 1:
        raise ValueError(f"width must be positive, not {width}")
    if display_width(text) <= width:
        return text
    room = width - display_width(ELLIPSIS)
    kept = ""
    for char in text:
        room -= char_width(char)
        if room < 0:
            break
        kept += char
    return kept + ELLIPSIS
