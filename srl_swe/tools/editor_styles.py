"""The experts' editors: a type for their differences, and one value per editor with its source.

All descend from Anthropic's ``str_replace_editor``: the fields' defaults are its habits. Messages
are templates; ``{value}`` is the argument in question.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

CLIPPED = (
    "<response clipped><NOTE>To save on context only part of this file has been shown to you. "
    "You should retry this tool after you have searched inside the file with `grep -n` in order "
    "to find the line numbers of what you are looking for.</NOTE>"
)


@dataclass(frozen=True, slots=True)
class Messages:
    """Texts of refusals, before :attr:`EditorStyle.refusal` wraps them."""

    relative: str = (
        "The path {path} is not an absolute path, it should start with `/`. "
        "Maybe you meant {suggested}?"
    )
    gone: str = "The path {path} does not exist. Please provide a valid path."
    exists: str = "File already exists at: {path}. Cannot overwrite files using command `create`."
    folder: str = (
        "The path {path} is a directory and only the `view` command can be used on directories"
    )
    missing: str = "Parameter `{name}` is required for command: {command}"
    no_text: str = "Parameter `{name}` is required for command: {command}"
    """The same for ``file_text``."""
    unknown: str = (
        "Unrecognized command {command}. The allowed commands for the str_replace_editor tool "
        "are: view, create, str_replace, insert, undo_edit"
    )
    unreadable: str = "Ran into {error} while trying to read {path}"
    unwritable: str = "Ran into {error} while trying to write to {path}"
    not_created: str = "Ran into {error} while trying to write to {path}"
    folder_range: str = (
        "The `view_range` parameter is not allowed when `path` points to a directory."
    )
    range_form: str = "Invalid `view_range`. It should be a list of two integers."
    range_first: str = (
        "Invalid `view_range`: {value}. It's first element `{first}` should be within the "
        "range of lines of the file: [1, {total}]"
    )
    range_last: str = (
        "Invalid `view_range`: {value}. It's second element `{last}` should be smaller than "
        "the number of lines in the file: `{total}`"
    )
    range_order: str = (
        "Invalid `view_range`: {value}. It's second element `{last}` should be larger or "
        "equal than its first `{first}`"
    )
    no_match: str = (
        "No replacement was performed, old_str `{old}` did not appear verbatim in {path}."
    )
    several: str = (
        "No replacement was performed. Multiple occurrences of old_str `{old}` in lines "
        "{lines}. Please ensure it is unique"
    )
    same: str = ""
    """Empty: an edit without a change is carried out like any other."""
    insert_line: str = (
        "Invalid `insert_line` parameter: {value}. It should be within the range of lines of "
        "the file: [0, {total}]"
    )
    no_undo: str = "No edit history found for {path}."


class SnippetEnd(StrEnum):
    """The end of a file in the snippet after an edit."""

    EMPTY_LINE = "empty_line"
    """The empty text after the last newline is shown as a line."""
    CUT = "cut"
    """It is not shown."""
    NEWLINE = "newline"
    """Every snippet keeps its last newline and shows a line after it."""


class Occurrences(StrEnum):
    """The lines to list if a text occurs more than once."""

    HOLDERS = "holders"
    """Lines that contain all of it; empty for a text of several lines."""
    STARTS = "starts"
    """The start of each occurrence, overlapping ones included."""
    DISTINCT_STARTS = "distinct_starts"
    """The start of each occurrence, without overlapping ones; each line once."""


@dataclass(frozen=True, slots=True)
class ViewStyle:
    """The display of files. ``suffixes``, if given: only such files are shown."""

    header: str = "Here's the result of running `cat -n` on {path}:\n"
    line: str = "{:6}\t{}"
    footer: str = "\n"
    shows_last_empty_line: bool = True
    """The empty text after the last newline is shown as a line."""
    counts_last_empty_line: bool = True
    """A range may include that line."""
    counts_all_breaks: bool = True
    """Without the last empty line, lines are counted by Python's ``splitlines``, which also splits
    at a form feed. False: by line ends, though a range is still shown by ``splitlines``."""
    expands_tabs: bool = True
    clips_header_too: bool = False
    late_range_end_is_fine: bool = False
    """A range beyond the file's end is shortened and noted, not refused."""
    suffixes: tuple[str, ...] = ()
    refuses_below: bool = False
    """Refusals of a suffix or a range begin with a newline."""
    suffix_refusal: str = ""
    outline_from_lines: int | None = None
    """Python files with more lines are shown as an outline unless a range is given."""
    outline_from_chars: int | None = None


