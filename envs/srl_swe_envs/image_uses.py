"""When each image was last used: engines don't say, and the least recently used go first.

One empty file an image in the user's cache folder, whose time is the use: one system call,
safe between threads and processes, and nothing that could grow or tear.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from srl_swe_envs.image_names import canonical


def record_use(image: str, folder: Path | None = None) -> None:
    """Remember that the image is used now.

    Where the cache folder can't be written nothing is: that must not cost a sandbox.
    """
    with suppress(OSError, RuntimeError):  # RuntimeError: a user without a home
        file = _file(image, folder)
        try:
            os.utime(file)
        except FileNotFoundError:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


def last_use(image: str, folder: Path | None = None) -> datetime | None:
    """When it was used last, in UTC; None where that is not known."""
    try:
        return datetime.fromtimestamp(_file(image, folder).stat().st_mtime, UTC)
    except (OSError, RuntimeError):
        return None


def forget_use(image: str, folder: Path | None = None) -> None:
    """Drop what is remembered of an image that is gone."""
    with suppress(OSError, RuntimeError):
        _file(image, folder).unlink(missing_ok=True)


def _file(image: str, folder: Path | None) -> Path:
    name = hashlib.sha256(canonical(image).encode()).hexdigest()
    return (folder or cache_folder("image-uses")) / name


def cache_folder(name: str) -> Path:
    """A folder for what can be lost, by the XDG base directory specification.

    It may not exist yet. Raises RuntimeError for a user without a home.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))  # a relative one is ignored
    return (named if named.is_absolute() else Path.home() / ".cache") / "srl-swe" / name
