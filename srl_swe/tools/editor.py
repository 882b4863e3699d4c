"""The tool ``str_replace_editor`` (``file_editor``), in the styles of the experts' editors."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from srl_swe.sandbox import Sandbox
from srl_swe.tools.editor_styles import EditorStyle, Occurrences, SnippetEnd, ViewStyle
from srl_swe.tools.text_files import (
    Kind,
    Refused,
    answer,
    clip,
    find_fault,
    find_kind,
    number_lines,
    read_text,
    run_python,
    tidy,
    write_text,
)
from srl_swe.types import Observation

# ``str_replace`` and ``insert`` on a text. Pure.


@dataclass(frozen=True, slots=True)
class Edit:
    """The text before (for undo) and after; the shown snippet and its first line's number."""

    before: str
    after: str
    snippet: str
    first: int


def replace_once(path: str, text: str, old: str, new: str, style: EditorStyle) -> Edit:
    """Replace the only occurrence of ``old``. Raises Refused without exactly one."""
    if style.expands_tabs:
        text, old, new = text.expandtabs(), old.expandtabs(), new.expandtabs()
    if style.tries_stripped and old not in text:
        old, new = old.strip(), new.strip()
    at = text.find(old)
    about = {"path": path, "old": old, "new": new}
    if at < 0:
        raise Refused(style.messages.no_match.format(**about))
    if text.count(old) > 1:
        lines = _lines_of(text, old, style.occurrences)
        raise Refused(style.messages.several.format(lines=lines, **about))
    if old == new and style.messages.same:
        raise Refused(style.messages.same.format(**about))
    after = text[:at] + new + text[at + len(old) :]
    line = text.count("\n", 0, at)
    last = line + style.shown_to + new.count("\n")
    snippet, first = _snippet(after, line + style.shown_from, last, style.snippet_end)
    return Edit(text, after, snippet, first)


def _lines_of(text: str, old: str, occurrences: Occurrences) -> list[int]:
    """The lines to list, from 1."""
    if occurrences is Occurrences.HOLDERS:
        return [i for i, line in enumerate(text.split("\n"), 1) if old in line]
    overlapping = occurrences is Occurrences.STARTS
    lines, at = [], text.find(old)
    while 0 <= at < len(text) or (at == len(text) and not old):
        lines.append(text.count("\n", 0, at) + 1)
        at = text.find(old, at + (1 if overlapping else max(len(old), 1)))
    return lines if overlapping else sorted(set(lines))


def insert_lines(text: str, at: int, new: str, style: EditorStyle) -> Edit:
    """Insert lines after line ``at``, which must exist; 0 is the top."""
    if style.expands_tabs:
        text, new = text.expandtabs(), new.expandtabs()
    added = new.split("\n")
    if style.inserts_whole_lines:
        lines = split_lines(text)
        whole = [f"{line}\n" for line in added]
        after = "".join([*lines[:at], *whole, *lines[at:]])
    else:
        lines = text.split("\n")
        after = "\n".join([*lines[:at], *added, *lines[at:]])
    end = SnippetEnd.NEWLINE if style.snippet_end is SnippetEnd.NEWLINE else SnippetEnd.EMPTY_LINE
    snippet, first = _snippet(after, at - 4, at + len(added) + 3, end)
    return Edit(text, after, snippet, first)


def count_lines(text: str, style: EditorStyle) -> int:
    """The number of lines to insert after."""
    return len(split_lines(text)) if style.inserts_whole_lines else len(text.split("\n"))


def split_lines(text: str) -> list[str]:
    r"""The lines with their ends, like reading a file line by line.

    Unlike ``str.splitlines``, does not split at a form feed or a Unicode separator.

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


# Outlines of long Python files. The container's python parses them: it knows the repository's
# syntax, and this process parses no untrusted text. Without one, the whole file is shown.

_SCRIPT = """
import ast, json, sys
def span(first, last):
    return [min([first.lineno] + [d.lineno for d in getattr(first, "decorator_list", [])]) - 1,
            last.end_lineno - 1]
