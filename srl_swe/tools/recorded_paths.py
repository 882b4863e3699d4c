"""The folder of a repository in a trajectory's record, and in the sandbox."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from srl_swe.types import Step

PATH_ARGUMENTS = frozenset(
    {"path", "dir", "file", "filename", "file_path", "filePath", "absolute_path", "command", "cmd"}
)
"""Arguments of tools that hold a path, or a command with paths."""


@dataclass(frozen=True, slots=True)
class RecordedPaths:
    """Folders of the sandbox by their recorded names.

    Names are replaced in text, at the start of a path. The contents of files keep the recorded
    names: links lead from these to the folders (:meth:`link_commands`).

    >>> paths = RecordedPaths({"/workspace/a__b__1.0": "/testbed"})
    >>> paths.to_sandbox("cd /workspace/a__b__1.0/src && ls /workspace/a__b__1.01")
    'cd /testbed/src && ls /workspace/a__b__1.01'
    >>> paths.to_recorded("/testbed/src/x.py:3")
    '/workspace/a__b__1.0/src/x.py:3'
    """

    roots: Mapping[str, str]

    def to_sandbox(self, text: str) -> str:
        """A command or a path with the sandbox's names."""
        return _replaced(text, self.roots)

    def to_recorded(self, text: str) -> str:
        """Output with the recorded names."""
        return _replaced(text, {now: then for then, now in self.roots.items()})

    def link_commands(self) -> list[str]:
        """Bash that links each recorded name to its folder, unless something has that name."""
        return [
            f"[ -e {then} ] || {{ mkdir -p {parent} && ln -s {now} {then}; }} 2>/dev/null"
            for then, now, parent in (
                map(shlex.quote, (then, now, posixpath.dirname(then)))
                for then, now in self.roots.items()
            )
        ]


_SYSTEM = frozenset(
    {"bin", "boot", "dev", "etc", "home", "lib", "lib64", "media", "miniconda3", "mnt", "opt"}
    | {"private", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var", "Users"}
)
"""Top folders that are never a repository."""
_WORKSPACE = "/workspace"
"""Holds the repository, or is the repository."""
_PARTS = frozenset({"src", "lib", "test", "tests", "docs"})
"""Usual folders within a repository."""
_SHARE = 0.6
"""The least share of a record's places that lie in the folder."""
_GOES = r"(?:^|[;&|(\n])[ \t]*cd[ \t]"
_CHANGES_FOLDER = re.compile(rf"{_GOES}+['\"]?(/[\w./+-]+)")
_SHOWN = re.compile(
    r"^(?:\[File: |Here's the result of running `cat -n` on (?:a snippet of )?)"
    r"(?P<file>/[^\n]+?)(?: \(\d+ lines total\)\]|:)$"
    r"|^\[Current working directory: (?P<folder>/[^\n\]]+)\]"
    r"|^Found \d+ matches for [^\n]*? in (?P<place>/[^\n:]+):"
    r"|^Here's the files and directories up to 2 levels deep in (?P<listed>/[^\n,]+), ",
    re.MULTILINE,
)
_END_CHARS = 400
"""Tools name a place within so many characters from the start or end of their output."""
_LOOKS_LIKE_A_FILE = re.compile(r"\.[A-Za-z]{1,5}$")


def guess_root(steps: Iterable[Step], workdir: str) -> str | None:
    """The folder of most paths in calls and answers, probably the repository's.

    For records of an unknown repository. None if it is ``workdir`` or unclear.

    >>> from srl_swe.types import Action
    >>> guess_root([Step("", Action("bash", {"command": "cd /workspace/a__b__1.0 && ls"}))], "/x")
    '/workspace/a__b__1.0'
    """
    places = list(_places(steps))
    tops = [top for place in places if (top := _top_of(place))]
    if not tops or workdir in tops:
        return None
    counts = Counter(tops)
    named = [top for top in counts if "__" in top]  # owner__name, as in SWE-bench
    root, count = (named[0], len(tops)) if len(named) == 1 else counts.most_common(1)[0]
    if count >= _SHARE * len(tops):
        return root if any(place.startswith(f"{root}/") for place in places) else None
    return _WORKSPACE if all(top.startswith(_WORKSPACE) for top in counts) else None


def changes_folder(step: Step) -> bool:
    """Whether the step's command changes the folder."""
    command = step.action.arguments.get("command", "") if step.action else ""
    return re.search(_GOES, command) is not None


def _places(steps: Iterable[Step]) -> Iterator[str]:
    """Absolute paths in steps; folders end with a slash."""
    for step in steps:
        for name, value in step.action.arguments.items() if step.action else ():
            if name in {"command", "cmd"}:
                yield from (f"{folder}/" for folder in _CHANGES_FOLDER.findall(value))
            elif name in PATH_ARGUMENTS and value.startswith("/"):
                yield value
        text = step.observation.text if step.observation else ""
        for part in {text[:_END_CHARS], text[-_END_CHARS:]}:
            for found in _SHOWN.finditer(part.replace("\r", "")):
                yield found["file"] or f"{found['folder'] or found['place'] or found['listed']}/"


def _top_of(place: str) -> str | None:
    """The folder of the repository that holds the place; None if it can't be in one."""
    first, *rest = [part for part in place.split("/") if part] or [""]
    if first == "home" and len(rest) > 1:
        return f"/home/{rest[0]}/{rest[1]}"
    if f"/{first}" == _WORKSPACE and rest:
        is_part = rest[0] in _PARTS or _LOOKS_LIKE_A_FILE.search(rest[0])
        return _WORKSPACE if is_part else f"{_WORKSPACE}/{rest[0]}"
    if not first or first in _SYSTEM or _LOOKS_LIKE_A_FILE.search(first):
        return None
    return f"/{first}"


_START = r"(?<![\w./~}}-])(?:{})(?![\w-]|\.\w)"
"""The start of a path, as a template for the alternatives."""


def _replaced(text: str, names: Mapping[str, str]) -> str:
    if not names:
        return text
    longest_first = sorted(names, key=len, reverse=True)
    either = "|".join(re.escape(name) for name in longest_first)
    return re.sub(_START.format(either), lambda found: names[found[0]], text)


def find_recorded_root(texts: Iterable[str], repo: str, workdir: str) -> str | None:
    """The repository's most frequent folder in a record; None if it is ``workdir``.

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
    pattern = re.compile(_START.format(either), re.IGNORECASE)
    counts = Counter(found[0] for text in texts for found in pattern.finditer(text))
    root = max(counts, key=lambda found: counts[found], default=workdir)
    return None if root == workdir else root
