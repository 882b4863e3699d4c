"""A settings file stands between variables and defaults."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from srl_swe.cli.settings import read_settings
from srl_swe.errors import UserError

from ..commands import srl_swe

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("srl-swe.toml", 'sandbox = "local"\nworkers = 3\nsandbox_limits = ["cpus=2"]\n'),
        ("pyproject.toml", '[tool.srl-swe]\nsandbox = "local"\nworkers = 3\nruns = "r"\n'),
    ],
)
def test_a_file_in_the_working_folder_stands_in_for_variables(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    findings = json.loads(srl_swe("doctor", "--json", cwd=tmp_path, SRL_SWE_WORKERS="7").stdout)
    (found,) = [one["found"] for one in findings["findings"] if one["subject"] == "settings"]
    assert f"sandbox = local ({name})" in found
    assert "workers = 7 (SRL_SWE_WORKERS)" in found


def test_an_option_comes_before_a_variable_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "srl-swe.toml").write_text('sandbox = "file"\n')
    for options, variables, used in (
        (["--sandbox", "option"], {"SRL_SWE_SANDBOX": "variable"}, "option"),
        ([], {"SRL_SWE_SANDBOX": "variable"}, "variable"),
        ([], {}, "file"),
    ):
        result = srl_swe("replay", "--limit", "1", *options, cwd=tmp_path, **variables)
        assert f"unknown sandbox '{used}'" in result.stderr


def test_results_go_where_the_file_says_and_only_warnings_are_printed(tmp_path: Path) -> None:
    (tmp_path / "srl-swe.toml").write_text('runs = "results"\nquiet = true\n')
    assert srl_swe("grade", "empty", "--limit", "1", cwd=tmp_path).stderr == ""
    assert (tmp_path / "results/grade/report.html").is_file()


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("srl-swe.toml", "wrkers = 3", "unknown key 'wrkers'. Did you mean 'workers'?"),
        ("srl-swe.toml", "workers = 0", "workers: Input should be greater than or equal to 1."),
        ("srl-swe.toml", "sandbox = 3", "sandbox: Input should be a valid string."),
        ("srl-swe.toml", "workers =", "can't be read: Invalid value"),
        ("pyproject.toml", "[tool.srl-swe]\nout = 1", "unknown key 'out'."),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(
    tmp_path: Path, name: str, text: str, why: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as mistake:
        read_settings(tmp_path)
    assert str(mistake.value).startswith(name)
    assert why in str(mistake.value)
    assert "\n" not in str(mistake.value)
    result = srl_swe("runs", "list", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (2, f"srl-swe: {mistake.value}\n")


@pytest.mark.parametrize("text", ["", "tool = 3", '[tool]\nsrl-swe = 3\n[project]\nname = "x"'])
def test_another_project_is_not_a_settings_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert read_settings(tmp_path) is None
    assert os.environ.get("SRL_SWE_WORKERS") is None
