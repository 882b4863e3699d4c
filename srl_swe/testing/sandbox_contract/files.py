"""Files read and written past the shell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from srl_swe.sandbox import MAX_FILE_BYTES, Sandbox
from srl_swe.testing.sandbox_contract.fixtures import folder_of, needs_boundary

# Files read, replaced and moved by others during our writes: each version is whole, everywhere.


VERSIONS = (b"a" * 300_000, b"b" * 200_000)
WHOLE = {hashlib.md5(version).hexdigest() for version in VERSIONS}
SWAPS = {
    "a folder and a link to another": (
        "mkdir here two",
        "mv -T here one; ln -sT two here; rm -rf here; mv -T one here",
    ),
    "a link to one folder and to another": (
        "mkdir one two; ln -s one here",
        "ln -s two new; mv -T new here; ln -s one new; mv -T new here",
    ),
    "the file and a link to one elsewhere": (
        "mkdir here two; head -c 300000 /dev/zero | tr '\\0' a | tee whole two/file >here/file",
        "cp whole new; mv -T new here/file; ln -s ../two/file new; mv -T new here/file",
    ),
    "the file and a folder": (
        "mkdir here; head -c 300000 /dev/zero | tr '\\0' a >whole",
        "mkdir new; rm -f here/file; mv -T new here/file; rm -rf here/file;"
        "cp whole new; mv -T new here/file; rm -rf new",
    ),
}


@contextmanager
def background(sandbox: Sandbox, loop: str) -> Iterator[None]:
    """Repeats the loop in the background; waits for its end."""
    again = f"while [ ! -e stop ]; do {loop}; done"
    sandbox.exec(f"rm -f stop; ({again}; touch stopped) >/dev/null 2>&1 &")
    try:
        yield
    finally:
        sandbox.exec("touch stop; until [ -e stopped ]; do sleep 0.05; done; rm stop stopped")


def test_a_reader_meanwhile_sees_each_version_whole(used_sandbox: Sandbox) -> None:
    path = f"{folder_of(used_sandbox)}/file"
    used_sandbox.write_file(path, VERSIONS[0])
    with background(used_sandbox, "md5sum <file >>seen"):
        for version in VERSIONS * 8:
            used_sandbox.write_file(path, version)
    seen = used_sandbox.exec("sort seen | uniq | cut -d' ' -f1").output.split()
    assert set(seen) <= WHOLE
    assert seen


@pytest.mark.parametrize(("prepared", "swapped"), SWAPS.values(), ids=SWAPS.keys())
def test_a_path_that_is_swapped_meanwhile_leaves_no_half_of_a_file_anywhere(
    used_sandbox: Sandbox, prepared: str, swapped: str
) -> None:
    path = f"{folder_of(used_sandbox)}/here/file"
    used_sandbox.exec(prepared)
    with background(used_sandbox, swapped):
        for version in VERSIONS * 6:
            with suppress(OSError):
                used_sandbox.write_file(path, version)
            with suppress(OSError):
                assert used_sandbox.read_file(path) in VERSIONS
    left = used_sandbox.exec("find . -type f -exec md5sum {} +").output.split()
    assert set(left[::2]) <= WHOLE
    assert {name.rpartition("/")[2] for name in left[1::2]} <= {"file", "whole", "new"}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"text\n", id="text"),
        pytest.param(bytes(range(256)) * 5, id="every byte"),
        pytest.param(b"\n" * 3_000_000, id="three million lines"),
    ],
)
def test_what_is_written_is_read(used_sandbox: Sandbox, data: bytes) -> None:
    path = f"{folder_of(used_sandbox)}/file"
    used_sandbox.write_file(path, data)
    assert used_sandbox.read_file(path) == data


def test_commands_and_files_see_the_same(used_sandbox: Sandbox) -> None:
    folder = folder_of(used_sandbox)
    used_sandbox.write_file(f"{folder}/from-us", b"ours\n")
    assert used_sandbox.exec("cat from-us; echo theirs >from-them").output == "ours\n"
    assert used_sandbox.read_file(f"{folder}/from-them") == b"theirs\n"


def test_missing_parents_are_made_and_nothing_else(used_sandbox: Sandbox) -> None:
    folder = folder_of(used_sandbox)
    used_sandbox.write_file(f"{folder}/a/b/file", b"x")
    used_sandbox.write_file(f"{folder}/a/b/file", b"y")
    assert used_sandbox.exec("find a | sort").output == "a\na/b\na/b/file\n"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("two words", id="blanks"),
        pytest.param('it\'s "$(quoted)" `so`', id="quotes"),
        pytest.param("-n", id="an option"),
        pytest.param("lin\ne", id="a line break"),
        pytest.param("é*?[a]", id="patterns"),
        pytest.param("x" * 255, id="the longest there is"),
    ],
)
def test_any_name_will_do(used_sandbox: Sandbox, name: str) -> None:
    path = f"{folder_of(used_sandbox)}/{name}"
    used_sandbox.write_file(path, b"named")
    assert used_sandbox.read_file(path) == b"named"
    assert used_sandbox.exec("cat ./*").output == "named"


def test_a_file_that_can_not_be_had_raises_what_python_raises(used_sandbox: Sandbox) -> None:
    folder = folder_of(used_sandbox)
    used_sandbox.exec("ln -s nowhere dangling; mkdir inner")
    for path in (f"{folder}/none", f"{folder}/none/none", f"{folder}/dangling"):
        with pytest.raises(FileNotFoundError):
            used_sandbox.read_file(path)
    with pytest.raises(IsADirectoryError):
        used_sandbox.read_file(f"{folder}/inner")
    with pytest.raises(IsADirectoryError):
        used_sandbox.write_file(f"{folder}/inner", b"")


def test_a_file_that_can_not_be_made_raises_what_python_raises(used_sandbox: Sandbox) -> None:
    folder = folder_of(used_sandbox)
    used_sandbox.write_file(f"{folder}/file", b"x")
    with pytest.raises((NotADirectoryError, FileExistsError)):
        used_sandbox.write_file(f"{folder}/file/inner", b"")
    assert used_sandbox.read_file(f"{folder}/file") == b"x"


def test_what_is_no_file_is_refused_and_not_waited_for(used_sandbox: Sandbox) -> None:
    used_sandbox.exec("mkfifo fifo")
    for path in (f"{folder_of(used_sandbox)}/fifo", "/dev/zero"):
        with pytest.raises(OSError, match="argument"):
            used_sandbox.read_file(path)
    with pytest.raises(OSError, match="argument"):
        used_sandbox.write_file(f"{folder_of(used_sandbox)}/fifo", b"x")
    assert used_sandbox.exec("stat -c %F fifo").output == "fifo\n"


def test_a_file_that_is_too_large_is_neither_read_nor_written(used_sandbox: Sandbox) -> None:
    path = f"{folder_of(used_sandbox)}/file"
    used_sandbox.exec(f"truncate -s {MAX_FILE_BYTES + 1} file")
    with pytest.raises(OSError, match="large"):
        used_sandbox.read_file(path)
    with pytest.raises(OSError, match="large"):
        used_sandbox.write_file(path, bytes(MAX_FILE_BYTES + 1))
    assert used_sandbox.exec("stat -c %s file").output == f"{MAX_FILE_BYTES + 1}\n"


def test_writing_keeps_the_mode_and_follows_a_link(used_sandbox: Sandbox) -> None:
    folder = folder_of(used_sandbox)
    used_sandbox.exec("echo 'echo old' >script; chmod 750 script; ln -s script link")
    used_sandbox.write_file(f"{folder}/link", b"echo new\n")
    after = used_sandbox.exec("./script; readlink link; stat -c %a script; ls -A")
    assert after.output == "new\nscript\n750\nlink\nscript\n"


def test_a_written_file_is_newer_than_before(used_sandbox: Sandbox) -> None:
    used_sandbox.exec("echo 'x = 1' >file; touch -d '2001-01-01' file; cp -p file old")
    used_sandbox.write_file(f"{folder_of(used_sandbox)}/file", b"x = 2\n")
    assert used_sandbox.exec("[[ file -nt old ]]").exit_code == 0


def test_writing_through_a_link_to_nowhere_makes_what_it_points_to(used_sandbox: Sandbox) -> None:
    used_sandbox.exec("mkdir inner; ln -s inner/file link")
    used_sandbox.write_file(f"{folder_of(used_sandbox)}/link", b"made\n")
    assert used_sandbox.exec("cat inner/file; readlink link").output == "made\ninner/file\n"


def test_a_new_file_can_be_read_by_all_and_run_by_none(used_sandbox: Sandbox) -> None:
    used_sandbox.exec("umask 077")
    used_sandbox.write_file(f"{folder_of(used_sandbox)}/file", b"")
    assert used_sandbox.exec("stat -c %a file").output == "644\n"


@needs_boundary("its /dev/shm is the machine's, and filling it would hurt others")
def test_a_full_disk_leaves_the_old_file_whole_and_nothing_beside_it(sandbox: Sandbox) -> None:
    sandbox.write_file("/dev/shm/file", b"old")
    filled = sandbox.exec("head -c 2G /dev/zero >/dev/shm/filler", timeout_s=60)
    assert filled.exit_code != 0
    with pytest.raises(OSError, match="No space"):
        sandbox.write_file("/dev/shm/file", b"new" * 100_000)
    assert sandbox.read_file("/dev/shm/file") == b"old"
    assert sandbox.exec("ls -A /dev/shm; rm /dev/shm/filler").output == "file\nfiller\n"
    sandbox.write_file("/dev/shm/file", b"new" * 100_000)
    assert sandbox.read_file("/dev/shm/file") == b"new" * 100_000
