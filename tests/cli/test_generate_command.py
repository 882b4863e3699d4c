from __future__ import annotations

from pathlib import Path

import pytest

from srl_swe.cli.generate import _spec_files, _splitter, _writer
from srl_swe.errors import UserError
from srl_swe.generation.repositories import Source, read_spec
from tests.commands import invoke


def test_specs_are_files_or_folders_of_them(tmp_path: Path) -> None:
    inside = [tmp_path / "specs" / name for name in ("a.toml", "b.toml")]
    inside[0].parent.mkdir()
    for path in inside:
        path.touch()
    single = tmp_path / "specs.toml"
    assert _spec_files([single, tmp_path / "specs"]) == [single, *inside]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no spec"):
        _spec_files([tmp_path / "none"])


def test_bundled_specs_have_names() -> None:
    (toolz,) = _spec_files([Path("toolz")])
    assert read_spec(toolz).repository.startswith("pypi:toolz==")
    with pytest.raises(UserError, match="no spec 'toolx'"):
        read_spec(*_spec_files([Path("toolx")]))


def test_a_missing_spec_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.toml can't be read"):
        invoke("generate", tmp_path / "none.toml", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_repository_to_hold_out_has_to_be_known(tmp_path: Path) -> None:
    sources = [Source("a", "a", "0" * 40, tmp_path), Source("b", "b", "0" * 40, tmp_path)]
    with pytest.raises(UserError, match="--hold-out c: not among a, b"):
        _splitter(sources, ["c"], 0.0, None, 0)
    with pytest.raises(UserError, match="two specs have the same name"):
        _splitter([sources[0], sources[0]], [], 0.0, None, 0)


def test_templates_write_without_an_endpoint() -> None:
    assert _writer(None, "", 0) == ("", None)
