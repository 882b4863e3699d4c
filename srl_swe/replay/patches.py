"""Compares the patch that a replay leaves with the recorded one."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FILE = re.compile(r"^(?=diff --git )", re.MULTILINE)
_PLAIN_FILE = re.compile(r"^(?=--- .*\n\+\+\+ )", re.MULTILINE)
_NAMES = re.compile(r'^diff --git "?a/(.*?)"? "?b/(.*?)"?$')
_NAME = re.compile(r'^(?:\+\+\+|---) "?(?:[ab]/)?(.*?)"?(?:\t.*)?$')
_UNTOLD = re.compile(
    r"^(?:index [0-9a-f]|(?:dis)?similarity index |old mode |new mode |diff --git )"
)
_HUNK = re.compile(r"^(@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@).*")
_BINARY = re.compile(r"^(?:GIT binary patch|Binary files .* differ)$", re.MULTILINE)
_ELIDED = re.compile(
    r"^(?:\[\d+ characters elided\]|<response clipped>|\[\.\.\. .{0,40}truncated)", re.MULTILINE
)
HARNESS_FILES = frozenset({"model.patch"})
"""SWE-agent 0.x writes its submission into the repository; a second submission then includes it."""


@dataclass(frozen=True, slots=True)
class FilePatch:
    """The change of one file; ``body`` is the compared part.

    Not counted: abbreviated hashes, modes, the line of code behind ``@@``, and
    the space of a blank context line, which editors and formats strip.
    For a binary file only the name and whether it is new count: git may have left the bytes
    out, and caches and databases hold times.
    """

    path: str
    body: str
    is_new: bool
    is_binary: bool


@dataclass(frozen=True, slots=True)
class PatchComparison:
    """Paths by the result of the comparison; equal files and ``left_over`` do not count.

    ``left_over`` are files of only one patch that do not belong to the repository: new ones of
    the fresh patch alone, which the record's harness left out or tools left behind (caches,
    builds), new binary ones of either, and HARNESS_FILES. ``complete`` False: the recorded
    patch was itself cut, and the files after the cut are unknown.
    """

    missing: tuple[str, ...] = ()
    """Only the record has them."""
    extra: tuple[str, ...] = ()
    """Only the replay has them, and they existed before: tracked files."""
    differing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    complete: bool = True

    @property
    def equal(self) -> bool:
        """The same edits of the same files."""
        return not (self.missing or self.extra or self.differing)


def compare_patches(recorded: str, fresh: str) -> PatchComparison:
    """Compare file by file, in any order. Both are unified diffs, with git's headers or without."""
    shown, complete = _before_cut(recorded)
    then, now = parse_patch(shown), parse_patch(fresh)
    only_then = [then[path] for path in sorted(then.keys() - now.keys())]
    only_now = [now[path] for path in sorted(now.keys() - then.keys())] if complete else []
    both = sorted(then.keys() & now.keys())
    left_over = [
        *(one.path for one in only_then if _is_no_source(one)),
        *(one.path for one in only_now if one.is_new or _is_no_source(one)),
    ]
    left = set(left_over)
    return PatchComparison(
        missing=tuple(one.path for one in only_then if one.path not in left),
        extra=tuple(one.path for one in only_now if one.path not in left),
        differing=tuple(path for path in both if then[path].body != now[path].body),
        left_over=tuple(left_over),
        complete=complete,
    )


def normalise_patch(patch: str) -> str:
    """The compared part of the diff, its files in order of name."""
    files = parse_patch(patch)
    return "\n".join(files[path].body for path in sorted(files))


def edited_files(patch: str | None) -> tuple[str, ...]:
    """The paths that a patch changes, in order; empty without a patch."""
    return tuple(sorted(parse_patch(patch or "")))


def parse_patch(patch: str) -> dict[str, FilePatch]:
    """The patch by path; of a renamed file, its new one. Empty for text that is not a diff."""
    text = patch.replace("\r\n", "\n").strip("\n")
    start = _FILE if _FILE.search(text) else _PLAIN_FILE
    files = [_parse_file(part) for part in start.split(text) if start.match(part)]
    return {file.path: file for file in files}


def _parse_file(part: str) -> FilePatch:
    lines = part.rstrip("\n").split("\n")
    path = _path(lines)
    is_new = any(line.startswith(("new file mode ", "--- /dev/null")) for line in lines[:6])
    if _BINARY.search(part):
        return FilePatch(path, f"{path}\nbinary, new: {is_new}", is_new, is_binary=True)
    told = [_told(line) for line in lines if not _UNTOLD.match(line)]
    if told and told[0].startswith(("new file mode ", "deleted file mode ")):
        told[0] = told[0].rpartition(" ")[0]
    return FilePatch(path, "\n".join([path, *told]).rstrip(), is_new, is_binary=False)


def _told(line: str) -> str:
    return "" if line.isspace() else _HUNK.sub(r"\1", line)


def _path(lines: list[str]) -> str:
    head = _NAMES.match(lines[0])
    if head:
        return head[2]
    names = [found[1] for line in lines[:2] if (found := _NAME.match(line))]
    return next((name for name in reversed(names) if name != "/dev/null"), lines[0])


def _is_no_source(file: FilePatch) -> bool:
    return file.path in HARNESS_FILES or (file.is_new and file.is_binary)


def _before_cut(patch: str) -> tuple[str, bool]:
    """The files that are whole before a mark of elision, and whether the patch is uncut."""
    found = _ELIDED.search(patch)
    if not found:
        return patch, True
    whole = patch[: found.start()]
    return whole[: max(0, whole.rfind("diff --git "))], False
