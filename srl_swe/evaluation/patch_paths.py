r"""The paths in the text of a patch, in any spelling, and the kind of each.

swebench tries ``git apply`` in three ways and then GNU patch (``-p1``, fuzzy). Both read more forms
than git writes: names with C escapes, ``Index:`` lines, context, normal and ed diffs, indented or
quoted mails. Therefore every possible header line is read as a header, except in a unified hunk
whose counts add up: both programs skip its lines by count.

A patch can't earn a reward if a name leads out of the repository, into git's own folder, or through
a symbolic link made by the same patch, or if it adds a submodule. The list may hold too many paths,
never too few; :mod:`.runner_hooks` finds the real changes after the patch is applied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import PurePosixPath

from srl_swe.sandbox.working_tree import IGNORED_BY_HFS, names_git


class PathKind(StrEnum):
    """The owner of a path in a repository."""

    OUTSIDE = "outside"
    """Not in the repository: absolute, or through ``..``."""
    GIT = "git"
    """Git's own: ``.git`` in the spelling of any file system, at any depth."""
    RUNNER = "runner"
    """Loaded by Python, pytest or another test runner by itself, in any folder."""
    TEST = "test"
    ORDINARY = "ordinary"


RUNNER_HOOKS = tuple(
    re.findall(
        r"\S+",
        """conftest.py pytest.ini .pytest.ini pytest.toml .pytest.toml tox.ini tox.toml noxfile.py
        .coveragerc sitecustomize.py usercustomize.py setup.py .gitattributes .gitmodules
        jest.config.js jest.config.cjs jest.config.mjs jest.config.ts jest.config.json
        .mocharc.js .mocharc.cjs .mocharc.json .mocharc.yml .mocharc.yaml karma.conf.js
        vitest.config.js vitest.config.ts vitest.config.mts vitest.workspace.ts
        .rspec spec_helper.rb phpunit.xml phpunit.xml.dist""",
    )
)
"""Files that a test runner, an installer or git loads by itself, in any folder."""
RUNNER_SUFFIXES = (".pth", ".pyc", ".pyo")
"""Run or imported without visible source."""
_RUNNER_FOLDERS = re.compile(r".*\.(?:egg-info|dist-info)|__pycache__|site-packages|dist-packages")
"""Folders in which Python finds plugins (``entry_points.txt``) and compiled code."""
_TEST_FOLDER = re.compile(r"_*(?:tests?|specs?)_*", re.IGNORECASE)
_TEST_FILE = re.compile(
    r"test_.*\.py|.*_tests?\.(?:py|go|rb|c|cc|cpp|rs)|tests?\.py|.*[.-](?:test|spec)\.[cm]?[jt]sx?"
    r"|.*(?:Test|Tests|IT)\.(?:java|php|kt)|.*_spec\.rb"
)
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_COUNTED = {" ": (1, 1), "": (1, 1), "\r": (1, 1), "-": (1, 0), "+": (0, 1), "\\": (0, 0)}
"""The old and new lines that a line of a hunk counts for, by its first character."""
_QUOTING = re.compile(r"^(?:[ \tX]|- )*")
"""GNU patch strips an indent of blanks and ``X``, and the ``- `` of RFC 934 (pch.c)."""
_RANGE = re.compile(r"(?:\*\*\*|---) \d+(?:,\d+)? (?:\*{4}|-{4})")
"""The line numbers of a context diff's hunk, which look like a header."""
_NAMED = re.compile(
    r"(?:---|\+\+\+|\*\*\*|Index:|Prereq:|rename (?:from|to|old|new)|copy (?:from|to))[ \t]*(.*)"
)
_PAIR = re.compile(r"(?:diff --git|diff(?: -\S+)+)[ \t]+(.*)")
_ED_COMMAND = re.compile(r"\d+(?:,\d+)?[acdis]")
_MODE = re.compile(r"(?:new file mode|new mode|old mode|deleted file mode|index \S+) (\d{6})")
_ESCAPES = {b"a": 7, b"b": 8, b"t": 9, b"n": 10, b"v": 11, b"f": 12, b"r": 13, b'"': 34, b"\\": 92}
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2}|[abtnvfr\"\\])")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_LINK, _SUBMODULE = "120000", "160000"
_NO_FILE = "/dev/null"
_MOST_BLANKS = 64
"""Blanks per header line at which a name may end or begin."""
_MOST_HEADER_CHARS = 2 * 4 * 4096
"""Two paths, each of Linux' PATH_MAX bytes, all in octal escapes."""
_REMARK = re.compile(r"/dev/null(?:\s|$)")
_DANGER = re.compile(
    r"(?:^|[/\\])(?:(?:\.git|git~\d+)[. ]*(?::[^/\\]*)?|\.\.)(?:[/\\]|$)|^/|^[^/]+//", re.IGNORECASE
)
"""Matches the names that are OUTSIDE or GIT by :func:`kind_of`."""
_SUSPICIOUS = re.compile(r"\.\.|git|(?:^|\s)/|//", re.IGNORECASE)
"""A header without a match has no dangerous reading."""


