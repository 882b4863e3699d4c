from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from srl_swe_envs.pulls import forget_use, last_use, record_use


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, where uses are recorded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "srl-swe" / "image-uses"


@pytest.mark.usefixtures("folder")
def test_a_use_is_remembered_under_every_spelling_of_the_name() -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    record_use("docker.io/a/b")
    used = last_use("a/b:latest")
    assert used is not None
    assert before <= used <= datetime.now(UTC) + timedelta(seconds=1)
    assert last_use("a/other") is None


def test_the_last_use_counts_until_it_is_forgotten(folder: Path) -> None:
    record_use("a/b")
    (file,) = folder.iterdir()
    os.utime(file, (1, 1))
    record_use("a/b")
    used = last_use("a/b")
    assert used is not None and used.year > 2000
    forget_use("a/b")
    forget_use("a/b")
    assert last_use("a/b") is None


def test_many_at_once_leave_one_file_per_image(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: record_use(f"a/b:{n % 3}"), range(300)))
    assert len(list(folder.iterdir())) == 3


def test_a_folder_that_can_not_be_written_costs_nothing(folder: Path) -> None:
    folder.parent.touch()
    record_use("a/b")
    assert last_use("a/b") is None


@pytest.mark.usefixtures("folder")
def test_recording_is_cheap() -> None:
    started = time.perf_counter()
    for _ in range(200):
        record_use("a/b")
    assert (time.perf_counter() - started) / 200 < 0.001