bodies, docstrings = [], []
for node in ast.walk(ast.parse(open(sys.argv[1], "rb").read())):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        bodies.append(span(node.body[0], node.body[-1]))
    elif isinstance(node, ast.ClassDef) and ast.get_docstring(node) is not None:
        docstrings.append(span(node.body[0], node.body[0]))
print(json.dumps([bodies, docstrings]))
"""
"""Prints the lines (from 0, inclusive) of function bodies and of classes' docstrings."""


@dataclass(frozen=True, slots=True)
class Elision:
    """The least distance from first to last line of the bodies and docstrings to leave out."""

    body_lines: int
    docstring_lines: int | None = None


FILEMAP = Elision(body_lines=5)
"""SWE-agent's ``filemap``: at least 5."""
CONDENSED = Elision(body_lines=3, docstring_lines=4)
"""R2E's: at least 3; of a class's docstring all between its first line and its last."""


def outline(path: str, text: str, elision: Elision, sandbox: Sandbox) -> str | None:
    """The kept lines with their numbers, and a note per gap; None if python fails."""
    printed = run_python(_SCRIPT, [path], sandbox)
    try:
        bodies, docstrings = json.loads(printed or "")
        gaps = [(int(a), int(b)) for a, b in bodies if b - a >= elision.body_lines]
        if elision.docstring_lines is not None:
            gaps += [
                (int(a) + 1, int(b) - 1) for a, b in docstrings if b - a >= elision.docstring_lines
            ]
    except (TypeError, ValueError):
        return None
    return _render(text.splitlines(), gaps)


def _render(lines: list[str], gaps: Iterable[tuple[int, int]]) -> str:
    left_out: set[int] = set()
    shown = []
    for first, last in gaps:
        left_out.update(range(max(first, 0), min(last, len(lines)) + 1))
        shown.append((first, f"... eliding lines {first + 1}-{last + 1} ..."))
    shown += [(i, line) for i, line in enumerate(lines) if i not in left_out]
    return "\n".join(f"{i + 1:6d} {line}" for i, line in sorted(shown))


# The command ``view``: files with numbered lines, and folders.

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


def parse_range(value: str | None, style: EditorStyle) -> list[int] | None:
    """Both bounds, from ``[1, 50]`` or ``1 50``; None for no range. Raises Refused."""
    if value is None or value.strip() in {"", "[]", "null"}:
        return None
    if not re.fullmatch(r"[\[(]?\s*-?\d{1,9}[\s,]+-?\d{1,9}\s*[\])]?", value.strip()):
        raise Refused(style.messages.range_form.format(value=value))
    bounds: list[int] = json.loads(f"[{','.join(re.findall(r'-?[0-9]+', value))}]")
    return bounds


def view_file(
    path: str, text: str, bounds: list[int] | None, style: EditorStyle, sandbox: Sandbox
) -> str:
    """The file, or the part in ``bounds``. Raises Refused."""
    view = style.view
    if view.suffixes and PurePosixPath(path).suffix not in view.suffixes:
        refusal = view.suffix_refusal.format(name=PurePosixPath(path).name)
        raise Refused(view.refusal.format(style.refusal.format(refusal)))
    if bounds is None:
        in_short = _in_short(path, text, style, sandbox)
        if in_short is not None:
            return in_short
        lines = text.split("\n") if view.shows_last_empty_line else text.splitlines()
        return cat(path, lines, 1, style)
    lines = _counted(text, view)
    try:
        first, last, note = _checked(bounds, len(lines), style)
    except Refused as refusal:
        raise Refused(view.refusal.format(style.refusal.format(refusal))) from None
    shown = lines[first - 1 : last]
    if not view.counts_all_breaks:
        shown = "\n".join(shown).splitlines()
    return note + cat(path, shown, first, style)


