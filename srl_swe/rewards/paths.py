"""Paths as targets of an action: the same one, or how near to it."""

from __future__ import annotations

import posixpath

from srl_swe.rewards.words import overlap

WRONG_FILE = 0.5


def normal_path(path: str) -> str:
    """The path without ``.``, ``..`` and doubled slashes; empty for an empty one.

    >>> normal_path(" /repo//pkg/./a.py"), normal_path("")
    ('/repo/pkg/a.py', '')
    """
    return posixpath.normpath(path.strip()) if path.strip() else ""


def path_overlap(candidate: str, expert: str) -> float:
    """1 for the same normal path, else half of what the parts of the two share.

    The root of the checkout, which all paths have in common, counts nothing.

    >>> path_overlap("/repo/pkg/a.py", "/repo/pkg/b.py"), path_overlap("/repo/a.py", "/repo/b.py")
    (0.25, 0.0)
    """
    if candidate == expert:
        return 1.0
    ours, theirs = candidate.strip("/").split("/"), expert.strip("/").split("/")
    if ours[0] == theirs[0]:
        ours, theirs = ours[1:], theirs[1:]
    return WRONG_FILE * overlap(ours, theirs)
