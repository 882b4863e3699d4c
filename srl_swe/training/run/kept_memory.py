"""Memory that torch frees on a CPU stays with the process."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of mallopt(3)."""


def keep_freed_memory() -> None:
    """Have glibc give nothing back to the kernel, for as long as this process lives.

    It gives back each block of many megabytes, such as a batch's logits; the next step then
    gets the pages one by one and cleared, which took a third of the CPU time of SFT's steps with
    a tiny policy. Does nothing where the C library has no ``mallopt``.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
