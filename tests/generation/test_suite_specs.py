"""The documented suite: valid specs, pinned, enough of them held out; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from srl_swe.bundled import bundled
from srl_swe.generation.repositories import read_spec

SPECS = sorted((bundled("generated") / "specs").glob("*.toml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_is_pinned(path: Path) -> None:
    spec = read_spec(path)
    assert spec.repository.startswith(f"pypi:{path.stem}==")
    assert len(spec.sha256) == 64
    assert spec.paths


def test_three_packages_or_more_are_held_out() -> None:
    held_out = [path.stem for path in SPECS if read_spec(path).held_out]
    assert len(held_out) >= 3
    assert len(SPECS) - len(held_out) >= 3
