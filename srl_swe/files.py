"""Atomic writes, reading the files back, and folders that belong to one config.

A failed write and a damaged file raise UserError: one line with the way out.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from srl_swe.errors import UserError

Record = TypeVar("Record")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SAID_OF_A_FULL_DISK = (
    *(os.strerror(code) for code in sorted(_FULL)),
    "inline_container.cc",
)
"""Texts of errors for a full disk: those of the operating system, in OSError and SafetensorError,
and the name of torch's writing file, as its error does not mention the disk."""
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_DEVICES = {Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd")}
_NO_PLACE = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
WRITE_ERRORS = frozenset(_FULL | _FORBIDDEN | _NO_PLACE)
"""Error codes caused by the target of a write."""


def write_atomic(path: Path, data: str | bytes) -> None:
    """Replace the file whole or not at all; parent folders are made. Text is written as UTF-8.

    A device or pipe is written to. Raises UserError if it can't be written.
    """
    raw = data.encode("utf-8", errors="surrogateescape") if isinstance(data, str) else data
    with _writing(path), written_whole(path) as scratch:
        scratch.write_bytes(raw)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path for a file or a folder, moved to ``path`` at the end.

    It is removed if the block raises. A file is replaced, a folder only if empty; a link stays,
    and its target is replaced. A device or a pipe, such as ``/dev/stdout``, is never replaced: its
    own path is given.
    Raises UserError if ``path`` can't be made; an OSError of the block stays one.
    """
    with _writing(path):
        is_device = path.exists() and not path.is_file() and not path.is_dir()
    if is_device or path.parent in _DEVICES:
        yield path
        return
    path = path.resolve()
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield scratch / path.name
        with _writing(path):
            (scratch / path.name).replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def held_alone(path: Path) -> Iterator[None]:
    """Hold ``path`` alone by a lock file ``.NAME.lock`` beside it.

    Raises UserError if another process holds it, or if the lock can't be written. The
    lock ends with the process, however that ends. A file system without locks is used without.
    """
    path = path.resolve()
    if not path.name:
        raise UserError(f"{path} can't be an output; name a folder below it.")
    lock = path.with_name(f".{path.name}.lock")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat())
        except OSError as error:
            is_ours = error.errno in _NO_LOCKS
        if not is_ours:  # or its holder has just removed it
            raise UserError(f"{path} is being written by another process; wait for it.")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append a line, or several in one text, whole or not at all; parent folders are made.

    Raises UserError if it can't be written, for example on a full disk; the previous content
    stays.
    """
    raw = line.rstrip("\n").encode("utf-8", errors="surrogateescape") + b"\n"
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            written = 0
            try:
                while written < len(raw):
                    written += file.write(raw[written:])
            except OSError:
                if written:
                    file.truncate(file.tell() - written)
                raise


def drop_torn_line(path: Path) -> None:
    """Cut off an unfinished last line, left by a kill in the middle of a write.

    A whole JSON object gets its newline instead, as an editor may have removed it.
    Raises UserError if the file can't be read or written.
    """
    with _writing(path):
        if not path.exists():
            return
        size, span, tail = path.stat().st_size, _TAIL, b""
        with path.open("rb") as file:
            while len(tail) < size and b"\n" not in tail:
                file.seek(max(0, size - span))
                tail, span = file.read(), span * 4
        last = tail[tail.rfind(b"\n") + 1 :]
        try:
            is_object = isinstance(json.loads(last), dict)
        except (ValueError, RecursionError):
            is_object = False
        if is_object:
            append_line(path, "")
        elif last:
            os.truncate(path, size - len(last))


_TAIL = 2**16
"""Bytes that are read first to find the last line."""


def parse_json(raw: str | bytes, where: str) -> Any:
    """The JSON value. Raises UserError that names ``where``."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON: {error}.") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if it can't be read as one."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_lines(path: Path, remedy: str) -> Iterator[tuple[str, str]]:
    """The non-blank lines, each after its place, ``PATH:NUMBER``; empty for a missing file.

    Raises UserError if the file can't be read, and with the ``remedy`` if a line is not
    UTF-8.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                where = f"{path}:{number}"
                if line.strip():
                    with damage_named(where, remedy):
                        text = line.decode("utf-8-sig")
                    yield where, text
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}).") from error


