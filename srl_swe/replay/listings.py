"""Outputs whose order or columns nobody gives: a file system or a terminal has made them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from srl_swe.replay.drift import Cause
from srl_swe.types import Action


@dataclass(frozen=True, slots=True)
class _Unordered:
    """Commands whose lines, or words, are compared in any order."""

    command: re.Pattern[str]
    by_words: bool
    cause: Cause


_UNORDERED = (
    _Unordered(
        re.compile(
            r"(?:^|[|;&(`\n]|\bxargs)[^\S\n]*(?:sudo\s+)?(?:find|rg|ag|fd|tree|du)\b"
            r"|\bgrep\b[^|;&\n]{0,200}\s-(?:[a-zA-Z]*[rR]|-recursive)"
            r"|\bls\b[^|;&\n]{0,200}\s-[a-zA-Z]*[Uf]"
            r"|\bos\.(?:walk|listdir|scandir)\b|\b(?:iterdir|i?r?glob)\("
        ),
        by_words=False,
        cause=Cause.LISTING_ORDER,
    ),
    _Unordered(  # on a terminal `ls` prints columns
        re.compile(r"(?:^|[|;&(\n])[^\S\n]*ls\b(?![^|;&\n]{0,200}\s-[a-zA-Z]*l)"),
        by_words=True,
        cause=Cause.TERMINAL,
    ),
)
_ORDERED = re.compile(r"\|\s*(?:sort|head|tail|sed\b[^|]{0,80}-n)\b")
_LISTS = re.compile(
    r"(?:^|[|;&(\n])[^\S\n]*(?:ls|find|grep|rg|ag|fd|tree|git (?:status|ls-files))\b"
)
_BY_EDITOR = re.compile(r"Here's the files and directories up to 2 levels deep in ")


def same_in_any_order(then: str, now: str, action: Action) -> Cause | None:
    """The cause, if the texts are of a command without an order and hold the same items."""
    for kind in _UNORDERED:
        if _is_of(kind, then, action):
            items = [text.split() if kind.by_words else text.splitlines() for text in (then, now)]
            if Counter(items[0]) == Counter(items[1]):
                return kind.cause
    return None


def is_listing(printed: str, action: Action) -> bool:
    """Whether the output names files, or lines that were searched for."""
    named = any(_is_of(kind, printed, action) for kind in _UNORDERED)
    return named or _LISTS.search(_command(action)) is not None


def _is_of(kind: _Unordered, printed: str, action: Action) -> bool:
    if not kind.by_words and _BY_EDITOR.match(printed):
        return True
    command = _command(action)
    return bool(kind.command.search(command)) and not _ORDERED.search(command)


def _command(action: Action) -> str:
    return action.arguments.get("command", action.arguments.get("cmd", ""))
