"""What ``str_replace`` and ``insert`` make of a text, and what is shown of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from srl_swe.tools.editor_dialect import EditorDialect, Occurrences, SnippetEnd
from srl_swe.tools.refusal import Refused


@dataclass(frozen=True, slots=True)
class Edit:
    """The text before (as undo brings it back) and after; the snippet and its first line."""

    before: str
    after: str
    snippet: str
    first: int


def replace_once(path: str, text: str, old: str, new: str, dialect: EditorDialect) -> Edit:
    """Replace the one occurrence of ``old``. Raises Refused where there is not one."""
    if dialect.expands_tabs:
        text, old, new = text.expandtabs(), old.expandtabs(), new.expandtabs()
    if dialect.tries_stripped and old not in text:
        old, new = old.strip(), new.strip()
    at = text.find(old)
    about = {"path": path, "old": old, "new": new}
    if at < 0:
        raise Refused(dialect.messages.no_match.format(**about))
    if text.count(old) > 1:
        lines = _lines_of(text, old, dialect.occurrences)
        raise Refused(dialect.messages.several.format(lines=lines, **about))
    if old == new and dialect.messages.same:
        raise Refused(dialect.messages.same.format(**about))
    after = text[:at] + new + text[at + len(old) :]
    line = text.count("\n", 0, at)
    last = line + dialect.shown_to + new.count("\n")
    snippet, first = _snippet(after, line + dialect.shown_from, last, dialect.snippet_end)
    return Edit(text, after, snippet, first)


def _lines_of(text: str, old: str, occurrences: Occurrences) -> list[int]:
    """The lines to name, from 1."""
    if occurrences is Occurrences.HOLDERS:
        return [i for i, line in enumerate(text.split("\n"), 1) if old in line]
    overlapping = occurrences is Occurrences.STARTS
    lines, at = [], text.find(old)
    while 0 <= at < len(text) or (at == len(text) and not old):
        lines.append(text.count("\n", 0, at) + 1)
        at = text.find(old, at + (1 if overlapping else max(len(old), 1)))
    return lines if overlapping else sorted(set(lines))


def insert_lines(text: str, at: int, new: str, dialect: EditorDialect) -> Edit:
    """Put lines after line ``at``, which the text has to have, 0 being its top."""
    if dialect.expands_tabs:
        text, new = text.expandtabs(), new.expandtabs()
    added = new.split("\n")
    if dialect.inserts_whole_lines:
        lines = split_lines(text)
        whole = [f"{line}\n" for line in added]
        after = "".join([*lines[:at], *whole, *lines[at:]])
    else:
        lines = text.split("\n")
        after = "\n".join([*lines[:at], *added, *lines[at:]])
    end = SnippetEnd.NEWLINE if dialect.snippet_end is SnippetEnd.NEWLINE else SnippetEnd.EMPTY_LINE
    snippet, first = _snippet(after, at - 4, at + len(added) + 3, end)
    return Edit(text, after, snippet, first)


def count_lines(text: str, dialect: EditorDialect) -> int:
    """How many lines there are to insert after."""
    return len(split_lines(text)) if dialect.inserts_whole_lines else len(text.split("\n"))


def split_lines(text: str) -> list[str]:
    r"""The lines with their ends, as reading a file line by line gives them.

    Unlike ``str.splitlines``, which a form feed or a Unicode separator ends too.

    >>> split_lines("a\x0cb\nc")
    ['a\x0cb\n', 'c']
    """
    lines = text.split("\n")
    last = lines.pop()
    return [*(f"{line}\n" for line in lines), *([last] if last else [])]


def _snippet(text: str, first: int, last: int, end: SnippetEnd) -> tuple[str, int]:
    """Lines ``first`` to ``last``, from 0 and inclusive, and the first one's number."""
    first = max(0, first)
    match end:
        case SnippetEnd.NEWLINE:
            return "".join(split_lines(text)[first : last + 1]), first + 1
        case SnippetEnd.CUT:
            last = min(last, len(text.splitlines()) - 1)
        case SnippetEnd.EMPTY_LINE:
            pass
    return "\n".join(text.split("\n")[first : last + 1]), first + 1