def _counted(text: str, view: ViewStyle) -> list[str]:
    if view.counts_last_empty_line:
        return text.split("\n")
    if view.counts_all_breaks:
        return text.splitlines()
    return [line.removesuffix("\n") for line in split_lines(text)]


def _checked(bounds: list[int], total: int, style: EditorStyle) -> tuple[int, int, str]:
    """The first line, the last line, and a note to show before them."""
    (first, last), messages, note = bounds, style.messages, ""
    about = {"value": bounds, "first": first, "last": last, "total": total}
    if not 1 <= first <= total:
        raise Refused(messages.range_first.format(**about))
    if last > total and not style.view.late_range_end_is_fine:
        raise Refused(messages.range_last.format(**about))
    if last > total:
        note = f"NOTE: We only show up to {total} since there're only {total} lines in this file.\n"
    last = total if last == -1 or last > total else last
    if last < first:
        raise Refused(messages.range_order.format(**about))
    return first, last, note


def cat(path: str, lines: list[str], first: int, style: EditorStyle) -> str:
    """Lines as the editor shows them, clipped."""
    view = style.view
    header = view.header.format(path=path)
    if view.clips_header_too:
        shown = [line.expandtabs() if view.expands_tabs else line for line in lines]
        whole = header + number_lines(shown, first, view.line)
        return clip(whole, style.max_chars, style.clipped)
    text = clip("\n".join(lines), style.max_chars, style.clipped)
    text = text.expandtabs() if view.expands_tabs else text
    return header + number_lines(text.split("\n"), first, view.line) + view.footer


def _in_short(path: str, text: str, style: EditorStyle, sandbox: Sandbox) -> str | None:
    view = style.view
    if not path.endswith(".py"):
        return None
    if view.outline_from_chars is not None and len(text) > view.outline_from_chars:
        kept = outline(path, text, FILEMAP, sandbox)
        if kept is not None:
            kept = clip(kept.expandtabs(), style.max_chars, style.clipped)
            return _FILEMAP_NOTE.format(kept)
    if view.outline_from_lines is not None and len(text.splitlines()) > view.outline_from_lines:
        kept = outline(path, text, CONDENSED, sandbox)
        if kept is not None:
            return clip(_CONDENSED_NOTE.format(path) + kept, style.max_chars, style.clipped)
    return None


def view_folder(path: str, bounds: list[int] | None, style: EditorStyle, sandbox: Sandbox) -> str:
    """Two levels of a folder, sorted, without hidden items. Raises Refused."""
    if bounds is not None and style.messages.folder_range:
        raise Refused(style.refusal.format(style.messages.folder_range.format(value=bounds)))
    listing = style.listing
    found = sandbox.exec(_list_command(path, style), keep_state=False).output
    header = listing.header.format(path=path)
    if not listing.marks_folders:
        whole = f"{header}{found}{listing.footer}"
        return clip(whole, style.max_chars, style.clipped) if listing.suffixes else whole
    hidden = sandbox.exec(
        f"find -L {shlex.quote(path)} -mindepth 1 -maxdepth 1 -name '.*' 2>/dev/null | wc -l",
        keep_state=False,
    ).output.strip()
    whole = header + clip(found.rstrip("\n"), style.max_chars, _FOLDER_CLIPPED)
    if hidden in {"", "0"}:
        return whole
    return (
        f"{whole}\n\n{hidden} hidden files/directories in this directory are excluded. "
        f"You can use 'ls -la {path}' to see them."
    )


def _list_command(path: str, style: EditorStyle) -> str:
    where, listing = shlex.quote(path), style.listing
    if listing.marks_folders:
        direct, below = shlex.quote(f"{path}/.*"), shlex.quote(f"{path}/*/.*")
        return (
            rf"find -L {where} -maxdepth 2 -not \( -path {direct} -o -path {below} \) 2>/dev/null"
            " | LC_ALL=C sort | while IFS= read -r item; do"
            ' if [ -d "$item" ]; then printf "%s/\\n" "$item"; else printf "%s\\n" "$item"; fi;'
            " done"
        )
    kinds = " ".join(f"-o -name '*{suffix}'" for suffix in listing.suffixes)
    only = rf"\( -type d {kinds} \)" if kinds else ""
    return f"find {where} -maxdepth 2 -not -path '*/.*' {only} | LC_ALL=C sort"


