"""The editors of the experts, by the source that says how each behaves."""

from __future__ import annotations

from dataclasses import replace

from srl_swe.tools.editor_dialect import (
    EditorDialect,
    ListingStyle,
    Messages,
    Occurrences,
    SnippetEnd,
    ViewStyle,
)

ANTHROPIC = EditorDialect()
"""anthropic-quickstarts' ``computer_use_demo/tools/edit.py`` as OpenHands 0.13 to 0.15 had it."""

SWE_AGENT = EditorDialect(
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
"""SWE-agent 1.0.1 ``tools/edit_anthropic``, that of SWE-smith: its history is never kept."""

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

R2E = EditorDialect(
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
        refusal="\n{}",
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
"""SWE-Master bc8904f ``agenthub/tools/str_replace_editor.py``, which calls itself so."""
