"""Reads and writes files of this machine that other processes may be pulling about."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from srl_swe.sandbox import MAX_FILE_BYTES

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


def read_regular(path: Path) -> bytes:
    """A regular file's bytes; a pipe is not waited for.

    Raises OSError, EINVAL for what is no file and EFBIG above MAX_FILE_BYTES among it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise _error(errno.EISDIR, path)
        if not stat.S_ISREG(status.st_mode):
            raise _error(errno.EINVAL, path)
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise _error(errno.EFBIG, path)
    return data


def replace_file(path: Path, data: bytes) -> None:
    """Replace the file, or what a link there points to, whole or not at all; its mode is kept.

    All happens within one opened folder: whoever moves it or puts a link in its place meanwhile
    leads us nowhere. Raises OSError.
    """
    if len(data) > MAX_FILE_BYTES:
        raise _error(errno.EFBIG, path)
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(target.parent, _FOLDER)
    try:
        _replace_within(folder, target.name, data)
    finally:
        os.close(folder)


def replace_working_files(target: Path, source: Path) -> None:
    """Make the files of a working tree those of another; repositories are left out of it.

    Special files and what is larger than MAX_FILE_BYTES are not copied. Raises OSError.
    """
    for entry in target.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            if entry.name != ".git":
                shutil.rmtree(entry)
        else:
            entry.unlink()
    shutil.copytree(source, target, symlinks=True, ignore=_not_to_copy, dirs_exist_ok=True)


def _not_to_copy(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == ".git" or not _is_plain(Path(folder, name))}


def _is_plain(path: Path) -> bool:
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        return status.st_size <= MAX_FILE_BYTES
    return stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)


def _replace_within(folder: int, name: str, data: bytes) -> None:
    temporary = f".srl-swe.{secrets.token_hex(4)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(temporary, flags, _mode_of(folder, name), dir_fd=folder)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, _mode_of(folder, name))  # whatever the umask
            file.write(data)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _mode_of(folder: int, name: str) -> int:
    try:
        return stat.S_IMODE(os.stat(name, dir_fd=folder).st_mode)
    except FileNotFoundError:
        return 0o644


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
