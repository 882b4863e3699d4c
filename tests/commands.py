"""Runs ``srl-swe`` as a process of its own, or within the tests' process; waits for processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from unittest import mock

import pytest
from click.testing import Result
from typer.testing import CliRunner

from srl_swe.cli.main import app, main
from srl_swe.errors import UserError


def srl_swe_process(
    *arguments: object,
    cwd: Path | None = None,
    prefix: tuple[str, ...] = (),
    stdout: int = subprocess.PIPE,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """A process, without the hub; ``prefix`` is a command that starts it."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "srl_swe", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        timeout=300,
        check=False,
    )


def srl_swe(
    *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The whole command, ``main`` included, within this process: a second less than one of its own.

    Its variables, its working folder and what it writes to ``sys.stdout`` and ``sys.stderr`` end
    with it. Children write to the tests' own, and an exception that ``main`` lets through is
    raised.
    """
    words = ["srl-swe", *map(str, arguments)]
    with (
        pytest.MonkeyPatch.context() as patch,
        TemporaryFile("w+", encoding="utf-8") as out,
        TemporaryFile("w+", encoding="utf-8") as err,
        Path(os.devnull).open() as nothing,
        mock.patch.dict(os.environ, {"HF_HUB_OFFLINE": "1", **environment}),
        contextlib.chdir(cwd or Path.cwd()),
        warnings.catch_warnings(),
    ):
        for name, value in (("argv", words), ("stdin", nothing), ("stdout", out), ("stderr", err)):
            patch.setattr(sys, name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess(words, int(ended.value.code or 0), *texts)


def wait_until(
    holds: Callable[[], object], seconds: float = 60.0, otherwise: str = "waited in vain"
) -> None:
    """Look every 50 ms; after ``seconds`` the test fails with the words of ``otherwise``."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def is_alive(pid: object) -> bool:
    """Whether the process runs; not if it has ended and its parent has not looked yet."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def invoke(*arguments: object, text: str | None = None) -> Result:
    """The result within this process; ``text`` is stdin. Raises the command's UserError."""
    result = CliRunner().invoke(app, list(map(str, arguments)), input=text)
    if isinstance(result.exception, UserError):
        raise result.exception
    assert isinstance(result.exception, SystemExit | None), result.output
    return result


def assert_mistake(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """A user's mistake: exit code 2 and one last line with the words, without a traceback."""
    assert result.returncode == 2, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("srl-swe: ")
    assert all(word in last for word in words), last
    assert "Traceback" not in result.stderr


def assert_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """A mistake that is found before anything else is printed."""
    assert_mistake(result, *words)
    assert len([line for line in result.stderr.splitlines() if line.strip()]) == 1, result.stderr
