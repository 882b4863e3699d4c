from __future__ import annotations

import time
from operator import attrgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.evaluation.patch_paths import PathKind, kind_of, refusal, touched_paths
from srl_swe.instances import load_instances
from srl_swe.types import Instance

from .patches import delete, edit, link, new_file


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a/src/x.py", PathKind.ORDINARY),
        ("a/.gitignore", PathKind.ORDINARY),
        ("a/.github/workflows/x.yml", PathKind.ORDINARY),
        ("a/gitlab.py", PathKind.ORDINARY),
        ("a/x..y/z", PathKind.ORDINARY),
        ("a/...", PathKind.ORDINARY),
        ("/dev/null", PathKind.ORDINARY),
        ("a/.git", PathKind.GIT),
        ("a/.Git/x", PathKind.GIT),
        ("a/.git /x", PathKind.GIT),
        ("a/.git. ./x", PathKind.GIT),
        ("a/GIT~2/x", PathKind.GIT),
        ("a/.git:x", PathKind.GIT),
        ("a/b/.git/x", PathKind.GIT),
        ("a/./.git/x", PathKind.GIT),
        ("a//.git/x", PathKind.OUTSIDE),
        ("a\\.git\\x", PathKind.GIT),
        ("..", PathKind.OUTSIDE),
        ("a/..", PathKind.OUTSIDE),
        ("/dev/null/x", PathKind.OUTSIDE),
        ("/x", PathKind.OUTSIDE),
        ("a//x", PathKind.OUTSIDE),
        ("a/conftest.py", PathKind.RUNNER),
        ("a/x/__pycache__/y.cpython-311.pyc", PathKind.RUNNER),
        ("a/x.egg-info/PKG-INFO", PathKind.RUNNER),
        ("a/lib/site-packages/x.py", PathKind.RUNNER),
        ("a/tests/x.py", PathKind.TEST),
        ("a/test_x.py", PathKind.TEST),
        ("a/x.spec.ts", PathKind.TEST),
        ("a/XTest.java", PathKind.TEST),
        ("a/contest.py", PathKind.ORDINARY),
        ("a/latest/x.py", PathKind.ORDINARY),
    ],
)
def test_the_kind_of_a_path(name: str, kind: PathKind) -> None:
    assert kind_of(name) is kind


@pytest.mark.parametrize("instance", load_instances("starter"), ids=attrgetter("instance_id"))
def test_an_honest_patch_is_not_refused_and_its_paths_are_read(instance: Instance) -> None:
    named = {line[6:] for line in instance.gold_patch.split("\n") if line.startswith("+++ b/")}
    assert set(touched_paths(instance.gold_patch)) == named
    assert refusal(instance.gold_patch) is None
    assert refusal(instance.test_patch) is None


@pytest.mark.parametrize(
    "patch",
    [
        "--- a/x.sql\n+++ b/x.sql\n@@ -1,3 +1,2 @@\n--- ../../etc/passwd\n-- /etc\n keep\n+new\n",
        new_file("a b.txt", "x"),
        "--- /dev/null\t1970-01-01 00:00:00 +0000\n+++ b/x.py\t2025-01-01\n@@ -0,0 +1 @@\n+x\n",
        new_file("docs/x.md", "--- a/.git/config\n+++ b/.git/config\n@@ -1 +1 @@"),
        delete("README.md"),
        edit("README.md", "1,2d\n"),
        link("docs", "README.md"),
        "From 1 Mon\nSubject: /etc and ../x\n\n---\n README.md | 2 +-\n\n" + edit("README.md", "x"),
        "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n",
        "diff --git a/x b/x\nold mode 100644\nnew mode 100755\n",
    ],
)
def test_what_looks_like_an_attack_and_is_none(patch: str) -> None:
    assert refusal(patch) is None


NOISE = st.lists(
    st.sampled_from(
        ["@@ -1,3 +1,3 @@", "@@ -0,0 +1 @@", " x", "-x", "+x", "", "\\ No newline", "text", "@@"]
    ),
    max_size=6,
)


@given(
    NOISE,
    st.sampled_from(
        [
            "--- {}.git/config",
            "+++ {}.git/config\t2025-01-01 00:00:00",
            "*** {}.git/config",
            "Index: {}.git/config",
            "diff --git {0}.git/config {0}.git/config",
            "rename to .git/config",
            "copy to {}.git/config",
            "  +++ {}.GIT/hooks/x",
            "- --- {}.git/config",
        ]
    ),
    st.sampled_from(["a/", "b/", "x/", "", "a/b/", "./", '"a/', "  a/"]),
    NOISE,
)
def test_no_noise_around_a_header_hides_it(
    before: list[str], line: str, prefix: str, after: list[str]
) -> None:
    """Only a hunk that follows a header of its own may hold lines that look like one."""
    header = line.format(prefix)
    assert refusal("\n".join([*before, header, *after])) is not None


@given(st.text(max_size=300))
def test_any_text_has_an_answer(text: str) -> None:
    refusal(text)
    touched_paths(f"--- {text}\n+++ {text}\ndiff --git {text}\n")


@given(st.lists(st.sampled_from([".git", "..", "git~1", ".", " ", ":", "x", "/", "\\", ".GIT"])))
def test_every_reading_that_is_dangerous_is_found(pieces: list[str]) -> None:
    name = "".join(pieces).strip()
    if kind_of(f"p/{name}") in {PathKind.OUTSIDE, PathKind.GIT}:
        assert refusal(f"--- p/{name}\n") is not None


@pytest.mark.slow
def test_a_long_header_takes_no_long_time() -> None:
    started = time.process_time()
    for line in ("a/x " * 20_000, "a/x " * 5_000, "a/git " * 5_000, "/" * 30_000, "git/" * 5_000):
        refusal(f"diff --git {line}\n--- {line}\n" * 5)
    assert time.process_time() - started < 10
