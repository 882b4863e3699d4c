"""What the editors of the experts differ in; :mod:`srl_swe.tools.editors` lists them.

All descend from Anthropic's ``str_replace_editor``: the fields' defaults are its habits.
Messages are templates; ``{value}`` is the argument that they are about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

CLIPPED = (
    "<response clipped><NOTE>To save on context only part of this file has been shown to you. "
    "You should retry this tool after you have searched inside the file with `grep -n` in order "
    "to find the line numbers of what you are looking for.</NOTE>"
)


@dataclass(frozen=True, slots=True)
class Messages:
    """What is said when a call is refused, before :attr:`EditorDialect.refusal` wraps it."""

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
    """Empty: an edit that changes nothing is done like any other."""
    insert_line: str = (
        "Invalid `insert_line` parameter: {value}. It should be within the range of lines of "
        "the file: [0, {total}]"
    )
    no_undo: str = "No edit history found for {path}."


class SnippetEnd(StrEnum):
    """What becomes of the end of a file in the snippet shown after an edit."""

    EMPTY_LINE = "empty_line"
    """The nothing after the last newline is shown as a line."""
    CUT = "cut"
    """It is not."""
    NEWLINE = "newline"
    """Every snippet keeps its last newline, and shows a line after it."""


class Occurrences(StrEnum):
    """Which lines are named where a text stands more than once."""

    HOLDERS = "holders"
    """Lines that hold all of it: none, if it has several lines."""
    STARTS = "starts"
    """Where each occurrence starts, those that overlap included."""
    DISTINCT_STARTS = "distinct_starts"
    """Each line once, none for what overlaps."""


@dataclass(frozen=True, slots=True)
class ViewStyle:
    """How files are shown. ``suffixes``: no others are, where any are given."""

    header: str = "Here's the result of running `cat -n` on {path}:\n"
    line: str = "{:6}\t{}"
    footer: str = "\n"
    shows_last_empty_line: bool = True
    """The nothing after the last newline is shown as a line."""
    counts_last_empty_line: bool = True
    """A range may reach it."""
    counts_all_breaks: bool = True
    """Without the last empty line, lines are those of Python's ``splitlines``, which a form feed
    ends too; else those of the file, of which a range shows those that ``splitlines`` makes."""
    expands_tabs: bool = True
    clips_header_too: bool = False
    late_range_end_is_fine: bool = False
    """A range that ends after the file is cut and noted, not refused."""
    suffixes: tuple[str, ...] = ()
    refusal: str = "{}"
    """Wraps refusals of a suffix or a range once more."""
    suffix_refusal: str = ""
    outline_from_lines: int | None = None
    """Python files with more lines are shown as an outline unless a range is given."""
    outline_from_chars: int | None = None


@dataclass(frozen=True, slots=True)
class ListingStyle:
    """How folders are shown."""

    header: str = (
        "Here's the files and directories up to 2 levels deep in {path}, excluding hidden items:\n"
    )
    footer: str = "\n"
    suffixes: tuple[str, ...] = ()
    """Only folders and files of these are listed, where any are given."""
    marks_folders: bool = False
    """Links are followed, folders end with a slash, and hidden items are counted."""


@dataclass(frozen=True, slots=True)
class EditorDialect:
    """One editor. ``expands_tabs``: an edited file is written back with spaces for tabs.

    ``shown_from`` and ``shown_to`` bound the snippet after ``str_replace``, in lines counted
    from the one where the replacement starts. ``undo_limit``: edits of a file that can be
    taken back; None for all. ``empty_is_missing`` names arguments that may not be empty.
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
    """What ``undo_edit`` of a ``create`` writes; None: the created text itself."""
    relative_paths: bool = False
    empty_is_missing: frozenset[str] = frozenset()
    same_is_looked_at_first: bool = False
    """Whether old and new are compared before the file is read, and before tabs are expanded."""
    tries_stripped: bool = False
    """Where nothing matches, the strings are tried without the white space around them."""
    inserts_whole_lines: bool = False
    """An insertion ends with a newline, at the end of the file too."""
    refuses_binary: bool = False
    lints: bool = False
    """``enable_linting`` refuses Python with a syntax error."""