def touched_paths(patch: str) -> dict[str, PathKind]:
    r"""Every path in the patch after ``-p1``, in any reading, with its kind; sorted by path.

    >>> patch = '--- a/x.py\n+++ "b/\\056git/hooks/pre-commit"\n'
    >>> {path: kind.value for path, kind in touched_paths(patch).items()}
    {'.git/hooks/pre-commit': 'git', 'x.py': 'ordinary'}
    """
    found: dict[str, PathKind] = {}
    for name in _names(patch):
        if name != _NO_FILE:
            found.setdefault(stripped(name), kind_of(name))
    return dict(sorted(found.items()))


def refusal(patch: str) -> str | None:
    """The reason why a patch can't earn a reward, in one line; None if it can."""
    for name in _names(patch):
        match kind_of(name):
            case PathKind.OUTSIDE:
                return f"the patch leads out of the repository: {stripped(name)[:200]!r}"
            case PathKind.GIT:
                return f"the patch writes to git's own files: {stripped(name)[:200]!r}"
            case PathKind.RUNNER | PathKind.TEST | PathKind.ORDINARY:
                continue
    headers = list(header_lines(patch))
    if any(map(_ED_COMMAND.fullmatch, headers)):
        return "the patch is a script for ed, which can run commands"
    too_long = [line for line in headers if len(line) > _MOST_HEADER_CHARS]
    if any(_NAMED.match(line) or _PAIR.match(line) for line in too_long):
        return "the patch has a header longer than any path"
    return _refused_mode(patch)


def kind_of(name: str) -> PathKind:
    """The kind of a name in a patch or a folder, by its spelling alone.

    >>> [kind_of(name).value for name in ("/etc/x", "a/../../x", "sub/.GIT./config", "conftest.py")]
    ['outside', 'outside', 'git', 'runner']
    """
    parts = [part for part in re.split(r"[/\\]", name) if part not in {"", "."}]
    absolute = name != _NO_FILE and stripped(name).startswith("/")
    if absolute or ".." in parts:
        return PathKind.OUTSIDE
    if any(map(names_git, parts)):
        return PathKind.GIT
    if is_runner_file("/".join(parts)):
        return PathKind.RUNNER
    if parts and (_TEST_FILE.fullmatch(parts[-1]) or any(map(is_test_folder, parts[:-1]))):
        return PathKind.TEST
    return PathKind.ORDINARY


def is_runner_file(path: str) -> bool:
    """True for a file that a runner loads by itself in any folder."""
    pure = PurePosixPath(path)
    return (
        any(part in RUNNER_HOOKS for part in pure.parts)
        or pure.suffix in RUNNER_SUFFIXES
        or any(map(_RUNNER_FOLDERS.fullmatch, pure.parts))
    )


def is_test_folder(name: str) -> bool:
    """True if a path component is the name of a test folder."""
    return _TEST_FOLDER.fullmatch(name) is not None


def stripped(name: str) -> str:
    """The name without its first component and the slash after it, as by ``-p1``."""
    if name.startswith("/") or "/" not in name:
        return name
    return name.partition("/")[2]


def _names(patch: str) -> Iterator[str]:
    """Raw names, with their prefix if there is one."""
    for line in header_lines(patch):
        if _RANGE.match(line) or len(line) > _MOST_HEADER_CHARS:
            continue
        if named := _NAMED.match(line):
            # In `rename from` lines git's names have no prefix.
            prefix = "" if line[0] in "-+*I" else "p/"
            yield from (f"{prefix}{name}" for name in _readings(named[1]))
        elif pair := _PAIR.match(line):
            yield from _names_of_pair(pair[1])


