"""The seam between a validation and what it consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from srl_swe.types import Message

Reply = Callable[[Sequence[Sequence[Message]]], list[str]]
"""The live policy's greedy replies to prompts. A collective: every rank calls it as often as the
others do, with as many prompts."""


class Examination(Protocol):
    """One part of a validation, such as held-out steps. Every rank is examined on its share."""

    def __call__(self, reply: Reply, step: int) -> dict[str, float]:
        """Figures by name, the same on every rank; one that can't be known is left out."""
        ...