@dataclass(frozen=True, slots=True)
class ListingStyle:
    """The display of folders."""

    header: str = (
        "Here's the files and directories up to 2 levels deep in {path}, excluding hidden items:\n"
    )
    footer: str = "\n"
    suffixes: tuple[str, ...] = ()
    """If given, only folders and files with these endings are listed."""
    marks_folders: bool = False
    """Follows links, marks folders with a slash, counts hidden items."""


@dataclass(frozen=True, slots=True)
class EditorStyle:
    """One editor. ``expands_tabs``: an edited file is written back with spaces for tabs.

    ``shown_from`` and ``shown_to`` bound the snippet after ``str_replace``, in lines from the
    start of the replacement. ``undo_limit``: the number of edits per file that can be undone;
    None for all. ``empty_is_missing``: arguments that may not be empty.
    """

    messages: Messages = field(default_factory=Messages)
    refusal: str = "ERROR:\n{}"
    view: ViewStyle = field(default_factory=ViewStyle)
    listing: ListingStyle = field(default_factory=ListingStyle)
    max_chars: int = 16_000
    clipped: str = CLIPPED
    expands_tabs: bool = True
    snippet_expands_tabs: bool = True
    shows_created: bool = False
    shown_from: int = -4
    shown_to: int = 4
    snippet_end: SnippetEnd = SnippetEnd.EMPTY_LINE
    occurrences: Occurrences = Occurrences.HOLDERS
    undo_limit: int | None = None
    creation_undoes_to: str | None = None
    """The content after ``undo_edit`` of a ``create``; None: the created text itself."""
    relative_paths: bool = False
    empty_is_missing: frozenset[str] = frozenset()
    same_is_looked_at_first: bool = False
    """Old and new are compared before the file is read and before tabs are expanded."""
    tries_stripped: bool = False
    """Without a match, the strings are tried without white space around them."""
    inserts_whole_lines: bool = False
    """An insertion ends with a newline, also at the end of the file."""
    refuses_binary: bool = False
    lints: bool = False
    """``enable_linting`` refuses Python with a syntax error."""


ANTHROPIC = EditorStyle()
"""anthropic-quickstarts' ``computer_use_demo/tools/edit.py``, as in OpenHands 0.13 to 0.15."""

SWE_AGENT = EditorStyle(
    refusal="{}",
    messages=replace(
        ANTHROPIC.messages,
        range_first=ANTHROPIC.messages.range_first.replace("It's", "Its"),
        range_last=ANTHROPIC.messages.range_last.replace("It's", "Its"),
        range_order=ANTHROPIC.messages.range_order.replace("It's", "Its"),
        not_created="The parent directory {parent} does not exist. Please create it first.",
        same="No replacement was performed, old_str `{old}` is the same as new_str `{new}`.",
        unknown=(
            "Unrecognized command {command}. The allowed commands for the str_replace_editor "
            'tool are: "view", "create", "str_replace", "insert", "undo_edit"'
        ),
    ),
    view=ViewStyle(outline_from_chars=16_000),
    shown_from=-5,
    shown_to=3,
    snippet_end=SnippetEnd.CUT,
    undo_limit=0,
)
"""SWE-agent 1.0.1 ``tools/edit_anthropic``, used by SWE-smith: its history is never kept."""

_INVALID = "Invalid `{name}` parameter: {value}. "
_INVALID_PATH = _INVALID.format(name="path", value="{path}")
_INVALID_RANGE = _INVALID.format(name="view_range", value="{value}")

ACI_0_1 = replace(
    ANTHROPIC,
    messages=replace(
        ANTHROPIC.messages,
        relative=(
            f"{_INVALID_PATH}The path should be an absolute path, starting with `/`. "
            "Maybe you meant {path}?"
        ),
        gone=_INVALID_PATH + ANTHROPIC.messages.gone,
        exists=_INVALID_PATH + ANTHROPIC.messages.exists,
        folder=f"{_INVALID_PATH}{ANTHROPIC.messages.folder}.",
        missing=f"{ANTHROPIC.messages.missing}.",
        no_text=f"{ANTHROPIC.messages.no_text}.",
        unknown=ANTHROPIC.messages.unknown.replace("str_replace_editor", "oh_editor"),
        folder_range=_INVALID_RANGE + ANTHROPIC.messages.folder_range,
        range_form=f"{_INVALID_RANGE}It should be a list of two integers.",
        range_first=(
            f"{_INVALID_RANGE}Its first element `{{first}}` should be within the range of lines "
            "of the file: [1, {total}]."
        ),
        range_last=(
            f"{_INVALID_RANGE}Its second element `{{last}}` should be smaller than the number of "
            "lines in the file: `{total}`."
        ),
        range_order=(
            f"{_INVALID_RANGE}Its second element `{{last}}` should be greater than or equal to "
            "the first element `{first}`."
        ),
        several=f"{ANTHROPIC.messages.several}.",
        same=(
            "Invalid `new_str` parameter: {new}. No replacement was performed. `new_str` and "
            "`old_str` must be different."
        ),
    ),
    occurrences=Occurrences.STARTS,
    empty_is_missing=frozenset({"file_text", "old_str", "new_str"}),
    same_is_looked_at_first=True,
)
"""openhands-aci 0.1.2: the later runs of SWE-Gym's OpenHands trajectories."""

