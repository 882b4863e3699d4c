"""From a Document to text."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from inikit.document import Document, Section

# What a plain value would not survive: blanks around it, line breaks, comments, quotes.
_NEEDS_QUOTES = re.compile(r'^\s|\s$|\n|^"|(^|\s)[;#]')


def save(document: Document, path: str | PathLike[str]) -> None:
    """Write a file, as UTF-8."""
    Path(path).write_text(dumps(document), encoding="utf-8")


def dumps(document: Document) -> str:
    """Write a document so that `loads` gives it back."""
    blocks = [_dump_section(section) for section in _unnamed_first(document)]
    return "\n".join(blocks)


def _unnamed_first(document: Document) -> list[Section]:
    return sorted(document, key=lambda section: section.name != "")


def _dump_section(section: Section) -> str:
    lines = [f"[{section.name}]"] if section.name else []
    lines += [f"{key} = {_quote(value)}".rstrip() for key, value in section.items()]
    return "".join(f"{line}\n" for line in lines)


def _quote(value: str) -> str:
    """Put a value in quotes where it needs them."""
    if not _NEEDS_QUOTES.search(value):
        return value
    return '"' + _escape(value) + '"'


def _escape(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return text.replace("\n", "\\n")
