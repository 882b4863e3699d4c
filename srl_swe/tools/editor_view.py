"""The command ``view`` of the editors: files with numbered lines, and folders."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import PurePosixPath

from srl_swe.sandbox import Sandbox
from srl_swe.tools.editor_dialect import EditorDialect, ViewStyle
from srl_swe.tools.editor_edits import split_lines
from srl_swe.tools.numbered_text import clip, number_lines
from srl_swe.tools.outline import CONDENSED, FILEMAP, outline
from srl_swe.tools.refusal import Refused

_FILEMAP_NOTE = (
    "<NOTE>This file is too large to display entirely. Showing abbreviated version. Please use "
    "`str_replace_editor view` with the `view_range` parameter to show selected lines next."
    "</NOTE>\n{}\n<IMPORTANT><NOTE>The above file has been abbreviated. Please use "
    "`str_replace editor view` with `view_range` to look at relevant files in detail.</NOTE>"
    "</IMPORTANT>"
)
_CONDENSED_NOTE = (
    "Here is a condensed view for file: {}; [Note: Useful for understanding file structure in a "
    "concise manner. Please use specific view_range without concise cmd if you want to explore "
    "further into the relevant parts.]\n"
)
_FOLDER_CLIPPED = (
    "<response clipped><NOTE>Due to the max output limit, only part of this directory has been "
    "shown to you. You should use `ls -la` instead to view large directories incrementally."
    "</NOTE>"
)


def parse_range(value: str | None, dialect: EditorDialect) -> list[int] | None:
    """Both bounds, from ``[1, 50]`` or ``1 50``; None for no range. Raises Refused."""
    if value is None or value.strip() in {"", "[]", "null"}:
        return None
    if not re.fullmatch(r"[\[(]?\s*-?\d{1,9}[\s,]+-?\d{1,9}\s*[\])]?", value.strip()):
        raise Refused(dialect.messages.range_form.format(value=value))
    bounds: list[int] = json.loads(f"[{','.join(re.findall(r'-?[0-9]+', value))}]")
    return bounds


def view_file(
    path: str, text: str, bounds: list[int] | None, dialect: EditorDialect, sandbox: Sandbox
) -> str:
    """The file, or the part in ``bounds``. Raises Refused."""
    style = dialect.view
    if style.suffixes and PurePosixPath(path).suffix not in style.suffixes:
        refusal = style.suffix_refusal.format(name=PurePosixPath(path).name)
        raise Refused(style.refusal.format(dialect.refusal.format(refusal)))
    if bounds is None:
        in_short = _in_short(path, text, dialect, sandbox)
        if in_short is not None:
            return in_short
        lines = text.split("\n") if style.shows_last_empty_line else text.splitlines()
        return cat(path, lines, 1, dialect)
    lines = _counted(text, style)
    try:
        first, last, note = _checked(bounds, len(lines), dialect)
    except Refused as refusal:
        raise Refused(style.refusal.format(dialect.refusal.format(refusal))) from None
    shown = lines[first - 1 : last]
    if not style.counts_all_breaks:
        shown = "\n".join(shown).splitlines()
    return note + cat(path, shown, first, dialect)


def _counted(text: str, style: ViewStyle) -> list[str]:
    if style.counts_last_empty_line:
        return text.split("\n")
    if style.counts_all_breaks:
        return text.splitlines()
    return [line.removesuffix("\n") for line in split_lines(text)]


def _checked(bounds: list[int], total: int, dialect: EditorDialect) -> tuple[int, int, str]:
    """First line, last line, and what to say before them."""
    (first, last), messages, note = bounds, dialect.messages, ""
    about = {"value": bounds, "first": first, "last": last, "total": total}
    if not 1 <= first <= total:
        raise Refused(messages.range_first.format(**about))
    if last > total and not dialect.view.late_range_end_is_fine:
        raise Refused(messages.range_last.format(**about))
    if last > total:
        note = f"NOTE: We only show up to {total} since there're only {total} lines in this file.\n"
    last = total if last == -1 or last > total else last
    if last < first:
        raise Refused(messages.range_order.format(**about))
    return first, last, note


def cat(path: str, lines: list[str], first: int, dialect: EditorDialect) -> str:
    """Lines as the dialect views them, clipped."""
    style = dialect.view
    header = style.header.format(path=path)
    if style.clips_header_too:
        shown = [line.expandtabs() if style.expands_tabs else line for line in lines]
        whole = header + number_lines(shown, first, style.line)
        return clip(whole, dialect.max_chars, dialect.clipped)
    text = clip("\n".join(lines), dialect.max_chars, dialect.clipped)
    text = text.expandtabs() if style.expands_tabs else text
    return header + number_lines(text.split("\n"), first, style.line) + style.footer


def _in_short(path: str, text: str, dialect: EditorDialect, sandbox: Sandbox) -> str | None:
    style = dialect.view
    if not path.endswith(".py"):
        return None
    if style.outline_from_chars is not None and len(text) > style.outline_from_chars:
        kept = outline(path, text, FILEMAP, sandbox)
        if kept is not None:
            kept = clip(kept.expandtabs(), dialect.max_chars, dialect.clipped)
            return _FILEMAP_NOTE.format(kept)
    if style.outline_from_lines is not None and len(text.splitlines()) > style.outline_from_lines:
        kept = outline(path, text, CONDENSED, sandbox)
        if kept is not None:
            return clip(_CONDENSED_NOTE.format(path) + kept, dialect.max_chars, dialect.clipped)
    return None


def view_folder(
    path: str, bounds: list[int] | None, dialect: EditorDialect, sandbox: Sandbox
) -> str:
    """Two levels of what is in it, sorted, without what is hidden. Raises Refused."""
    if bounds is not None and dialect.messages.folder_range:
        raise Refused(dialect.refusal.format(dialect.messages.folder_range.format(value=bounds)))
    style = dialect.listing
    listing = sandbox.exec(_list_command(path, dialect), keep_state=False).output
    header = style.header.format(path=path)
    if not style.marks_folders:
        whole = f"{header}{listing}{style.footer}"
        return clip(whole, dialect.max_chars, dialect.clipped) if style.suffixes else whole
    hidden = sandbox.exec(
        f"find -L {shlex.quote(path)} -mindepth 1 -maxdepth 1 -name '.*' 2>/dev/null | wc -l",
        keep_state=False,
    ).output.strip()
    whole = header + clip(listing.rstrip("\n"), dialect.max_chars, _FOLDER_CLIPPED)
    if hidden in {"", "0"}:
        return whole
    return (
        f"{whole}\n\n{hidden} hidden files/directories in this directory are excluded. "
        f"You can use 'ls -la {path}' to see them."
    )


def _list_command(path: str, dialect: EditorDialect) -> str:
    where, style = shlex.quote(path), dialect.listing
    if style.marks_folders:
        direct, below = shlex.quote(f"{path}/.*"), shlex.quote(f"{path}/*/.*")
        return (
            rf"find -L {where} -maxdepth 2 -not \( -path {direct} -o -path {below} \) 2>/dev/null"
            " | LC_ALL=C sort | while IFS= read -r item; do"
            ' if [ -d "$item" ]; then printf "%s/\\n" "$item"; else printf "%s\\n" "$item"; fi;'
            " done"
        )
    kinds = " ".join(f"-o -name '*{suffix}'" for suffix in style.suffixes)
    only = rf"\( -type d {kinds} \)" if kinds else ""
    return f"find {where} -maxdepth 2 -not -path '*/.*' {only} | LC_ALL=C sort"
