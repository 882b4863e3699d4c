from __future__ import annotations

import doctest
import re
from pathlib import Path

from srl_swe import errors

ROOT = Path(__file__).parents[1]


def drawn() -> dict[str, str]:
    """Each exception of the drawing with its parent; a level is four columns."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"([│├└─ ]*)([A-Z]\w+)(?: {2,}|$)", line):
            depth = len(match[1]) // 4
            path = [*path[:depth], match[2]]
            parents[match[2]] = path[-2] if depth else "Exception"
    return parents


def test_the_drawing_of_the_exceptions_is_the_code() -> None:
    sources = [
        file.read_text() for top in ("srl_swe", "envs") for file in (ROOT / top).rglob("*.py")
    ]
    classes = [
        pair for text in sources for pair in re.findall(r"^class (\w+)\((\w+)\)", text, re.M)
    ]
    known = {"SrlSweError", *(name for name, parent in classes if parent in drawn())}
    assert drawn() == {name: parent for name, parent in classes if name in known}


def test_the_examples_hold() -> None:
    assert doctest.testmod(errors) == (0, 2)


def test_the_nearest_name_is_looked_for_in_one_place() -> None:
    sources = [file for top in ("srl_swe", "envs") for file in (ROOT / top).rglob("*.py")]
    found = [file.name for file in sources if "get_close_matches" in file.read_text()]
    assert found == ["errors.py"]