def header_lines(patch: str) -> Iterator[str]:
    """The possible header lines: all but those of unified hunks whose counts add up."""
    lines = patch.split("\n")
    at, names_came = 0, False
    while at < len(lines):
        hunk = _HUNK.match(lines[at]) if names_came else None
        end = _end_of_hunk(lines, at + 1, hunk) if hunk else None
        if end is not None:
            at = end
            continue
        names_came = lines[at].startswith(("--- ", "+++ "))
        yield _QUOTING.sub("", lines[at], count=1).rstrip("\r")
        at += 1


def _end_of_hunk(lines: list[str], at: int, hunk: re.Match[str]) -> int | None:
    """The line after the hunk beginning at ``at``; None if its counts do not add up."""
    old, new = (int(count) if count is not None else 1 for count in hunk.groups())
    while old > 0 or new > 0:
        counts = _COUNTED.get(lines[at][:1]) if at < len(lines) else None
        if counts is None:
            return None
        old, new, at = old - counts[0], new - counts[1], at + 1
    if at < len(lines) and lines[at].startswith("\\"):  # No newline at end of file
        at += 1
    return at if old == new == 0 else None


def _readings(text: str) -> Iterator[str]:
    """A header's name: quoted, or cut at any blank, as a date or a remark may follow."""
    if quoted := _QUOTED.match(text):
        yield _unescaped(quoted[1])
        return
    text = text.rstrip()
    if shown := text.partition("\t")[0].rstrip():
        yield shown
    if not _is_suspicious(text):
        return
    cuts = [blank.start() for blank in re.finditer(r"\s+", text)]
    yield from filter(_is_dangerous, [*(text[:cut] for cut in cuts[:_MOST_BLANKS]), text])


def _names_of_pair(text: str) -> Iterator[str]:
    """``a/x b/x``, either one quoted; with blanks in them, both are equal but for the prefix."""
    for quoted in _QUOTED.finditer(text):
        yield _unescaped(quoted[1])
    if '"' not in text:
        words = text.split(" ")
        half = len(words) // 2
        yield from (" ".join(words[:half]), " ".join(words[half:]))
    starts = [0, *(blank.end() for blank in re.finditer(r"\s+", text))]
    if len(starts) == 2 or not _is_suspicious(text):
        return  # no blank but the one between the two
    ends = (text[start:] for start in starts[:_MOST_BLANKS])
    yield from filter(_is_dangerous, [*text.split(), *ends])


def _is_suspicious(text: str) -> bool:
    return _SUSPICIOUS.search(IGNORED_BY_HFS.sub("", text)) is not None


def _is_dangerous(name: str) -> bool:
    return bool(not _REMARK.match(name) and _DANGER.search(IGNORED_BY_HFS.sub("", name)))


_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of surrogate pairs that don't stand for a byte."""


def _unescaped(text: str) -> str:
    """Git's C style; octal escapes are bytes of UTF-8."""

    def byte(escape: re.Match[bytes]) -> bytes:
        return bytes([_ESCAPES.get(escape[1]) or int(escape[1], 8)])

    raw = _HALVES.sub("\ufffd", text).encode("utf-8", "surrogateescape")
    return _ESCAPED.sub(byte, raw).decode("utf-8", "surrogateescape")


def _refused_mode(patch: str) -> str | None:
    """Submodules, and paths through a symbolic link of the same patch."""
    links: set[str] = set()
    last = ""
    for line in header_lines(patch):
        if pair := _PAIR.match(line):
            names = list(_names_of_pair(pair[1]))
            last = stripped(names[-1]) if names else ""
        elif (mode := _MODE.match(line)) and mode[1] == _SUBMODULE:
            return f"the patch adds or changes a submodule: {last!r}"
        elif mode and mode[1] == _LINK:
            links.add(last)
    for path in touched_paths(patch):
        through = {str(parent) for parent in PurePosixPath(path).parents} & links
        if through:
            return f"the patch writes through its own link {through.pop()!r}: {path!r}"
    return None
