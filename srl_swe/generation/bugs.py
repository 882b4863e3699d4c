"""Candidate bugs: one or two small edits of a source's functions, as patches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChangedFunction:
    """A function, method or class that a bug changes."""

    path: str
    """From the root of the repository, with ``/``."""
    name: str
    """Qualified within its module: ``Parser.feed``, ``outer.<locals>.inner``."""
    first_line: int
    """In the clean file, from 1, decorators included; ``last_line`` is included too."""
    last_line: int


@dataclass(frozen=True, slots=True)
class Bug:
    """A candidate: the clean source plus ``patch`` is the buggy one.

    Whether a test notices is not known yet.
    """

    bug_id: str
    """Unique within its source, for any seed: a digest of the patch."""
    source: str
    """The name of its :class:`~srl_swe.generation.repositories.Source`."""
    operators: tuple[str, ...]
    """One per edit, in the order of the files and lines."""
    seed: int
    patch: str
    """A unified diff from clean to buggy, as ``git apply`` takes it; ``git apply -R`` fixes."""
    functions: tuple[ChangedFunction, ...]
    """One or two, without repeats, in the order of the files and lines."""
    fingerprints: tuple[str, ...] = ()
    """Digests of each edit and of each buggy function; near-duplicates share at least one."""
