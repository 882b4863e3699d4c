"""From text to a Document."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from inikit.document import Document
from inikit.errors import ParseError

_SECTION = re.compile(r"\[\s*([^\[\]]+?)\s*\]")
_PAIR = re.compile(r"([^=:]+?)\s*[=:]\s*(.*)")
_COMMENT = re.compile(r"(^|\s)[;#].*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:[;#].*)?')


def load(path: str | PathLike[str]) -> Document:
    """Read a file, which is UTF-8."""
    return loads(Path(path).read_text(encoding="utf-8-sig"))


def loads(text: str) -> Document:
    """Read a document. Sections and keys that come twice are merged; the last value wins.

    Raises ParseError for a line that is neither section, `key = value`, comment nor blank.
    """
    document = Document()
    section = None
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line or line[0] in ";#":
            continue
        if line.startswith("["):
            section = document.section(_section_name(line, number))
            continue
        key, value = _pair(line, number)
        if section is None:
            section = document.section("")
        section[key] = value
    return document


def _section_name(line: str, number: int) -> str:
    match = _SECTION.fullmatch(_COMMENT.sub("", line))
    if match is None:
        raise ParseError(number, f"bad section header {line!r}")
    return match[1]


def _pair(line: str, number: int) -> tuple[str, str]:
    match = _PAIR.fullmatch(line)
    if match is None:
        raise ParseError(number, f"expected 'key = value', not {line!r}")
    return match[1], _value(match[2], number)


def _value(text: str, number: int) -> str:
    """The value without quotes or trailing comment."""
    if not text.startswith('"'):
        return _COMMENT.sub("", text).strip()
    match = _QUOTED.fullmatch(text)
    if match is None:
        raise ParseError(number, f"unbalanced quotes in {text!r}")
    return _unescape(match[1])


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], text)
