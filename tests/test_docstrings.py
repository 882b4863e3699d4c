from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import srl_swe
import srl_swe_envs

PACKAGES = (srl_swe, srl_swe_envs)
WITH_EXAMPLES = [
    ".".join(path.relative_to(root.parent).with_suffix("").parts)
    for root in (Path(package.__path__[0]) for package in PACKAGES)
    for path in sorted(root.rglob("*.py"))
    if re.search(r"^\s*>>> ", path.read_text("utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    if _trains(name):
        pytest.importorskip("trl", reason="needs the extra `train`")
    results = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert results.attempted
    assert results.failed == 0


def _trains(name: str) -> bool:
    return name.startswith(("srl_swe.training.", "srl_swe.experiments."))