_REQUIRED = {"str_replace": ["old_str"], "insert": ["insert_line", "new_str"]}
_REVIEW = (
    "Review the changes and make sure they are as expected{}. Edit the file again if necessary."
)
_REVIEW_INSERTED = _REVIEW.format(" (correct indentation, no duplicate lines, etc)")
_REVIEW_CREATED = (
    "Review the file and make sure that it is as expected. Edit the file if necessary."
)
_LINT = (
    "Your proposed edit has introduced new syntax error(s).\nPlease read this error message "
    "carefully and then retry editing the file.\nERRORS:\n"
)


class EditHistory:
    """The contents of files before each edit of an episode, for ``undo_edit``."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._texts: defaultdict[str, list[str]] = defaultdict(list)

    def remember(self, path: str, text: str) -> None:
        """Keep a text; above the limit, drop the file's oldest."""
        self._texts[path].append(text)
        if self._limit is not None:
            del self._texts[path][: -self._limit or None]

    def pop(self, path: str) -> str | None:
        """Remove and return the last kept text; None without one."""
        return self._texts[path].pop() if self._texts[path] else None


def str_replace_editor(
    arguments: Mapping[str, str],
    sandbox: Sandbox,
    *,
    style: EditorStyle,
    history: EditHistory,
    workdir: str = "/testbed",
) -> Observation:
    """View, create or edit one file. Exit code 0 means done, 1 refused with the reason."""
    call = _Call(arguments, sandbox, style, history, workdir)
    return answer(call.carry_out)


def view_only(
    arguments: Mapping[str, str],
    sandbox: Sandbox,
    *,
    style: EditorStyle,
    history: EditHistory,
    workdir: str = "/testbed",
) -> Observation:
    """OpenHands' action ``read``: the command ``view`` under another name."""
    viewing = {**arguments, "command": "view"}
    return str_replace_editor(viewing, sandbox, style=style, history=history, workdir=workdir)


