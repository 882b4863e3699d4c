"""What the processes of one run agree on."""

from __future__ import annotations

from typing import Any

import torch


def most_over_ranks(count: int, accelerator: Any) -> int:
    """The largest of the ranks' counts, so that all of them do something as often as one does."""
    counts = torch.tensor([count], device=accelerator.device)
    return int(accelerator.gather(counts).max())
