"""Instance ids as copies of data sets write them."""

from __future__ import annotations

import re

_ATTEMPT = re.compile(
    r"(?<=[^_])[_.-](?:run|attempt|rollout|sample|traj|trajectory|trial|try)[_-]?\d{1,9}(?:_\d{1,9})?\Z"
)
_COPY = re.compile(r"(?:-|_pr)\d{1,19}(_\d{1,9})\Z")
_ID = re.compile(r"[\w.+-]*[A-Za-z0-9]__[A-Za-z0-9][\w.+-]*|[\w.+-]+_pr\d{1,19}")
_LONGEST = 200
_LONGEST_END = 60


def plain_instance_id(text: str) -> str:
    """The id without the number that copies of data sets put after it, one per attempt.

    >>> plain_instance_id("python__mypy-15976_0"), plain_instance_id("a__b-1_run2_0")
    ('python__mypy-15976', 'a__b-1')
    """
    end = text[-_LONGEST_END:]
    if "__" not in text and "_pr" not in end:
        return text
    attempt = _ATTEMPT.search(end)
    text = text.removesuffix(attempt[0]) if attempt else text
    copy = _COPY.search(text[-_LONGEST_END:])
    return text.removesuffix(copy[1]) if copy else text


def looks_like_instance_id(text: str) -> bool:
    """Whether a name is built as data sets build ids of instances.

    >>> [looks_like_instance_id(t) for t in ("django__django-11119", "x_y_pr12", "all-3")]
    [True, True, False]
    """
    return len(text) <= _LONGEST and _ID.fullmatch(text) is not None
