from __future__ import annotations

import stat

import pytest

from srl_swe.sandbox.working_tree import (
    MAX_NEW_FILE_BYTES,
    MAX_NEW_FILES,
    MAX_TRACKED_FILE_BYTES,
    Listed,
    Omitted,
    choose,
    is_legal,
    merge,
    notes,
)


def new(path: str, size_bytes: int = 10, kind: int = stat.S_IFREG) -> Listed:
    return Listed(path.encode(), is_tracked=False, mode=kind | 0o644, size_bytes=size_bytes)


def tracked(path: str, size_bytes: int = 10) -> Listed:
    return Listed(path.encode(), is_tracked=True, mode=stat.S_IFREG | 0o644, size_bytes=size_bytes)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "src/new.py",
            "tests/data/case.json",
            "docs/build/index.md",
            "src/dist/x.py",
            "core/x.py",
        ),
        *(
            "a.patch",
            "data.txt",
            ".github/workflows/ci.yml",
            ".gitattributes",
            "bin/run",
            "Makefile",
        ),
        *(
            "pkg/venv.py",
            "caching.py",
            "log.py",
            "src/log",
            "x.cpp",
            "environment/x.py",
            "core/x.py",
        ),
    ],
)
def test_a_new_source_file_is_never_left_out(path: str) -> None:
    assert choose([new(path)]).kept == (path.encode(),)


@pytest.mark.parametrize(
    ("path", "shown", "reason"),
    [
        ("a/__pycache__/x.pyc", "a/__pycache__/", "cache"),
        ("x.pyc", "x.pyc", "cache"),
        (".pytest_cache/v/x", ".pytest_cache/", "cache"),
        (".coverage.host.1", ".coverage.host.1", "cache"),
        ("web/node_modules/a/b.js", "web/node_modules/", "environment"),
        (".venv/bin/python", ".venv/", "environment"),
        ("pkg.egg-info/PKG-INFO", "pkg.egg-info/", "build output"),
        ("build/lib/x.py", "build/", "build output"),
        ("src/x.so", "src/x.so", "build output"),
        ("x.py.orig", "x.py.orig", "backup"),
        ("x.py.rej", "x.py.rej", "backup"),
        ("x.py~", "x.py~", "backup"),
        (".x.py.swp", ".x.py.swp", "backup"),
        ("out/run.log", "out/run.log", "log or dump"),
        ("core", "core", "log or dump"),
        ("core.123", "core.123", "log or dump"),
        (".idea/x.xml", ".idea/", "editor's files"),
        ("nested/", "nested/", "a git repository of its own, or too many files to list"),
    ],
)
def test_junk_is_left_out_by_name(path: str, shown: str, reason: str) -> None:
    assert choose([new(path)]).omitted == (Omitted(shown, reason),)


def test_a_tracked_file_is_kept_whatever_its_name_up_to_the_limit() -> None:
    files = [
        *(tracked(path) for path in ("build/x.py", "core", "a.log", "venv/x")),
        tracked("large", MAX_TRACKED_FILE_BYTES),
        Listed(b"gone.pyc", is_tracked=True, mode=None, size_bytes=None),
    ]
    assert choose(files).omitted == ()
    assert len(choose([tracked("x", MAX_TRACKED_FILE_BYTES + 1)]).omitted) == 1


def test_a_large_new_file_is_left_out_with_its_size() -> None:
    files = [new("a", MAX_NEW_FILE_BYTES), new("b", MAX_NEW_FILE_BYTES + 1)]
    choice = choose(files)
    assert choice.kept == (b"a",)
    assert str(choice.omitted[0]) == (
        "left out of the patch: b (1048577 bytes; at most 1048576 are taken)"
    )


def test_a_folder_is_an_environment_if_it_holds_the_mark_of_one() -> None:
    files = [new("e/pyvenv.cfg"), new("e/lib/x.py"), new("e2/x.py")]
    assert choose(files).kept == (b"e2/x.py",)
    assert choose(files).omitted == (Omitted("e/", "environment", 2),)


def test_the_largest_groups_of_a_crowd_are_left_out_whole() -> None:
    crowd = [new(f"junk/{i}/x.txt") for i in range(MAX_NEW_FILES + 1)]
    some = [new(f"out_{i}.csv") for i in range(50)]
    choice = choose([*crowd, *some, new("junk/new.py"), new("zzz.py")], {b"junk/"})
    assert set(choice.kept) == {*(file.path for file in some), b"junk/new.py", b"zzz.py"}
    assert choice.omitted == (
        Omitted("junk/*.txt", "a crowd of new files; at most 200 are taken", MAX_NEW_FILES + 1),
    )


def test_junk_by_name_does_not_make_a_crowd() -> None:
    junk = [new(f"node_modules/{i}.js") for i in range(500)]
    files = [new(f"src/{i}.py") for i in range(MAX_NEW_FILES)]
    assert len(choose([*junk, *files]).kept) == MAX_NEW_FILES


def test_what_is_wanted_is_kept() -> None:
    files = [new("a.log"), new("b", MAX_NEW_FILE_BYTES + 1), new(".git/x"), new("c.log")]
    assert choose(files, wanted={b"a.log", b"b", b".git/x"}).kept == (b"a.log", b"b")


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR])
def test_what_is_not_a_file_is_left_out(kind: int) -> None:
    assert choose([new("x", kind=kind)]).omitted == (Omitted("x", "not a regular file"),)


@pytest.mark.parametrize(
    "path",
    [
        *(b".git/config", b"a/.git/hooks/x", b".GIT/x", b".git /x", b".git./x", b".git. ./x"),
        *(
            b".git::$INDEX_ALLOCATION/x",
            b"git~1/x",
            b"GIT~1",
            b"a/git~2/x",
            b".g\xe2\x80\x8cit/x",
            b".git",
        ),
        *(b"/etc/passwd", b"../x", b"a/../../x", b"a//b", b"./a", b"a/.", b"", b"a\\..\\b"),
        b"\xef\xbb\xbf.git/x",
    ],
)
def test_no_path_outside_or_of_gits_own_is_legal(path: bytes) -> None:
    assert not is_legal(path)
    assert choose([Listed(path, False, stat.S_IFREG, 1)]).kept == ()


def test_equal_omissions_are_counted_together_and_notes_are_bounded() -> None:
    assert merge([Omitted("a/", "cache"), Omitted("a/", "cache", 2)]) == (
        Omitted("a/", "cache", 3),
    )
    many = [Omitted(f"{i}.log", "log or dump") for i in range(1000)]
    assert len(notes(many)) == 51
    assert notes(many)[-1] == "left out of the patch: 950 more files"
