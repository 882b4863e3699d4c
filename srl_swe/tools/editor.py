"""The tool ``str_replace_editor`` (``file_editor``), in the styles of the experts' editors."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import PurePosixPath

from srl_swe.sandbox import Sandbox
from srl_swe.tools.editor_styles import EditorStyle, Occurrences, SnippetEnd
from srl_swe.tools.text_files import (
    Kind,
    Refused,
    answering,
    clip,
    find_fault,
    find_kind,
    number_lines,
    printable,
    read_text,
    run_python,
    write_text,
)

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
    pattern = re.escape(old)
    if occurrences is Occurrences.STARTS:
        pattern = f"(?={pattern})"  # finds overlapping ones too
    lines, line, seen = [], 1, 0
    for found in re.finditer(pattern, text):
        line, seen = line + text.count("\n", seen, found.start()), found.start()
        lines.append(line)
    return lines if occurrences is Occurrences.STARTS else list(dict.fromkeys(lines))


def insert_lines(text: str, at: int, new: str, style: EditorStyle) -> Edit:
    """Insert lines after line ``at``, which must exist; 0 is the top."""
    if style.expands_tabs:
        text, new = text.expandtabs(), new.expandtabs()
    added = new.split("\n")
    if style.inserts_whole_lines:
        lines = split_lines(text)
        after = "".join([*lines[:at], *(f"{line}\n" for line in added), *lines[at:]])
    else:
        lines = text.split("\n")
        after = "\n".join([*lines[:at], *added, *lines[at:]])
    end = SnippetEnd.NEWLINE if style.snippet_end is SnippetEnd.NEWLINE else SnippetEnd.EMPTY_LINE
    snippet, first = _snippet(after, at - 4, at + len(added) + 3, end)
    return Edit(text, after, snippet, first)


def split_lines(text: str) -> list[str]:
    r"""The lines with their ends, like reading a file line by line.

    Unlike ``str.splitlines``, does not split at a form feed or a Unicode separator.

    >>> split_lines("a\x0cb\nc")
    ['a\x0cb\n', 'c']
    """
    return list(StringIO(text))


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


def outline(
    path: str, text: str, sandbox: Sandbox, body_lines: int, docstring_lines: int | None = None
) -> str | None:
    """The kept lines with their numbers, and a note per gap; None if python fails.

    ``body_lines`` and ``docstring_lines``: the least distance from first to last line of bodies,
    and of the docstrings of which only these two lines are kept; None keeps all docstrings.
    """
    printed = run_python(_SCRIPT, [path], sandbox)
    try:
        bodies, docstrings = json.loads(printed or "")
        gaps = [(int(a), int(b)) for a, b in bodies if b - a >= body_lines]
        if docstring_lines is not None:
            gaps += [(int(a) + 1, int(b) - 1) for a, b in docstrings if b - a >= docstring_lines]
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    lines, left_out = text.splitlines(), set[int]()
    for first, last in gaps:
        left_out.update(range(max(first, 0), min(last, len(lines)) + 1))
    shown = [(first, f"... eliding lines {first + 1}-{last + 1} ...") for first, last in gaps]
    shown += [(i, line) for i, line in enumerate(lines) if i not in left_out]
    return printable("\n".join(f"{i + 1:6d} {line}" for i, line in sorted(shown)))


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
    return [int(bound) for bound in re.findall(r"-?\d+", value)]


class _RefusedBelow(Refused):
    """A refusal below an empty line."""


def view_file(
    path: str, text: str, bounds: list[int] | None, style: EditorStyle, sandbox: Sandbox
) -> str:
    """The file, or the part in ``bounds``. Raises Refused."""
    view, messages, note = style.view, style.messages, ""
    refused = _RefusedBelow if view.refuses_below else Refused
    if view.suffixes and PurePosixPath(path).suffix not in view.suffixes:
        raise refused(view.suffix_refusal.format(name=PurePosixPath(path).name))
    if bounds is None:
        in_short = _in_short(path, text, style, sandbox) if path.endswith(".py") else None
        lines = text.split("\n") if view.shows_last_empty_line else text.splitlines()
        return in_short or cat(path, lines, 1, style)
    if view.counts_last_empty_line:
        lines = text.split("\n")
    elif view.counts_all_breaks:
        lines = text.splitlines()
    else:
        lines = [line.removesuffix("\n") for line in split_lines(text)]
    (first, last), total = bounds, len(lines)
    about = {"value": bounds, "first": first, "last": last, "total": total}
    if not 1 <= first <= total:
        raise refused(messages.range_first.format(**about))
    if last > total:
        if not view.late_range_end_is_fine:
            raise refused(messages.range_last.format(**about))
        note = f"NOTE: We only show up to {total} since there're only {total} lines in this file.\n"
    last = total if last == -1 else min(last, total)
    if last < first:
        raise refused(messages.range_order.format(**about))
    shown = lines[first - 1 : last]
    if not view.counts_all_breaks:
        shown = "\n".join(shown).splitlines()
    return note + cat(path, shown, first, style)


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
    if view.outline_from_chars is not None and len(text) > view.outline_from_chars:
        kept = outline(path, text, sandbox, body_lines=5)  # SWE-agent's filemap
        if kept is not None:
            kept = clip(kept.expandtabs(), style.max_chars, style.clipped)
            return _FILEMAP_NOTE.format(kept)
    if view.outline_from_lines is not None and len(text.splitlines()) > view.outline_from_lines:
        kept = outline(path, text, sandbox, body_lines=3, docstring_lines=4)  # R2E's
        if kept is not None:
            return clip(_CONDENSED_NOTE.format(path) + kept, style.max_chars, style.clipped)
    return None


def view_folder(path: str, bounds: list[int] | None, style: EditorStyle, sandbox: Sandbox) -> str:
    """Two levels of a folder, sorted, without hidden items. Raises Refused."""
    if bounds is not None and style.messages.folder_range:
        raise Refused(style.messages.folder_range.format(value=bounds))
    where, listing = shlex.quote(path), style.listing
    header = listing.header.format(path=path)
    if not listing.marks_folders:
        kinds = " ".join(f"-o -name '*{suffix}'" for suffix in listing.suffixes)
        only = rf"\( -type d {kinds} \)" if kinds else ""
        command = f"find {where} -maxdepth 2 -not -path '*/.*' {only} | LC_ALL=C sort"
        whole = header + sandbox.exec(command, keep_state=False).output + listing.footer
        return clip(whole, style.max_chars, style.clipped) if listing.suffixes else whole
    direct, below = shlex.quote(f"{path}/.*"), shlex.quote(f"{path}/*/.*")
    command = (
        rf"find -L {where} -maxdepth 2 -not \( -path {direct} -o -path {below} \) 2>/dev/null"
        " | LC_ALL=C sort | while IFS= read -r item; do"
        ' if [ -d "$item" ]; then printf "%s/\\n" "$item"; else printf "%s\\n" "$item"; fi;'
        " done"
    )
    found = sandbox.exec(command, keep_state=False).output.rstrip("\n")
    whole = header + clip(found, style.max_chars, _FOLDER_CLIPPED)
    command = f"find -L {where} -mindepth 1 -maxdepth 1 -name '.*' 2>/dev/null | wc -l"
    hidden = sandbox.exec(command, keep_state=False).output.strip()
    if hidden in {"", "0"}:
        return whole
    return (
        f"{whole}\n\n{hidden} hidden files/directories in this directory are excluded. "
        f"You can use 'ls -la {path}' to see them."
    )


_REQUIRED = {
    "create": ["file_text"],
    "str_replace": ["old_str"],
    "insert": ["insert_line", "new_str"],
}
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


EditHistory = defaultdict[str, deque[str]]
"""The contents of files before each edit of an episode, for ``undo_edit``."""


def start_history(style: EditorStyle) -> EditHistory:
    """An empty history; the editor's limit drops a file's oldest content."""
    return defaultdict(lambda: deque(maxlen=style.undo_limit))


@answering
def str_replace_editor(
    arguments: Mapping[str, str],
    sandbox: Sandbox,
    *,
    style: EditorStyle,
    history: EditHistory,
    workdir: str = "/testbed",
    command: str | None = None,
) -> str:
    """View, create or edit one file. Exit code 0 means done, 1 refused with the reason.

    ``command`` replaces the argument, for tools with one command, such as OpenHands' ``read``.
    """
    path = str(PurePosixPath(arguments["path"])) if arguments.get("path") else ""
    call = _Call(arguments, sandbox, style, history, path, posixpath.join(workdir, path))
    try:
        return call.carry_out(command or arguments.get("command", ""))
    except Refused as refusal:
        text = style.refusal.format(refusal)
        raise Refused(f"\n{text}" if isinstance(refusal, _RefusedBelow) else text) from None


@dataclass(frozen=True, slots=True)
class _Call:
    """One call. ``path``: the file's name in messages; ``at``: its place in the sandbox."""

    arguments: Mapping[str, str]
    sandbox: Sandbox
    style: EditorStyle
    history: EditHistory
    path: str
    at: str

    def carry_out(self, command: str) -> str:
        kind = self.check(command)
        match command:
            case "view":
                bounds = parse_range(self.arguments.get("view_range"), self.style)
                if kind == "folder":
                    return view_folder(self.path, bounds, self.style, self.sandbox)
                return view_file(self.path, self.read(), bounds, self.style, self.sandbox)
            case "create":
                return self.create(self.arguments["file_text"])
            case "str_replace":
                return self.replace(self.arguments["old_str"], self.arguments.get("new_str"))
            case "insert":
                return self.insert(self.arguments["insert_line"].strip())
            case "undo_edit":
                return self.undo()
        raise self.refused(self.style.messages.unknown, command=command)

    def refused(self, message: str, **about: object) -> Refused:
        return Refused(message.format(path=self.path, **about))

    def check(self, command: str) -> Kind | None:
        """The kind of the path. Raises Refused for a wrong path or a missing argument."""
        messages = self.style.messages
        if not self.path:
            raise self.refused(messages.missing, name="path", command=command)
        if not self.path.startswith("/") and not self.style.relative_paths:
            raise self.refused(messages.relative, value=self.path, suggested=self.at)
        kind = find_kind(self.at, self.sandbox)
        if kind is None and command != "create":
            raise self.refused(messages.gone)
        if kind is not None and command == "create":
            raise self.refused(messages.exists)
        if kind == "folder" and command != "view":
            raise self.refused(messages.folder)
        for name in _REQUIRED.get(command, []):
            value = self.arguments.get(name)
            if value is None or (not value and name in self.style.empty_is_missing):
                template = messages.no_text if name == "file_text" else messages.missing
                raise self.refused(template, name=name, command=command)
        return kind

    def create(self, text: str) -> str:
        undone = self.style.creation_undoes_to
        self.save(text, text if undone is None else undone, self.style.messages.not_created)
        if not self.style.shows_created:
            return f"File created successfully at: {self.path}"
        return f"File created at {self.path}. {self.numbered(self.path, text)}{_REVIEW_CREATED}"

    def replace(self, old: str, new: str | None) -> str:
        if self.style.same_is_looked_at_first and old == new:
            raise self.refused(self.style.messages.same, new=new)
        try:
            text = self.read()
        except Refused as refusal:  # this one is wrapped twice
            raise Refused(self.style.refusal.format(refusal)) from None
        edit = replace_once(self.path, text, old, new or "", self.style)
        return self.apply(edit, f"a snippet of {self.path}") + _REVIEW.format("")

    def insert(self, line: str) -> str:
        text = self.read()
        lines = split_lines(text) if self.style.inserts_whole_lines else text.split("\n")
        at = int(line) if line.isascii() and line.isdigit() and len(line) < 10 else -1
        if not 0 <= at <= len(lines):
            raise self.refused(self.style.messages.insert_line, value=line, total=len(lines))
        edit = insert_lines(text, at, self.arguments["new_str"], self.style)
        return self.apply(edit, "a snippet of the edited file") + _REVIEW_INSERTED

    def undo(self) -> str:
        if not self.history[self.path]:
            raise self.refused(self.style.messages.no_undo)
        text = self.history[self.path].pop()
        self.write(text, self.style.messages.unwritable)
        return f"Last edit to {self.path} undone successfully. {self.numbered(self.path, text)}"

    def apply(self, edit: Edit, what: str) -> str:
        self.save(edit.after, edit.before, self.style.messages.unwritable)
        shown = self.numbered(what, edit.snippet, edit.first)
        return f"The file {self.path} has been edited. {shown}"

    def numbered(self, what: str, text: str, first: int = 1) -> str:
        text = clip(text, self.style.max_chars, self.style.clipped)
        text = text.expandtabs() if self.style.snippet_expands_tabs else text
        lines = number_lines(text.split("\n"), first)
        return f"Here's the result of running `cat -n` on {what}:\n{lines}\n"

    def read(self) -> str:
        try:
            text = read_text(self.at, self.sandbox)
        except OSError as error:
            raise self.refused(self.style.messages.unreadable, error=error) from None
        if self.style.refuses_binary and "\0" in text[:1024]:
            raise Refused(
                f"File validation failed for {self.path}: File appears to be binary and "
                "this file type cannot be read or edited by this tool."
            )
        return text

    def save(self, text: str, undone: str, message: str) -> None:
        """Write the text unless it is faulty; keep ``undone`` for ``undo_edit``."""
        if self.style.lints and self.arguments.get("enable_linting"):
            fault = find_fault(self.path, text, self.sandbox)
            if fault:
                raise _RefusedBelow(_LINT + fault.message)
        self.write(text, message)
        self.history[self.path].append(undone)

    def write(self, text: str, message: str) -> None:
        try:
            write_text(self.at, text, self.sandbox)
        except OSError as error:
            said, parent = str(error).replace(self.at, self.path), posixpath.dirname(self.path)
            raise self.refused(message, error=said, parent=parent) from None
