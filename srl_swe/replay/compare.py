"""Compares one fresh observation with the recorded one. Pure, and quick on texts of any size.

Texts that differ after the rules of :mod:`~srl_swe.replay.normalise` may still show the same: in
another order, or around a cut at the source. All other differences have a ratio and a cause.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping

from cydifflib import SequenceMatcher

from srl_swe.replay.normalise import Cause, Comparison, Match, apply_rules, harmless_cause
from srl_swe.trajectories.turns import CUT_MARK
from srl_swe.types import Action, Observation

SIMILAR_FROM = 0.8
"""The lowest ratio of texts called similar rather than different; only a label."""
_SHORT_CHARS = 4000
"""Most characters of both texts to align, as the cost grows with the square."""
_NO_ACTION = Action("")


def compare_observations(
    recorded: Observation | None, fresh: Observation, action: Action = _NO_ACTION
) -> Comparison:
    """Compare ``fresh`` with ``recorded``; exit codes count if both have one.

    By ``action``, the order of lines is ignored for some commands. A recorded text cut at the
    source is compared on its remaining parts.
    """
    if recorded is None:
        return Comparison(Match.NOT_RECORDED)
    same_exit = len({recorded.exit_code, fresh.exit_code} - {None}) < 2
    if same_exit and recorded.text == fresh.text:
        return Comparison(Match.EQUAL)
    old, new = apply_rules(recorded.text), apply_rules(fresh.text)
    then, now = old.text, new.text
    if same_exit:
        if then == now:
            return Comparison(Match.NORMALISED, cause=harmless_cause(old, new))
        if recorded.truncated and not any(_fragments(then)):
            return Comparison(Match.NOT_RECORDED, cause=Cause.TRUNCATED)
        if (recorded.truncated or fresh.truncated) and _show_the_same(then, now):
            return Comparison(Match.NORMALISED, cause=Cause.TRUNCATED)
        for cause, items in _in_any_order(then, action).items():
            if Counter(items(then)) == Counter(items(now)):
                return Comparison(Match.NORMALISED, cause=cause)
    ratio = text_ratio(then, now)
    match = Match.SIMILAR if ratio >= SIMILAR_FROM else Match.DIFFERENT
    cause = _diagnose(action, recorded, fresh, then, now)
    return Comparison(match if same_exit else Match.EXIT_CODE, ratio, cause)


def text_ratio(then: str, now: str) -> float:
    """A ratio from 0 to 1, as difflib's: twice the common length over the sum of lengths.

    Common are aligned characters in short texts, and whole lines in any order in long ones.

    >>> text_ratio("1 passed", "2 passed")
    0.875
    """
    total = len(then) + len(now)
    if total <= _SHORT_CHARS:
        ratio: float = SequenceMatcher(None, then, now, autojunk=False).ratio()
        return round(ratio, 4)
    common = Counter(then.splitlines(True)) & Counter(now.splitlines(True))
    shared = sum(len(line) * count for line, count in common.items())
    return round(2 * shared / total, 4)


def _show_the_same(recorded: str, fresh: str) -> bool:
    r"""Whether the texts, at least one of them cut, agree on the parts that both show.

    >>> _show_the_same("one\ntwo\n<response clipped>", "one\ntwo\nthree")
    True
    """
    then, now = _fragments(recorded), _fragments(fresh)
    if len(then) > 1 and len(now) > 1:
        return _starts(then[0], now[0]) and _starts(then[-1][::-1], now[-1][::-1])
    if len(then) == len(now):
        return False  # neither shows where it was cut
    cut, (whole,) = (then, now) if len(now) == 1 else (now, then)
    if not (whole.startswith(cut[0]) and whole.endswith(cut[-1])):
        return False
    at = len(cut[0])
    for fragment in cut[1:-1]:
        found = whole.find(fragment, at)
        if found < 0:
            return False
        at = found + len(fragment)
    return at <= len(whole) - len(cut[-1])


def _starts(then: str, now: str) -> bool:
    return then.startswith(now) or now.startswith(then)


def _fragments(text: str) -> list[str]:
    """The text between the cuts, without the lines torn by a cut.

    A torn line is kept if a fragment has no other, but blank space is not.
    """
    fragments = [part.split("\n") for part in CUT_MARK.split(text)]
    for index, lines in enumerate(fragments):
        if index < len(fragments) - 1 and len(lines) > 1:
            del lines[-1]
        if index > 0 and len(lines) > 1:
            del lines[0]
    return ["\n".join(lines).strip() for lines in fragments]


_UNORDERED = re.compile(
    r"(?:^|[|;&(`\n]|\bxargs)[^\S\n]*(?:sudo\s+)?(?:find|rg|ag|fd|tree|du)\b"
    r"|\bgrep\b[^|;&\n]{0,200}\s-(?:[a-zA-Z]*[rR]|-recursive)"
    r"|\bls\b[^|;&\n]{0,200}\s-[a-zA-Z]*[Uf]"
    r"|\bos\.(?:walk|listdir|scandir)\b|\b(?:iterdir|i?r?glob)\("
)
"""Commands that print in the order of the file system."""
_COLUMNS = re.compile(r"(?:^|[|;&(\n])[^\S\n]*ls\b(?![^|;&\n]{0,200}\s-[a-zA-Z]*l)")
"""On a terminal, `ls` prints columns."""
_ORDERED = re.compile(r"\|\s*(?:sort|head|tail|sed\b[^|]{0,80}-n)\b")
_LISTS = re.compile(
    r"(?:^|[|;&(\n])[^\S\n]*(?:ls|find|grep|rg|ag|fd|tree|git (?:status|ls-files))\b"
)
_BY_EDITOR = re.compile(r"Here's the files and directories up to 2 levels deep in ")


def _in_any_order(printed: str, action: Action) -> Mapping[Cause, Callable[[str], list[str]]]:
    """How to split the output into items without a fixed order, by the cause of another order."""
    command = _command(action)
    is_sorted = _ORDERED.search(command)
    found: dict[Cause, Callable[[str], list[str]]] = {}
    if _BY_EDITOR.match(printed) or (_UNORDERED.search(command) and not is_sorted):
        found[Cause.LISTING_ORDER] = str.splitlines
    if _COLUMNS.search(command) and not is_sorted:
        found[Cause.TERMINAL] = str.split
    return found


def _command(action: Action) -> str:
    return action.arguments.get("command", action.arguments.get("cmd", ""))


_EDIT_COMMANDS = frozenset({"create", "str_replace", "insert", "undo_edit"})
_EDIT_TOOLS = frozenset(
    {"edit", "insert", "create", "Edit", "MultiEdit", "Write", "write", "write_file", "patch"}
    | {"replace", "create_file", "apply_patch"}
)
_DONE = re.compile(
    r"The file (?:\S.{0,500} )?has been (?:edited|updated|created)"
    r"|File created(?: successfully)?\b|Applied \d{1,4} edits?\b"
    r"|Last edit to .{1,500} undone|Text replaced\."
    r"|\[?File updated|Edit applied successfully|Successfully (?:replaced|edited|created|wrote)"
    r'|\bWrote .{1,500} successfully|"success": true|\A\s*\[File: ',
)
_REFUSED = re.compile(
    r"No replacement was performed|did not appear verbatim|[Nn]ot found|[Dd]oes not exist"
    r"|[Nn]o file (?:is )?open|already exists|\bERROR\b|\b[Ee]rror\b|Invalid|[Ff]ailed"
    r"|is required for|Unrecognized command|[Nn]o edit history|not an absolute path"
    r'|directory and only|[Mm]ultiple occurrences|can\'t be|"success": false|^[Uu]sage: ',
    re.MULTILINE,
)
_HEAD_CHARS, _TAIL_CHARS = 1500, 400
"""Tools report the result at the ends; the file content between may match anything."""


def is_edit(action: Action) -> bool:
    """Whether the call is an edit by an edit tool; edits by a shell are not recognised."""
    command = action.arguments.get("command")
    return action.tool in _EDIT_TOOLS or (
        command in _EDIT_COMMANDS and ("editor" in action.tool or "edit_tool" in action.tool)
    )


def edit_succeeded(observation: Observation | None) -> bool | None:
    """Whether the edit tool's answer reports success; None if it is not recognised.

    If the words are unknown, an exit code decides: our own tools have one.

    >>> edit_succeeded(Observation("The file /testbed/x.py has been edited. Here's the result"))
    True
    """
    if observation is None:
        return None
    text = observation.text
    said = f"{text[:_HEAD_CHARS]}\n{text[_HEAD_CHARS:][-_TAIL_CHARS:]}"
    if _DONE.search(said):
        return True
    if _REFUSED.search(said):
        return False
    return None if observation.exit_code is None else observation.exit_code == 0


_SIGNS = {
    cause: re.compile(pattern, re.MULTILINE)
    for cause, pattern in {
        Cause.MISSING_TOOL: r"^Unknown tool |^.{0,200}(?:command not found|: not found$"
        r"|No module named pytest)",
        Cause.NETWORK: r"Could not resolve host|[Tt]emporary failure in name resolution"
        r"|Network is unreachable|No matching distribution found|Max retries exceeded"
        r"|Could not find a version that|Failed to establish a new connection|Connection refused",
        Cause.MISSING_MODULE: r"No module named \S{1,100}|cannot import name \S{1,100}",
        Cause.MISSING_FILE: r"No such file or directory|[Dd]oes not exist|[Ff]ile not found",
        Cause.TESTS: r"\b\d{1,7} (?:passed|failed|errors?|skipped|xfailed|xpassed|deselected)\b"
        r"|^Ran \d{1,7} tests?|^(?:OK|FAILED)(?: \(.{1,80}\))?$",
        Cause.VERSIONS: r"\b(?:Python|pytest|pluggy|pip|py|git version)[- ]v?\d[\w.]{0,40}"
        r"|^plugins: .{1,400}|\bpython\d\.\d{1,2}\b|^configfile: .{1,100}"
        r"|-\d{1,9}(?:\.\d{1,9})+\b",
    }.items()
}
"""The first pattern with other matches in the two texts gives the cause."""


def _diagnose(
    action: Action, recorded: Observation, fresh: Observation, then: str, now: str
) -> Cause:
    """The cause, given the observations and their normalised texts."""
    if recorded.timed_out != fresh.timed_out:
        return Cause.TIMED_OUT
    for cause, pattern in _SIGNS.items():
        if Counter(pattern.findall(then)) != Counter(pattern.findall(now)):
            return cause
    succeeded = edit_succeeded(recorded)
    if is_edit(action) and succeeded is not None and succeeded is edit_succeeded(fresh):
        return Cause.WORDING
    lists_files = _in_any_order(then, action) or _LISTS.search(_command(action))
    return Cause.ENTRIES if lists_files else Cause.UNKNOWN