class _Call:
    def __init__(
        self,
        arguments: Mapping[str, str],
        sandbox: Sandbox,
        style: EditorStyle,
        history: EditHistory,
        workdir: str,
    ) -> None:
        self._arguments = arguments
        self._sandbox = sandbox
        self._style = style
        self._history = history
        self._workdir = workdir
        self._command = arguments.get("command", "")
        self._path = tidy(arguments["path"]) if arguments.get("path") else ""
        """The path for messages; ``_at`` is the file's real path."""
        self._at = posixpath.join(workdir, self._path)

    def carry_out(self) -> str:
        kind = self._check_path()
        self._check_required()
        match self._command:
            case "view":
                return self._view(kind)
            case "create":
                return self._create(self._arguments["file_text"])
            case "str_replace":
                return self._replace()
            case "insert":
                return self._insert()
            case "undo_edit":
                return self._undo()
        raise self._refused(self._style.messages.unknown, command=self._command)

    def _refused(self, message: str, **about: object) -> Refused:
        return Refused(self._style.refusal.format(message.format(path=self._path, **about)))

    def _check_path(self) -> Kind | None:
        messages = self._style.messages
        if not self._path:
            raise self._refused(messages.missing, name="path", command=self._command)
        if not self._path.startswith("/") and not self._style.relative_paths:
            raise self._refused(messages.relative, value=self._path, suggested=self._at)
        kind = find_kind(self._at, self._sandbox)
        if kind is None and self._command != "create":
            raise self._refused(messages.gone)
        if kind is not None and self._command == "create":
            raise self._refused(messages.exists)
        if kind == "folder" and self._command != "view":
            raise self._refused(messages.folder)
        return kind

    def _check_required(self) -> None:
        for name in (
            ["file_text"] if self._command == "create" else _REQUIRED.get(self._command, [])
        ):
            value = self._arguments.get(name)
            if value is None or (not value and name in self._style.empty_is_missing):
                messages = self._style.messages
                template = messages.no_text if name == "file_text" else messages.missing
                raise self._refused(template, name=name, command=self._command)

    def _view(self, kind: Kind | None) -> str:
        try:
            bounds = parse_range(self._arguments.get("view_range"), self._style)
        except Refused as refusal:
            raise Refused(self._style.refusal.format(refusal)) from None
        if kind == "folder":
            return view_folder(self._path, bounds, self._style, self._sandbox)
        return view_file(self._path, self._read(), bounds, self._style, self._sandbox)

    def _create(self, text: str) -> str:
        self._refuse_faulty(text)
        self._write(text, self._style.messages.not_created)
        undone = self._style.creation_undoes_to
        self._history.remember(self._path, text if undone is None else undone)
        if not self._style.shows_created:
            return f"File created successfully at: {self._path}"
        return f"File created at {self._path}. {self._numbered(self._path, text)}{_REVIEW_CREATED}"

    def _replace(self) -> str:
        old, new = self._arguments["old_str"], self._arguments.get("new_str")
        same = self._style.messages.same
        if self._style.same_is_looked_at_first and old == new:
            raise self._refused(same, new=new)
        try:
            edit = replace_once(self._path, self._read(), old, new or "", self._style)
        except Refused as refusal:
            raise Refused(self._style.refusal.format(refusal)) from None
        return self._apply(edit, f"a snippet of {self._path}") + _REVIEW.format("")

    def _insert(self) -> str:
        text, value = self._read(), self._arguments["insert_line"].strip()
        total = count_lines(text, self._style)
        at = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else -1
        if not 0 <= at <= total:
            raise self._refused(self._style.messages.insert_line, value=value, total=total)
        edit = insert_lines(text, at, self._arguments["new_str"], self._style)
        return self._apply(edit, "a snippet of the edited file") + _REVIEW_INSERTED

    def _apply(self, edit: Edit, what: str) -> str:
        self._refuse_faulty(edit.after)
        self._write(edit.after, self._style.messages.unwritable)
        self._history.remember(self._path, edit.before)
        return f"The file {self._path} has been edited. " + self._numbered(
            what, edit.snippet, edit.first
        )

    def _undo(self) -> str:
        text = self._history.pop(self._path)
        if text is None:
            raise self._refused(self._style.messages.no_undo)
        self._write(text, self._style.messages.unwritable)
        return f"Last edit to {self._path} undone successfully. {self._numbered(self._path, text)}"

    def _numbered(self, what: str, text: str, first: int = 1) -> str:
        text = clip(text, self._style.max_chars, self._style.clipped)
        text = text.expandtabs() if self._style.snippet_expands_tabs else text
        lines = number_lines(text.split("\n"), first)
        return f"Here's the result of running `cat -n` on {what}:\n{lines}\n"

    def _refuse_faulty(self, text: str) -> None:
        if not self._style.lints or not self._arguments.get("enable_linting"):
            return
        fault = find_fault(self._path, text, self._sandbox)
        if fault:
            raise Refused(f"\n{self._style.refusal.format(_LINT + fault.message)}")

    def _read(self) -> str:
        try:
            text = read_text(self._at, self._sandbox)
        except OSError as error:
            raise self._refused(self._style.messages.unreadable, error=error) from None
        if self._style.refuses_binary and "\0" in text[:1024]:
            raise Refused(
                self._style.refusal.format(
                    f"File validation failed for {self._path}: File appears to be binary and "
                    "this file type cannot be read or edited by this tool."
                )
            )
        return text

    def _write(self, text: str, message: str) -> None:
        try:
            write_text(self._at, text, self._sandbox)
        except OSError as error:
            said, parent = str(error).replace(self._at, self._path), posixpath.dirname(self._path)
            raise self._refused(message, error=said, parent=parent) from None
