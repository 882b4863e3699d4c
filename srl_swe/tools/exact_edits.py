"""The file tools of other agents: Claude Code, Gemini CLI, opencode, pi, hermes.

What they do to files is alike, and done here; what each says of it is not told apart. Names of
arguments: ``file_path``/``filePath``/``path``, ``old_string``/``oldString``/``oldText``, ...
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srl_swe.sandbox import MAX_FILE_BYTES, Sandbox
from srl_swe.tools.numbered_text import clip, number_lines
from srl_swe.tools.refusal import Refused, answer
from srl_swe.tools.text_files import decode, encode, kind_of
from srl_swe.types import Observation

READERS = ("Read", "read", "read_file")
WRITERS = ("Write", "write", "write_file", "create_file")
EDITORS = ("Edit", "MultiEdit", "edit", "patch", "replace")
_MAX_CHARS = 30_000
_CUT = "\n... (the rest is not shown)"


def read_whole_file(arguments: Mapping[str, str], sandbox: Sandbox, workdir: str) -> Observation:
    """The file's lines, numbered; its beginning where it is long."""

    def read() -> str:
        text = _read(path_of(arguments, workdir), sandbox)
        return clip(number_lines(text.split("\n"), 1, "{}\t{}"), _MAX_CHARS, _CUT)

    return answer(read)


def write_whole_file(arguments: Mapping[str, str], sandbox: Sandbox, workdir: str) -> Observation:
    """Write ``content``, over what was there."""

    def write() -> str:
        content = arguments.get("content")
        if content is None:
            raise Refused("Parameter `content` is required.")
        path = path_of(arguments, workdir)
        _write(path, content, sandbox)
        return f"Wrote {path} successfully."

    return answer(write)


def edit_exactly(arguments: Mapping[str, str], sandbox: Sandbox, workdir: str) -> Observation:
    """Replace a text that stands once, or all that are alike; or several in turn (``edits``)."""
    return answer(lambda: _edit(arguments, sandbox, workdir))


def _edit(arguments: Mapping[str, str], sandbox: Sandbox, workdir: str) -> str:
    path = path_of(arguments, workdir)
    edits = replacements(arguments)
    text = "" if _makes_file(edits, path, sandbox) else _read(path, sandbox)
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


def _makes_file(edits: Sequence[Replacement], path: str, sandbox: Sandbox) -> bool:
    """Nothing to replace, and no file there: Claude Code and Gemini CLI write a new one then."""
    return not edits[0].old and kind_of(path, sandbox) is None


@dataclass(frozen=True, slots=True)
class Replacement:
    """``old`` gives way to ``new``: once, all of ``expected`` times, or ``everywhere``."""

    old: str
    new: str
    everywhere: bool = False
    expected: int = 1


def replacements(arguments: Mapping[str, str]) -> list[Replacement]:
    """What a call asks to replace, in its order. Raises Refused."""
    listed = arguments.get("edits")
    try:
        edits: list[Any] = json.loads(listed) if listed else [arguments]
        found = [_replacement(edit, arguments) for edit in edits]
    except (AttributeError, TypeError, ValueError, RecursionError):
        found = []
    if not found:
        raise Refused("What to replace, and by what, is required.")
    return found


def _replacement(edit: Mapping[str, Any], call: Mapping[str, str]) -> Replacement:
    """One of a call's; what it does not say of ``replace_all`` the call says. Raises ValueError."""
    old = _either(edit, "old_string", "oldString", "oldText")
    new = _either(edit, "new_string", "newString", "newText")
    if not isinstance(old, str) or not isinstance(new, str):
        raise ValueError("no texts")
    everywhere = _either(edit, "replace_all", "replaceAll")
    if everywhere is None:
        everywhere = _either(call, "replace_all", "replaceAll")
    expected = str(_either(edit, "expected_replacements") or "1")
    return Replacement(
        old, new, str(everywhere).lower() == "true", int(expected) if expected.isdecimal() else 1
    )


def _either(values: Mapping[str, Any], *names: str) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


def path_of(arguments: Mapping[str, str], workdir: str) -> str:
    """The file that a call is about; a relative path is taken from ``workdir``. Raises Refused."""
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
