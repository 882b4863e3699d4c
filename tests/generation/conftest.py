"""A small package with a git repository, and bugs in it made by hand."""

from __future__ import annotations

import difflib
import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from srl_swe.generation.bugs import Bug, ChangedFunction
from srl_swe.generation.repositories import Source
from srl_swe.generation.rows import repository_image

SIZES = '''\
"""Sizes of things."""


def largest(sizes):
    found = None
    for size in sizes:
        if found is None or size > found:
            found = size
    return found


def shrink(size, step=1):
    while size > 10:
        size -= step
    return size


def unused(size):
    return size + 1


class Box:
    def __init__(self, size):
        self.size = size

    def fits(self, other):
        return self.size >= other.size


_limits = []


def limits():
    if not _limits:
        _limits.extend(read_limits())
    return _limits


def read_limits():
    return [1, 10]
'''
TESTS = '''\
import os

import pytest

from sizes import Box, largest, limits, shrink


@pytest.mark.parametrize("number", range(12))
def test_fails_in_the_clean_suite_too(number):
    assert number < 0


def test_the_largest_is_found():
    assert largest([1, 3, 2]) == 3


def test_nothing_has_no_largest():
    assert largest([]) is None


@pytest.mark.parametrize("size", [5, 15])
def test_shrinking_ends_at_ten(size):
    assert shrink(size) <= 10


@pytest.mark.parametrize("size", [7, 8, 9])
def test_sizes_are_numbers(size):
    assert size + 0 == size


def test_boxes_fit():
    assert Box(2).fits(Box(2))


def test_limits_are_read():
    assert limits()[0] == 1


def test_limits_are_kept():
    assert limits()[1] == 10


def test_the_weather():
    """Passes in the first run of a container, and fails in the second."""
    path = "/var/tmp/weather"
    runs = os.path.exists(path)
    open(path, "a").close()
    assert not runs
'''


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.invalid")
    done = subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def source(tmp_path: Path) -> Source:
    folder = tmp_path / "sizes"
    (folder / "tests").mkdir(parents=True)
    (folder / "sizes.py").write_text(SIZES)
    (folder / "tests" / "test_sizes.py").write_text(TESTS)
    (folder / "conftest.py").write_text("")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "sizes", "--date", "2025-01-01T00:00:00Z")
    return Source(
        name="sizes",
        repository=str(folder),
        commit=git(folder, "rev-parse", "HEAD"),
        folder=folder,
        version="1.0",
        test="pytest -rA tests",
        paths=("sizes.py",),
    )


@pytest.fixture
def image(source: Source, client) -> Iterator[str]:
    """The name of the source's image, removed with its layers at the end."""
    name = repository_image(source)
    yield name
    tags = [tag for image in client.images.list() for tag in image.tags]
    for tag in [t for t in tags if "generated_1776_sizes-" in t] + [name]:
        if tag in tags:
            client.images.remove(tag, force=True)


MakeBug = Callable[..., Bug]


@pytest.fixture
def make_bug(source: Source) -> MakeBug:
    """A bug that replaces ``old`` in the function of that name."""

    def make(function: str, first: int, last: int, old: str, new: str) -> Bug:
        text = (source.folder / "sizes.py").read_text()
        lines = text.splitlines(keepends=True)
        body = "".join(lines[first - 1 : last])
        assert old in body
        after = [*lines[: first - 1], body.replace(old, new, 1), *lines[last:]]
        changed = "".join(after).splitlines(keepends=True)
        diff = "".join(difflib.unified_diff(lines, changed, "a/sizes.py", "b/sizes.py"))
        patch = f"diff --git a/sizes.py b/sizes.py\n{diff}"
        return Bug(
            bug_id=hashlib.sha256(patch.encode()).hexdigest()[:12],
            source="sizes",
            operators=("wrong_boundary",),
            seed=0,
            patch=patch,
            functions=(ChangedFunction("sizes.py", function, first, last),),
        )

    return make


@pytest.fixture
def bugs(make_bug: MakeBug) -> dict[str, Bug]:
    """A bug for each way in which a candidate can end."""
    return {
        "kept": make_bug("largest", 4, 9, "size > found", "size < found"),
        "hangs": make_bug("shrink", 12, 15, "size -= step", "size += step"),
        "no test calls it": make_bug("unused", 18, 19, "+ 1", "+ 2"),
        "no test fails": make_bug("largest", 4, 9, "size > found", "size >= found"),
        "tests not collected": make_bug("shrink", 12, 15, "step=1", "step=1 / 0"),
        "kept too": make_bug("Box.fits", 26, 27, ">=", ">"),
        "kept too, by a test that does not call it": make_bug("read_limits", 39, 40, "10", "9"),
    }
