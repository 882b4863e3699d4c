"""Exact match: 1 for the expert's action to the letter, else 0.

    r = [candidate = expert]

The texts are canonical (:attr:`srl_swe.types.Action.text`), so white space around the tags of a
reply is no difference, and the order of arguments is one. Ours; it is what validation reports
beside the paper's similarity.

Where it degenerates: it is sparse, so that most groups are all 0 and dynamic sampling drops
them, and a script or an edit of ten lines is never hit. Useful as a share of a mixture.
"""

from __future__ import annotations

from collections.abc import Iterable


def exact_matches(candidates: Iterable[str], expert: str) -> list[float]:
    """1.0 or 0.0 for each candidate.

    >>> exact_matches(["ls", "ls ", "pwd"], "ls")
    [1.0, 0.0, 0.0]
    """
    return [float(candidate == expert) for candidate in candidates]
