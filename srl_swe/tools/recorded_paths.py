"""Where a trajectory's repository lay when it was recorded, and where it lies now."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PATH_ARGUMENTS = frozenset(
    {"path", "dir", "file", "filename", "file_path", "filePath", "absolute_path", "command", "cmd"}
)
"""Arguments of the tools that hold a path, or a command with paths in it."""


@dataclass(frozen=True, slots=True)
class RecordedPaths:
    """Folders by the name that the record has for them.

    It is text that is replaced, at the start of a path. What lies in files keeps the recorded
    names, for which there are links (:meth:`linking`).

    >>> paths = RecordedPaths({"/workspace/a__b__1.0": "/testbed"})
    >>> paths.to_sandbox("cd /workspace/a__b__1.0/src && ls /workspace/a__b__1.01")
    'cd /testbed/src && ls /workspace/a__b__1.01'
    >>> paths.to_recorded("/testbed/src/x.py:3")
    '/workspace/a__b__1.0/src/x.py:3'
    """

    roots: Mapping[str, str]

    def to_sandbox(self, text: str) -> str:
        """A command or a path as the sandbox has to read it."""
        return _replaced(text, self.roots)

    def to_recorded(self, text: str) -> str:
        """What was printed, with the names of the record."""
        return _replaced(text, {now: then for then, now in self.roots.items()})

    def linking(self) -> list[str]:
        """Bash that makes each recorded name lead to the folder, where nothing has that name."""
        return [
            f"[ -e {then} ] || {{ mkdir -p {parent} && ln -s {now} {then}; }} 2>/dev/null"
            for then, now, parent in map(_quoted, self.roots.items())
        ]


def _quoted(root: tuple[str, str]) -> tuple[str, str, str]:
    then, now = root
    return shlex.quote(then), shlex.quote(now), shlex.quote(posixpath.dirname(then))


def _replaced(text: str, names: Mapping[str, str]) -> str:
    if not names:
        return text
    longest_first = sorted(names, key=len, reverse=True)
    either = "|".join(re.escape(name) for name in longest_first)
    pattern = rf"(?<![\w./~}}-])(?:{either})(?![\w-]|\.\w)"
    return re.sub(pattern, lambda found: names[found[0]], text)


def find_recorded_root(texts: Iterable[str], repo: str, workdir: str) -> str | None:
    """The folder that the record mostly calls the repository by; None if that is ``workdir``.

    OpenHands copied it to ``/workspace/owner__name__version``, SWE-agent below 1.0 cloned it
    to ``/owner__name`` or ``/name``.

    >>> find_recorded_root(["ls /workspace/a__b__1.0/src"], "a/b", "/testbed")
    '/workspace/a__b__1.0'
    """
    owner, _, name = repo.lower().rpartition("/")
    if not name:
        return None
    both = re.escape(f"{owner}__{name}")
    folder = rf"/workspace/(?:{both}(?:__[\w.]*\w)?|{re.escape(name)})|/{both}|/{re.escape(name)}"
    either = rf"{folder}|{re.escape(workdir)}"
    pattern = re.compile(rf"(?<![\w./~}}-])(?:{either})(?![\w-]|\.\w)", re.IGNORECASE)
    counts: dict[str, int] = {}
    for text in texts:
        for found in pattern.finditer(text):
            counts[found[0]] = counts.get(found[0], 0) + 1
    root = max(counts, key=lambda found: counts[found], default=workdir)
    return None if root == workdir else root
