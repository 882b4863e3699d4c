"""Translates calls of foreign tools during a replay to calls of our own that do the same.

The file is read before and after the call, and :mod:`srl_swe.tools.translation` finds the edit
that does the same to it. A window becomes a ``view`` of the same lines, a search the ``grep`` or
``find`` with the same results; both are carried out beside the expert's call to record the
answers that a policy would read. Neither changes anything.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from srl_swe.sandbox import Sandbox
from srl_swe.tools.bash import run_bash
from srl_swe.tools.own_calls import as_own_call, is_own_call
from srl_swe.tools.search import EDITORS, READERS, WRITERS, find_path, parse_replacements
from srl_swe.tools.text_files import Refused, is_folder
from srl_swe.tools.toolbox import Toolbox, open_toolbox
from srl_swe.tools.toolsets import BUNDLED
from srl_swe.tools.translation import (
    Untranslated,
    carry_out,
    edit_call,
    translate_edit,
    untranslated,
)
from srl_swe.tools.windowed import WINDOW
from srl_swe.types import Action, Observation, Translation

_WINDOW_VIEWS = frozenset({"open", "goto", "scroll_up", "scroll_down"})
_WINDOW_EDITS = frozenset({"create", "edit", "insert"})
_SEARCHES = frozenset({"find_file", "search_dir", "search_file", "search"})
_FORKED = replace(BUNDLED.shell, keep_state=False)
"""Our own shell, which can't end the expert's."""


@dataclass(frozen=True, slots=True)
class Before:
    """The file of a call, before it: its path in the sandbox, and its content.

    ``content`` None: the file does not exist; ``folder_exists``: it can be made there.
    """

    path: str
    content: bytes | None
    folder_exists: bool = True


class Translator:
    """Translates the calls of one replay, whose ``toolbox`` carries them out."""

    def __init__(self, source: str, toolbox: Toolbox, sandbox: Sandbox) -> None:
        self._source = source
        self._toolbox = toolbox
        self._sandbox = sandbox

    @cached_property
    def _own(self) -> Toolbox:
        """Our own tools, with the record's names of folders, which the first call settles."""
        roots = self._toolbox.paths.roots
        return open_toolbox(workdir=self._toolbox.workdir, recorded_paths=roots)

    def look(self, action: Action) -> Before | None:
        """Read the file before the call; None if the call edits no known file."""
        self._toolbox.set_up(self._sandbox)
        path = self._edited_path(action)
        if path is None:
            return None
        content = self._read(path)
        exists = content is not None or is_folder(posixpath.dirname(path), self._sandbox)
        return Before(path, content, exists)

    def translate(
        self, action: Action, answer: Observation, before: Before | None
    ) -> Translation | None:
        """Translate the call after it; None if it is one of our own already."""
        exact = self._toolbox.toolset.edits_exactly
        if exact and action.tool in READERS:
            return self._read_call(action)
        own = as_own_call(action, self._source, answer)
        is_ours = is_own_call(own) and not (exact and action.tool in {*WRITERS, *EDITORS})
        if is_ours and (before is None or self._does_the_same(own, before)):
            return self._late_view(own, answer)
        if before is not None:
            return self._edit(action, answer, before)
        if self._toolbox.windows and action.tool in _WINDOW_VIEWS:
            return self._window(action, answer)
        if action.tool in _SEARCHES:
            return self._search(action)
        if action.tool in {*_WINDOW_EDITS, *WRITERS, *EDITORS} and answer.exit_code:
            return untranslated(Untranslated.CALL_FAILED)
        return untranslated(Untranslated.NO_EQUAL_TOOL)

    def _edited_path(self, action: Action) -> str | None:
        toolset, windows = self._toolbox.toolset, self._toolbox.windows
        given = self._toolbox.arguments(action)
        if windows and action.tool in _WINDOW_EDITS:
            named = given.get("filename")
            return windows.resolve(named, self._sandbox) if named else windows.path
        if toolset.edits_exactly and action.tool in {*WRITERS, *EDITORS}:
            try:
                return find_path(given, self._toolbox.workdir)
            except Refused:
                return None
        changes = given.get("command") in {"create", "str_replace", "insert", "undo_edit"}
        dialect = toolset.editors.get(action.tool)
        own_dialect = BUNDLED.editors["str_replace_editor"]
        if dialect is None or dialect == own_dialect or not changes or not given.get("path"):
            return None
        return posixpath.normpath(posixpath.join(self._toolbox.workdir, given["path"]))

    def _read(self, path: str) -> bytes | None:
        try:
            return self._sandbox.read_file(path)
        except (OSError, ValueError):
            return None

    def _does_the_same(self, own: Action, before: Before) -> bool:
        """Whether our editor changes the file as the expert's did."""
        if not before.folder_exists:
            return self._read(before.path) is None
        sandbox_path = {**own.arguments, "path": before.path}
        relative = not self._toolbox.paths.to_sandbox(own.arguments["path"]).startswith("/")
        written, _ = carry_out(Action(own.tool, sandbox_path), before.path, before.content)
        return not relative and written == self._read(before.path)

    def _edit(self, action: Action, answer: Observation, before: Before) -> Translation:
        after = self._read(before.path)
        if after == before.content and answer.exit_code:
            return untranslated(Untranslated.CALL_FAILED)
        shown_as = self._toolbox.paths.to_recorded(before.path)
        return translate_edit(
            shown_as,
            before.content,
            after,
            _wishes(action, shown_as),
            inserts=action.tool == "insert" or action.arguments.get("command") == "insert",
            folder_exists=before.folder_exists,
        )

    def _window(self, action: Action, answer: Observation) -> Translation:
        windows = self._toolbox.windows
        assert windows is not None
        if answer.exit_code:
            named = self._toolbox.arguments(action).get("path") if action.tool == "open" else None
            path = windows.resolve(named, self._sandbox) if named else None
            if path is None or is_folder(path, self._sandbox):
                return untranslated(Untranslated.CALL_FAILED)
            return self._view(path)
        path = windows.open_path()
        text = windows.read(self._sandbox)
        if windows.style.count(text) <= WINDOW:
            return self._view(path)
        last = min(windows.first + WINDOW, text.count("\n") + 1)
        return self._view(path, windows.first + 1, last)

    def _read_call(self, action: Action) -> Translation:
        """``Read``, of lines ``offset`` (from 1) and ``limit`` more, or of the whole file."""
        given = self._toolbox.arguments(action)
        try:
            path = find_path(given, self._toolbox.workdir)
        except Refused:
            return untranslated(Untranslated.CALL_FAILED)
        offset, limit = given.get("offset", ""), given.get("limit", "")
        if not offset.isdecimal() and not limit.isdecimal():
            return self._view(path)
        first = max(1, int(offset[:9])) if offset.isdecimal() else 1
        total = (self._read(path) or b"").count(b"\n") + 1
        last = min(first + int(limit[:9]) - 1, total) if limit.isdecimal() else -1
        return self._view(path, first, last)

    def _late_view(self, own: Action, answer: Observation) -> Translation | None:
        """Cut a range beyond the end of the file, which our editor refuses, to the file."""
        wanted = own.arguments.get("view_range", "")
        first, _, last = wanted.strip("[] ").partition(",")
        if self._toolbox.toolset is BUNDLED or not last or answer.exit_code:
            return None
        if self._own.perform(own, self._sandbox).exit_code == 0 or not first.strip().isdecimal():
            return None
        path = self._toolbox.paths.to_sandbox(own.arguments["path"])
        return self._view(path, int(first[:9]), -1)

    def _view(self, path: str, first: int | None = None, last: int = -1) -> Translation:
        bounds = {} if first is None else {"view_range": f"[{first}, {last}]"}
        call = edit_call("view", self._toolbox.paths.to_recorded(path), **bounds)
        return Translation(call, self._own.perform(call, self._sandbox))

    def _search(self, action: Action) -> Translation:
        """The command that finds the same files, or shows the counted lines."""
        command = self._search_command(action.tool, self._toolbox.arguments(action))
        if command is None:
            return untranslated(Untranslated.CALL_FAILED)
        seen = run_bash({"command": command}, self._sandbox, _FORKED)
        text = self._toolbox.paths.to_recorded(seen.text)
        call = Action("bash", {"command": self._toolbox.paths.to_recorded(command)})
        return Translation(call, replace(seen, text=text))

    def _search_command(self, tool: str, given: Mapping[str, str]) -> str | None:
        windows, term = self._toolbox.windows, given.get("search_term", given.get("file_name"))
        if not term:
            return None
        quoted = shlex.quote(term)
        pattern = f"-e {quoted}" if term.startswith("-") else quoted
        if windows is None:  # R2E's: a pattern in a file, the text itself in a folder
            path = posixpath.join(self._toolbox.workdir, given.get("path", "."))
            where = shlex.quote(posixpath.normpath(path))
            if is_folder(path, self._sandbox):
                return f"grep -rnF --include='*.py' {pattern} {where}"
            return f"grep -n {pattern} {where}"
        if tool == "search_file":
            named = given.get("file")
            file = windows.resolve(named, self._sandbox) if named else windows.path
            return None if file is None else f"grep -n {pattern} {shlex.quote(file)}"
        where = shlex.quote(windows.resolve(given.get("dir") or ".", self._sandbox))
        if tool == "find_file":
            return f"find {where} -type f -name {quoted}"
        return f"grep -rnI --exclude-dir='.*' --exclude='.*' {pattern} {where}"


def _wishes(action: Action, path: str) -> list[Action]:
    """Calls that repeat the expert's own words, if those are a text and its replacement."""
    given = action.arguments
    if "search" in given:
        words = [(given["search"], given.get("replace", ""))]
    elif "old_str" in given:
        words = [(given["old_str"], given.get("new_str", ""))]
    else:
        try:
            words = [(edit.old, edit.new) for edit in parse_replacements(given)]
        except Refused:
            words = []
    if len(words) != 1:
        return []
    ((old, new),) = words
    return [edit_call("str_replace", path, old_str=old, new_str=new)]
