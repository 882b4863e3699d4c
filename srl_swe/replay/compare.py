"""Compares one fresh observation with the recorded one. Pure, and quick on texts of any size."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from cydifflib import SequenceMatcher

from srl_swe.replay.normalise import Cause, Comparison, Match, apply_rules, harmless_cause
from srl_swe.types import Action, Observation

# Observations cut before they were recorded.


_CUT = re.compile(
    r"<response clipped>(?:<NOTE>.{0,400}?</NOTE>)?"  # editors of all harnesses
    r"|\[\d+ characters elided\]"  # mini-swe-agent, as its reader writes it
    r"|<elided_chars>.{0,80}?</elided_chars>"
    r"|\[\.\.\. Observation truncated due to length \.\.\.\]"  # OpenHands
    r"|<Observation (?:truncated in middle|condensed) for saving context>"  # R2E-Gym
    r"|Old (?:environment|output).{0,60}(?:omitted|elided)\S*(?: \S{1,20})?"  # SWE-agent's history
    r"|\[\d+ characters left out\]"  # our own sandbox
)


def shows_nothing(text: str) -> bool:
    """Whether only the mark of the cut is left."""
    return not any(fragments(text))


def shows_the_same(recorded: str, fresh: str) -> bool:
    r"""Whether the texts, at least one of them cut, agree on the parts that both show.

    >>> shows_the_same("one\ntwo\n<response clipped>", "one\ntwo\nthree")
    True
    """
    then, now = fragments(recorded), fragments(fresh)
    if len(then) > 1 and len(now) > 1:
        return _starts(then[0], now[0]) and _starts(then[-1][::-1], now[-1][::-1])
    cut, (whole,) = (then, now) if len(now) == 1 else (now, then)
    return _holds_in_order(whole, cut)


def fragments(text: str) -> list[str]:
    """The text between the cuts, without the lines torn by a cut.

    A torn line is kept if a fragment has no other, but blank space is not.
    """
    parts = _CUT.split(text)
    last = len(parts) - 1
    return [
        _whole_lines(part, torn_start=index > 0, torn_end=index < last)
        for index, part in enumerate(parts)
    ]


def _whole_lines(text: str, *, torn_start: bool, torn_end: bool) -> str:
    lines = text.split("\n")
    if torn_end and len(lines) > 1:
        lines = lines[:-1]
    if torn_start and len(lines) > 1:
        lines = lines[1:]
    return "\n".join(lines).strip()


def _starts(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _holds_in_order(whole: str, cut: list[str]) -> bool:
    if not (whole.startswith(cut[0]) and whole.endswith(cut[-1])):
        return False
    at = len(cut[0])
    for fragment in cut[1:-1]:
        at = whole.find(fragment, at)
        if at < 0:
            return False
        at += len(fragment)
    return at <= len(whole) - len(cut[-1])


# Outputs with an order or columns that depend on the file system or the terminal.


@dataclass(frozen=True, slots=True)
class _Unordered:
    """Commands whose lines, or words, are compared in any order."""

    command: re.Pattern[str]
    by_words: bool
    cause: Cause


_UNORDERED = (
    _Unordered(
        re.compile(
            r"(?:^|[|;&(`\n]|\bxargs)[^\S\n]*(?:sudo\s+)?(?:find|rg|ag|fd|tree|du)\b"
            r"|\bgrep\b[^|;&\n]{0,200}\s-(?:[a-zA-Z]*[rR]|-recursive)"
            r"|\bls\b[^|;&\n]{0,200}\s-[a-zA-Z]*[Uf]"
            r"|\bos\.(?:walk|listdir|scandir)\b|\b(?:iterdir|i?r?glob)\("
        ),
        by_words=False,
        cause=Cause.LISTING_ORDER,
    ),
    _Unordered(  # on a terminal `ls` prints columns
        re.compile(r"(?:^|[|;&(\n])[^\S\n]*ls\b(?![^|;&\n]{0,200}\s-[a-zA-Z]*l)"),
        by_words=True,
        cause=Cause.TERMINAL,
    ),
)
_ORDERED = re.compile(r"\|\s*(?:sort|head|tail|sed\b[^|]{0,80}-n)\b")
_LISTS = re.compile(
    r"(?:^|[|;&(\n])[^\S\n]*(?:ls|find|grep|rg|ag|fd|tree|git (?:status|ls-files))\b"
)
_BY_EDITOR = re.compile(r"Here's the files and directories up to 2 levels deep in ")


def same_in_any_order(then: str, now: str, action: Action) -> Cause | None:
    """The cause, if the command has no fixed order and the texts hold the same items."""
    for kind in _UNORDERED:
        if _is_of(kind, then, action):
            items = [text.split() if kind.by_words else text.splitlines() for text in (then, now)]
            if Counter(items[0]) == Counter(items[1]):
                return kind.cause
    return None


def is_listing(printed: str, action: Action) -> bool:
    """Whether the output lists files or matches of a search."""
    named = any(_is_of(kind, printed, action) for kind in _UNORDERED)
    return named or _LISTS.search(_command(action)) is not None


def _is_of(kind: _Unordered, printed: str, action: Action) -> bool:
    if not kind.by_words and _BY_EDITOR.match(printed):
        return True
    command = _command(action)
    return bool(kind.command.search(command)) and not _ORDERED.search(command)


def _command(action: Action) -> str:
    return action.arguments.get("command", action.arguments.get("cmd", ""))


# Whether an edit succeeded, by the answer of its tool.


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


# Causes of differing texts: a table of signs; the first differing sign counts.


@dataclass(frozen=True, slots=True)
class Sign:
    """The cause if the pattern's matches in the two texts differ."""

    cause: Cause
    pattern: re.Pattern[str]