def read_json_lines(path: Path, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Like :func:`read_lines`, parsed. A line that is not a JSON object is a UserError too."""
    for where, line in read_lines(path, remedy):
        with damage_named(where, remedy):
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not a JSON object")
        yield where, record


def append_record(path: Path, record: Any) -> None:
    """Add the fields of a dataclass's instance as a line."""
    append_line(path, json.dumps(asdict(record)))


def load_records(path: Path, kind: type[Record], remedy: str) -> list[Record]:
    """The dataclass's instances of all lines; a torn last line is cut off.

    Raises UserError for a damaged line, with the ``remedy``.
    """
    from pydantic import TypeAdapter

    drop_torn_line(path)
    adapter, records = TypeAdapter(kind), []
    for where, fields in read_json_lines(path, remedy):
        with damage_named(where, remedy):
            records.append(adapter.validate_python(fields))
    return records


def last_line(text: str, otherwise: str = "no reason given") -> str:
    """The last line that is not blank, stripped."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), otherwise)


@contextmanager
def damage_named(where: str, remedy: str) -> Iterator[None]:
    """Turn parse errors of the block into a UserError about a damaged file.

    ``remedy``: the fix and its cost, such as "delete that line; its episode is rolled out
    again".
    """
    try:
        yield
    except KeyError as error:
        raise UserError(f"{where}: damaged ({error} is missing); {remedy}.") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{where}: damaged ({first_words(error)}); {remedy}.") from None


def first_words(error: Exception) -> str:
    """The first problem in one line; pydantic's errors have several."""
    errors = getattr(error, "errors", None)
    if callable(errors) and (first := next(iter(errors()), None)):
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def check_output_folder(folder: Path) -> None:
    """Raises UserError if results can't be written to ``folder``, before hours of work."""
    mode = _mode(folder)
    if mode is not None and not stat.S_ISDIR(mode):
        raise UserError(f"{folder} is a file; name a folder.")
    _check_takes_files(folder, folder)


def check_replaceable(folder: Path) -> None:
    """Raises UserError if results can't be written beside ``folder`` and moved in its place."""
    check_output_folder(folder)
    is_fixed = folder.is_symlink() or folder.is_mount() or folder.resolve() == Path.cwd()
    if is_fixed or folder.name == "..":
        raise UserError(
            f"{folder} is a link, a mount or this folder, and can't be replaced as a whole; name a "
            "folder below it."
        )


def check_output_file(path: Path) -> None:
    """Raises UserError if ``path`` can't be written as a file, before hours of work."""
    if stat.S_ISDIR(_mode(path) or 0):
        raise UserError(f"{path} is a folder; name a file.")
    _check_takes_files(path.parent, path)


def cannot_write(path: Path | str, error: OSError, be: str = "written") -> UserError:
    """The error to raise for an ``error`` while writing ``path``."""
    why = error.strerror or str(error)
    if error.errno in _FULL:
        way_out = "make room and run the same command again; what was written before is kept"
    elif error.errno in _FORBIDDEN:
        way_out = "name another place, or get permission to write there"
    else:
        way_out = "name another place"
    return UserError(f"{path} can't be {be} ({why}): {way_out}.")


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Raise UserError for a full disk below ``folder``, whatever type a library gives it."""
    try:
        yield
    except Exception as error:
        said = next((word for word in _SAID_OF_A_FULL_DISK if word in str(error)), None)
        if said is None or isinstance(error, UserError):
            raise
        why = "torch could not write a whole file" if said.startswith("inline") else said
        raise cannot_write(folder, OSError(errno.ENOSPC, why)) from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def _check_takes_files(folder: Path, wanted: Path) -> None:
    """Check the folder, or its first existing parent."""
    above = folder.absolute()
    while (mode := _mode(above)) is None:
        above = above.parent
    if not stat.S_ISDIR(mode) or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{wanted} can't be written, as {above} takes no files; name another.")


def _mode(path: Path) -> int | None:
    """None for a missing or unreadable path."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a NUL in its name
        return None


CONFIG_FILE = "config.json"


def claim(folder: Path, config: Mapping[str, Any], *, growing: str | None = None) -> Path:
    """Make ``folder`` the run of ``config``, or continue it there.

    ``config`` holds everything that decides the results, as JSON. ``growing`` names a number in it
    that may be larger than before. Raises UserError that names the differing keys if the folder
    holds a run of another config.
    """
    refuse_other(folder, config, growing=growing)
    write_atomic(folder / CONFIG_FILE, json.dumps(config, indent=2, sort_keys=True) + "\n")
    return folder


def refuse_other(folder: Path, config: Mapping[str, Any], *, growing: str | None = None) -> bool:
    """Whether ``folder`` holds a run of ``config``; False if it holds no run.

    Raises UserError that names the differing keys if it holds a run of another config. Raises
    UserError too if the folder can't be written to, or its config can't be read.
    """
    path = folder / CONFIG_FILE
    check_output_folder(folder)
    if not path.exists():
        return False
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); name another folder.") from None
    with damage_named(str(path), "name another folder"):
        held = flatten(json.loads(text))
    asked = flatten(json.loads(json.dumps(config)))
    differing = [key for key in {**held, **asked} if held.get(key) != asked.get(key)]
    if growing in differing and isinstance(held.get(growing), int):
        if held[growing] > asked[growing]:
            raise UserError(
                f"{folder} holds a run of {growing} {held[growing]}, which can't be reduced to "
                f"{asked[growing]}. Ask for {held[growing]} or more, or name another folder."
            )
        differing.remove(growing)
    if differing:
        shown = [f"{k}: {held.get(k)!r} -> {asked.get(k)!r}" for k in differing[:_SHOWN]]
        more = [f"{len(differing) - _SHOWN} more"] if len(differing) > _SHOWN else []
        changes = "; ".join([*shown, *more])
        raise UserError(
            f"{folder} holds a run of another config ({changes}). "
            "Name another folder, or delete that one."
        )
    return True


_SHOWN = 5


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names.

    >>> flatten({"a": {"b": 1, "c": {}}, "d": None})
    {'a.b': 1, 'd': None}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
