from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import srl_swe
import srl_swe_envs
from srl_swe import errors

ROOT = Path(__file__).parents[1]
PACKAGES = (srl_swe, srl_swe_envs)
WITH_EXAMPLES = [
    ".".join(path.relative_to(root.parent).with_suffix("").parts)
    for root in (Path(package.__path__[0]) for package in PACKAGES)
    for path in sorted(root.rglob("*.py"))
    if re.search(r"^\s*>>> ", path.read_text("utf-8"), re.MULTILINE)
]
WITH_TORCH = (
    "srl_swe.training.",
    "srl_swe.experiments.",
    "srl_swe.rollout.decoding",
    "srl_swe.rollout.local_policy",
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    if name.startswith(WITH_TORCH):
        pytest.importorskip("trl", reason="needs the extra `train`")
    results = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert results.attempted
    assert results.failed == 0


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


def test_the_nearest_name_is_looked_for_in_one_place() -> None:
    sources = [file for top in ("srl_swe", "envs") for file in (ROOT / top).rglob("*.py")]
    found = [file.name for file in sources if "get_close_matches" in file.read_text()]
    assert found == ["errors.py"]
