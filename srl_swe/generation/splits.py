"""Splits of bugs by repository and by operator.

A held-out repository is held out whole. A split by operator shares its repositories with the
training part, but no kind of edit.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from typing import Literal

from srl_swe.generation.bugs import Bug

Split = Literal["train", "held_out_repository", "held_out_operator"]


def split_of(
    bug: Bug, *, repositories: Collection[str] = (), operators: Collection[str] = ()
) -> Split:
    """The part a bug belongs to, given the names of held-out repositories and operators.

    The repository decides first. A bug of two edits is held out if either operator is.
    """
    if bug.source in repositories:
        return "held_out_repository"
    return "held_out_operator" if set(bug.operators) & set(operators) else "train"


def draw_operators(names: Iterable[str], *, share: float, seed: int) -> tuple[str, ...]:
    """Operators to hold out: that share of the names, rounded, at least 1 of 2 or more; sorted."""
    known = sorted(set(names))
    number = min(max(round(share * len(known)), 1), len(known) - 1) if share > 0 else 0
    return tuple(sorted(random.Random(f"operators {seed}").sample(known, max(number, 0))))
