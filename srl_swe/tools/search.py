"""Searches of SWE-agent and R2E, and the file tools of other agents (Claude Code, Gemini CLI, ...).

Searches run find and grep in the container, with quoted arguments.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srl_swe.sandbox import MAX_FILE_BYTES, Sandbox
from srl_swe.tools.text_files import (
    Refused,
    answering,
    clip,
    decode,
    encode,
    find_kind,
    is_folder,
    number_lines,
)
from srl_swe.tools.windowed import Windows

# The file tools of Claude Code, Gemini CLI, opencode, pi and hermes have the same effects; their
# different answers are not imitated. Arguments: ``file_path``/``filePath``/``path``,
# ``old_string``/``oldString``/``oldText``, ...

READERS = ("Read", "read", "read_file")
WRITERS = ("Write", "write", "write_file", "create_file")
EDITORS = ("Edit", "MultiEdit", "edit", "patch", "replace")
_MAX_CHARS = 30_000
_TRUNCATED = "\n... (the rest is not shown)"


@answering
def read_whole_file(arguments: Mapping[str, str], sandbox: Sandbox, workdir: str) -> str:
    """The file's numbered lines; only its beginning if it is long."""
    text = _read(find_path(arguments, workdir), sandbox)
    return clip(number_lines(text.split("\n"), 1, "{}\t{}"), _MAX_CHARS, _TRUNCATED)


@answering
def write_whole_file(arguments: Mapping[str, str], sandbox: Sandbox, workdir: str) -> str:
    """Write ``content``; replaces an old file."""
    content = arguments.get("content")
    if content is None:
        raise Refused("Parameter `content` is required.")
    path = find_path(arguments, workdir)
    _write(path, content, sandbox)
    return f"Wrote {path} successfully."


@answering
def edit_exactly(arguments: Mapping[str, str], sandbox: Sandbox, workdir: str) -> str:
    """Replace a text once or everywhere, or several texts in turn (``edits``)."""
    path = find_path(arguments, workdir)
    edits = parse_replacements(arguments)
    # with nothing to replace and no file there, Claude Code and Gemini CLI write a new file
    is_new = not edits[0].old and find_kind(path, sandbox) is None
    text = "" if is_new else _read(path, sandbox)
    for edit in edits:
        count = text.count(edit.old) if edit.old else 0
        if not edit.old and not text:
            text = edit.new
            continue
        if not count:
            raise Refused(f"The text to replace was not found in {path}.")
        if count > 1 and count != edit.expected and not edit.everywhere:
            raise Refused(f"The text to replace stands {count} times in {path}.")
        if len(text) + count * len(edit.new) > MAX_FILE_BYTES:
            raise Refused(f"The file {path} would be too large.")
        text = text.replace(edit.old, edit.new)
    _write(path, text, sandbox)
    return f"The file {path} has been updated successfully."


@dataclass(frozen=True, slots=True)
class Replacement:
    """Replace ``old`` by ``new`` once, exactly ``expected`` times, or ``everywhere``."""

    old: str
    new: str
    everywhere: bool = False
    expected: int = 1


def parse_replacements(arguments: Mapping[str, str]) -> list[Replacement]:
    """The replacements, in order; the call's ``replace_all`` is their default. Raises Refused."""
    listed = arguments.get("edits")
    found = []
    try:
        edits: list[Any] = json.loads(listed) if listed else [arguments]
        for edit in edits:
            old = _either(edit, "old_string", "oldString", "oldText")
            new = _either(edit, "new_string", "newString", "newText")
            if not isinstance(old, str) or not isinstance(new, str):
                raise ValueError("no texts")
            everywhere = _either(edit, "replace_all", "replaceAll")
            if everywhere is None:
                everywhere = _either(arguments, "replace_all", "replaceAll")
            expected = str(_either(edit, "expected_replacements"))
            times = int(expected) if expected.isdecimal() else 1
            found.append(Replacement(old, new, str(everywhere).lower() == "true", times))
    except (AttributeError, TypeError, ValueError, RecursionError):
        found = []
    if not found:
        raise Refused("What to replace, and by what, is required.")
    return found


def _either(values: Mapping[str, Any], *names: str) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


def find_path(arguments: Mapping[str, str], workdir: str) -> str:
    """The file of a call; a relative path starts at ``workdir``. Raises Refused."""
    named = _either(arguments, "file_path", "filePath", "absolute_path", "path")
    if not named:
        raise Refused("The path of a file is required.")
    return posixpath.normpath(posixpath.join(workdir, named))


def _read(path: str, sandbox: Sandbox) -> str:
    try:
        return decode(sandbox.read_file(path))
    except (OSError, ValueError) as error:
        raise Refused(f"{path} can't be read: {error}.") from None


def _write(path: str, text: str, sandbox: Sandbox) -> None:
    try:
        sandbox.write_file(path, encode(text))
    except (OSError, ValueError) as error:
        raise Refused(f"{path} can't be written: {error}.") from None