def _sign(cause: Cause, pattern: str) -> Sign:
    return Sign(cause, re.compile(pattern, re.MULTILINE))


SIGNS = (
    _sign(
        Cause.MISSING_TOOL,
        r"^Unknown tool |^.{0,200}(?:command not found|: not found$|No module named pytest)",
    ),
    _sign(
        Cause.NETWORK,
        r"Could not resolve host|[Tt]emporary failure in name resolution|Network is unreachable"
        r"|No matching distribution found|Max retries exceeded|Could not find a version that"
        r"|Failed to establish a new connection|Connection refused",
    ),
    _sign(Cause.MISSING_MODULE, r"No module named \S{1,100}|cannot import name \S{1,100}"),
    _sign(Cause.MISSING_FILE, r"No such file or directory|[Dd]oes not exist|[Ff]ile not found"),
    _sign(
        Cause.TESTS,
        r"\b\d{1,7} (?:passed|failed|errors?|skipped|xfailed|xpassed|deselected)\b"
        r"|^Ran \d{1,7} tests?|^(?:OK|FAILED)(?: \(.{1,80}\))?$",
    ),
    _sign(
        Cause.VERSIONS,
        r"\b(?:Python|pytest|pluggy|pip|py|git version)[- ]v?\d[\w.]{0,40}"
        r"|^plugins: .{1,400}|\bpython\d\.\d{1,2}\b|^configfile: .{1,100}|-\d{1,9}(?:\.\d{1,9})+\b",
    ),
)


def diagnose(
    action: Action, recorded: Observation, fresh: Observation, then: str, now: str
) -> Cause:
    """The cause, given the observations and their normalised texts."""
    if recorded.timed_out != fresh.timed_out:
        return Cause.TIMED_OUT
    for sign in SIGNS:
        if Counter(sign.pattern.findall(then)) != Counter(sign.pattern.findall(now)):
            return sign.cause
    succeeded = edit_succeeded(recorded)
    if is_edit(action) and succeeded is not None and succeeded is edit_succeeded(fresh):
        return Cause.WORDING
    return Cause.ENTRIES if is_listing(then, action) else Cause.UNKNOWN


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
    if len({recorded.exit_code, fresh.exit_code} - {None}) > 1:
        then, now = apply_rules(recorded.text).text, apply_rules(fresh.text).text
        cause = diagnose(action, recorded, fresh, then, now)
        return Comparison(Match.EXIT_CODE, text_ratio(then, now), cause)
    if recorded.text == fresh.text:
        return Comparison(Match.EQUAL)
    return _compare_texts(recorded, fresh, action)


def _compare_texts(recorded: Observation, fresh: Observation, action: Action) -> Comparison:
    then, now = apply_rules(recorded.text), apply_rules(fresh.text)
    if then.text == now.text:
        return Comparison(Match.NORMALISED, cause=harmless_cause(then, now))
    if recorded.truncated and shows_nothing(then.text):
        return Comparison(Match.NOT_RECORDED, cause=Cause.TRUNCATED)
    if (recorded.truncated or fresh.truncated) and shows_the_same(then.text, now.text):
        return Comparison(Match.NORMALISED, cause=Cause.TRUNCATED)
    if any_order := same_in_any_order(then.text, now.text, action):
        return Comparison(Match.NORMALISED, cause=any_order)
    ratio = text_ratio(then.text, now.text)
    match = Match.SIMILAR if ratio >= SIMILAR_FROM else Match.DIFFERENT
    return Comparison(match, ratio, diagnose(action, recorded, fresh, then.text, now.text))


def text_ratio(one: str, other: str) -> float:
    """A ratio from 0 to 1, as difflib's: twice the common length over the sum of lengths.

    Common are aligned characters in short texts, and whole lines in any order in long ones.

    >>> text_ratio("1 passed", "2 passed")
    0.875
    """
    total = len(one) + len(other)
    if total <= _SHORT_CHARS:
        ratio: float = SequenceMatcher(None, one, other, autojunk=False).ratio()
        return round(ratio, 4)
    ours, theirs = Counter(one.splitlines(True)), Counter(other.splitlines(True))
    shared = sum(len(line) * count for line, count in (ours & theirs).items())
    return round(2 * shared / total, 4)
