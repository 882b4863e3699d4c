from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from srl_swe_envs.pulls import forget_use, last_use, record_use


def test_a_use_is_remembered_under_every_spelling_of_the_name(tmp_path: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    record_use("docker.io/a/b", tmp_path)
    used = last_use("a/b:latest", tmp_path)
    assert used is not None
    assert before <= used <= datetime.now(UTC) + timedelta(seconds=1)
    assert last_use("a/other", tmp_path) is None


def test_the_last_use_counts(tmp_path: Path) -> None:
    record_use("a/b", tmp_path)
    (file,) = tmp_path.iterdir()
    os.utime(file, (1, 1))
    record_use("a/b", tmp_path)
    used = last_use("a/b", tmp_path)
    assert used is not None and used.year > 2000
    forget_use("a/b", tmp_path)
    forget_use("a/b", tmp_path)
    assert last_use("a/b", tmp_path) is None


def test_many_at_once_leave_one_file_an_image(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: record_use(f"a/b:{n % 3}", tmp_path), range(300)))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_can_not_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    record_use("a/b", tmp_path / "file" / "folder")
    assert last_use("a/b", tmp_path / "file" / "folder") is None


def test_it_lies_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    record_use("a/b")
    assert len(list((tmp_path / "srl-swe" / "image-uses").iterdir())) == 1
    assert last_use("a/b")


def test_recording_is_cheap(tmp_path: Path) -> None:
    started = time.perf_counter()
    for _ in range(200):
        record_use("a/b", tmp_path)
    assert (time.perf_counter() - started) / 200 < 0.001
