"""Bash that runs in sandboxes, a file each."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def script(name: str) -> str:
    """The text of the script of that name."""
    return resources.files(__name__).joinpath(name).read_text("utf-8")