ACI_0_3 = replace(
    ACI_0_1,
    messages=replace(
        ACI_0_1.messages,
        relative=f"{_INVALID_PATH}The path should be an absolute path, starting with `/`.",
        insert_line=(
            "Invalid `insert_line` parameter: {value}. It should be within the range of allowed "
            "values: [0, {total}]"
        ),
    ),
    view=ViewStyle(
        counts_last_empty_line=False,
        counts_all_breaks=False,
        expands_tabs=False,
        late_range_end_is_fine=True,
    ),
    listing=ListingStyle(footer="", marks_folders=True),
    clipped=ANTHROPIC.clipped.replace("To save on context", "Due to the max output limit,"),
    expands_tabs=False,
    snippet_expands_tabs=False,
    shown_from=-3,
    snippet_end=SnippetEnd.NEWLINE,
    occurrences=Occurrences.DISTINCT_STARTS,
    undo_limit=10,
    empty_is_missing=frozenset(),
    tries_stripped=True,
    inserts_whole_lines=True,
    refuses_binary=True,
)
"""openhands-aci 0.3.2: OpenHands 0.30 to 0.54, nebius' SWE-rebench trajectories."""

_R2E_RANGE = "Invalid view_range {value}: "

R2E = EditorStyle(
    refusal="ERROR: {}",
    messages=Messages(
        gone="The path '{path}' does not exist.",
        exists="File already exists at: {path}. Cannot overwrite with 'create'.",
        folder="The path '{path}' is a directory. Only 'view' can be used on directories.",
        missing="Missing required parameter '{name}' for '{command}'.",
        no_text="Cannot create file without 'file_text' parameter.",
        unknown=(
            "Unrecognized command '{command}'. Allowed commands: view, create, str_replace, "
            "insert, undo_edit."
        ),
        unreadable="Failed to read file {path}: {error}",
        unwritable="Failed to write file {path}: {error}",
        not_created="Error creating file at {path}: {error}",
        folder_range="",
        range_form="Invalid view_range {value}: expected two integers.",
        range_first=f"{_R2E_RANGE}start line must be in [1, {{total}}]",
        range_last=f"{_R2E_RANGE}end must be >= start and <= {{total}}, or -1 to view until end.",
        range_order=f"{_R2E_RANGE}end must be >= start and <= {{total}}, or -1 to view until end.",
        no_match="No occurrences of '{old}' found in {path} for replacement.",
        several=(
            "Multiple occurrences of '{old}' found in {path}. Please ensure it is unique before "
            "using str_replace."
        ),
        insert_line="Invalid insert_line {value}. Must be in [0, {total}].",
        no_undo="No previous edits found for {path} to undo.",
    ),
    view=ViewStyle(
        header="Here's the result of running `cat -n` on the file: {path}:\n",
        line="{:6d} {}",
        footer="",
        shows_last_empty_line=False,
        counts_last_empty_line=False,
        expands_tabs=False,
        clips_header_too=True,
        suffixes=(".py",),
        refuses_below=True,
        suffix_refusal=(
            "ERROR: Viewing non-Python files is disallowed for saving context. File '{name}' is "
            "not a .py file."
        ),
        outline_from_lines=110,
    ),
    listing=ListingStyle(
        header=ListingStyle().header.replace("hidden items", "hidden"),
        footer="",
        suffixes=(".py",),
    ),
    max_chars=10_000,
    expands_tabs=False,
    shows_created=True,
    creation_undoes_to="",
    relative_paths=True,
    lints=True,
)
"""R2E-Gym 69bc953 ``agenthub/tools/file_editor.py``."""

_SWE_MASTER_SUFFIXES = (".py", ".rst", ".md", ".txt")

SWE_MASTER = replace(
    R2E,
    view=replace(
        R2E.view,
        expands_tabs=True,
        suffixes=_SWE_MASTER_SUFFIXES,
        suffix_refusal=R2E.view.suffix_refusal.replace(
            "not a .py file", "not a .py or .rst or .md  or .txt file"
        ),
        outline_from_lines=None,
    ),
    listing=replace(R2E.listing, suffixes=_SWE_MASTER_SUFFIXES),
    expands_tabs=True,
)
"""SWE-Master bc8904f ``agenthub/tools/str_replace_editor.py``."""