_MAX_FILES = 100
_SKIP_HIDDEN = r"-type d -name '.?*' -prune -o -type f ! -name '.*'"


@answering
def find_file(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    """Files in ``dir`` whose name matches the pattern ``file_name``."""
    name = arguments.get("file_name", "")
    if not name:
        raise Refused("Usage: find_file <file_name> [<dir>]")
    folder = _folder(arguments, sandbox, windows)
    found = _lines(
        f"find {shlex.quote(folder)} -type f -name {shlex.quote(name)} | LC_ALL=C sort", sandbox
    )
    if not found:
        return f'No matches found for "{name}" in {folder}'
    return "\n".join([f'Found {len(found)} matches for "{name}" in {folder}:', *found])


@answering
def search_dir(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    """The number of matches of the pattern ``search_term``, per file of ``dir``."""
    term = arguments.get("search_term", "")
    if not term:
        raise Refused("Usage: search_dir <search_term> [<dir>]")
    folder = _folder(arguments, sandbox, windows)
    files = f"find {shlex.quote(folder)} -type f ! -path '*/.*'"
    return _summary(term, folder, _counts(f"{files} -exec grep -cIH -e", term, sandbox))


@answering
def search_file(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    """Lines of ``file``, or of the open file, that match the pattern ``search_term``."""
    term, named = arguments.get("search_term", ""), arguments.get("file")
    usage = "Usage: search_file <search_term> [<file>]"
    if not term:
        raise Refused(usage)
    path = windows.resolve(named, sandbox) if named else windows.open_path()
    if find_kind(path, sandbox) != "file":
        raise Refused(
            f"{usage}\nError: File name {named} not found. Please provide a valid file name."
        )
    found = _lines(f"grep -n -e {shlex.quote(term)} {shlex.quote(path)}", sandbox)
    return _listed(term, path, len(found), [f"Line {line}" for line in found])


@answering
def search_repository(arguments: Mapping[str, str], sandbox: Sandbox, workdir: str) -> str:
    """R2E's ``search``: lines of a file, or counts per Python file of a folder.

    ``search_term`` is a pattern for a file, and plain text for a folder.
    """
    term, named = arguments.get("search_term"), arguments.get("path", ".")
    if term is None:
        raise Refused("usage: search [-h] --search_term SEARCH_TERM [--path PATH]")
    path = posixpath.normpath(posixpath.join(workdir, named))
    if find_kind(path, sandbox) == "file":
        found = _lines(f"grep -n -e {shlex.quote(term)} {shlex.quote(path)}", sandbox)
        head = f'Matches for "{term}" in {path}:'
        return "\n".join([head, *found]) if found else f'No matches found for "{term}" in {path}'
    if not is_folder(path, sandbox):
        raise Refused(f"Directory '{path}' not found or not a directory.")
    files = f"find {shlex.quote(path)} -mindepth 1 {_SKIP_HIDDEN} -name '*.py'"
    counts = _counts(f"{files} -exec grep -cHF -e", term, sandbox)
    near = {f"./{posixpath.relpath(file, workdir)}": n for file, n in counts.items()}
    return _summary(term, path, near)


def _folder(arguments: Mapping[str, str], sandbox: Sandbox, windows: Windows) -> str:
    """The folder ``dir``, the shell's if left out. Raises Refused."""
    named = arguments.get("dir")
    path = windows.resolve(named or ".", sandbox)
    if not is_folder(path, sandbox):
        raise Refused(f"Directory {named or path} not found")
    return path


def _lines(command: str, sandbox: Sandbox) -> list[str]:
    output = sandbox.exec(f"{{ {command}; }} 2>/dev/null", keep_state=False).output
    return output.rstrip("\n").split("\n") if output.strip("\n") else []


def _counts(grep: str, term: str, sandbox: Sandbox) -> dict[str, int]:
    """The files with matches and their number, from a ``find`` that executes ``grep -c``."""
    lines = _lines(f"{grep} {shlex.quote(term)} {{}} + | LC_ALL=C sort", sandbox)
    found = map(re.compile(r"(.*):(\d+)").fullmatch, lines)
    return {match[1]: int(match[2]) for match in found if match and match[2] != "0"}


def _summary(term: str, folder: str, found: Mapping[str, int]) -> str:
    if len(found) > _MAX_FILES:
        return (
            f'More than {len(found)} files matched for "{term}" in {folder}. '
            "Please narrow your search."
        )
    shown = [f"{path} ({count} matches)" for path, count in found.items()]
    return _listed(term, folder, sum(found.values()), shown)


def _listed(term: str, place: str, matches: int, shown: Sequence[str]) -> str:
    if not shown:
        return f'No matches found for "{term}" in {place}'
    head = f'Found {matches} matches for "{term}" in {place}:'
    return "\n".join([head, *shown, f'End of matches for "{term}" in {place}'])
