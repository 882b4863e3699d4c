"""Compares the patch that a replay leaves with the recorded one."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile

_FILE = re.compile(r"^(?=diff --git )", re.MULTILINE)
_PLAIN_FILE = re.compile(r"^(?=--- .*\n\+\+\+ )", re.MULTILINE)
_NAMES = re.compile(r'diff --git ("?[abciow]/.*?"?) ("?[abciow]/.*)')
_PREFIX = re.compile(r"[abciow]/")
"""Git's prefixes of names, those of ``diff.mnemonicPrefix`` among them."""
_NOT_COMPARED = re.compile(
    r"(?:index [0-9a-f]|(?:dis)?similarity index |old mode |new mode |diff --git |--- |\+\+\+ "
    r"|new file mode |deleted file mode )"
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

    @classmethod
    def parse(cls, diff: str) -> FilePatch:
        """Read the diff of one file; a renamed file has its new path."""
        lines = diff.rstrip("\n").split("\n")
        header = list(takewhile(lambda line: not line.startswith("@@ "), lines))
        path = _path_of(header)
        is_new = any(line.startswith(("new file mode ", "--- /dev/null")) for line in header)
        is_gone = any(line.startswith(("deleted file mode ", "+++ /dev/null")) for line in header)
        if _BINARY.search(diff):
            return cls(path, f"{path}\nbinary, new: {is_new}", is_new, is_binary=True)
        body = [f"{path}, new: {is_new}, deleted: {is_gone}"]
        body += [line for line in header if not _NOT_COMPARED.match(line)]
        body += ["" if x.isspace() else _HUNK.sub(r"\1", x) for x in lines[len(header) :]]
        return cls(path, "\n".join(body).rstrip(), is_new, is_binary=False)

    @property
    def is_left_over(self) -> bool:
        """Whether it does not belong to the repository: a submission, or a new binary file."""
        return self.path in HARNESS_FILES or (self.is_new and self.is_binary)


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
    if cut := _ELIDED.search(recorded):
        whole = recorded[: cut.start()]
        recorded = whole[: max(0, whole.rfind("diff --git "))]
    then, now = parse_patch(recorded), parse_patch(fresh)
    only_then = [then[path] for path in sorted(then.keys() - now.keys())]
    only_now = [now[path] for path in sorted(now.keys() - then.keys()) if not cut]
    both = sorted(then.keys() & now.keys())
    left_over = dict.fromkeys(
        [
            *(file.path for file in only_then if file.is_left_over),
            *(file.path for file in only_now if file.is_new or file.is_left_over),
        ]
    )
    return PatchComparison(
        missing=tuple(file.path for file in only_then if file.path not in left_over),
        extra=tuple(file.path for file in only_now if file.path not in left_over),
        differing=tuple(path for path in both if then[path].body != now[path].body),
        left_over=tuple(left_over),
        complete=cut is None,
    )


def edited_files(patch: str | None) -> tuple[str, ...]:
    """The paths that a patch changes, in order; empty without a patch."""
    return tuple(sorted(parse_patch(patch or "")))


def _path_of(header: Sequence[str]) -> str:
    """The path after the change, or before it if the file is deleted; the first line if unnamed."""
    for line in header:
        if line.startswith("rename to "):
            return _unquoted(line.removeprefix("rename to "))
    names = {line[:4]: line[4:].partition("\t")[0] for line in header if line[:4] in _SIDES}
    old, new = (names.get(side, "") for side in _SIDES)
    if not names:  # binary, empty, or another mode
        both = header[0].removeprefix("diff --git ")
        half = len(both) // 2
        old, new = both[:half], both[half + 1 :]
        pair = _NAMES.fullmatch(header[0])
        if pair and _PREFIX.sub("", old, count=1) != _PREFIX.sub("", new, count=1):
            old, new = pair.groups()
    path = _unquoted(old if new == "/dev/null" else new)
    return path if old == new else _PREFIX.sub("", path, count=1)  # equal: by diff.noprefix


_SIDES = ("--- ", "+++ ")


def _unquoted(name: str) -> str:
    """A name as git writes it: in quotes and with escapes of bytes if it has odd characters."""
    if name.startswith('"'):
        with suppress(ValueError, SyntaxError):
            return str(ast.literal_eval(f"b{name}").decode("utf-8", "replace"))
    return name


def parse_patch(patch: str) -> dict[str, FilePatch]:
    """The patch by path; of a renamed file, its new one. Empty for text that is not a diff."""
    text = patch.replace("\r\n", "\n").strip("\n")
    start = _FILE if _FILE.search(text) else _PLAIN_FILE
    files = [FilePatch.parse(part) for part in start.split(text) if start.match(part)]
    return {file.path: file for file in files}
