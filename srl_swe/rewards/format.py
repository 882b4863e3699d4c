"""The format half of SRL's reward: -1 for a reply that breaks the format (paper, section 3)."""

from __future__ import annotations

from srl_swe.dialects import Reply

BROKEN_FORMAT = -1.0


def format_reward(reply: Reply) -> float | None:
    """-1 for a reply without a usable action; None where similarity decides.

    >>> from srl_swe.dialects import FormatReason
    >>> format_reward(Reply("why", None, FormatReason.NO_ACTION))
    -1.0
    """
    return BROKEN_FORMAT if reply.action is None else None
