"""Query strings."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode


def parse_query(text: str) -> dict[str, list[str]]:
    """Every value of every name, in order.

    >>> parse_query("?tag=a&tag=b&page=")
    {'tag': ['a', 'b'], 'page': ['']}
    """
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(text.removeprefix("?"), keep_blank_values=True):
        query.setdefault(name, []).append(value)
    return query


def build_query(params: Mapping[str, object]) -> str:
    """A query string with its question mark, or "" if nothing is to be said.

    Lists and tuples repeat the name; None is left out.

    >>> build_query({"tag": ["a", "b c"], "page": 2, "sort": None})
    '?tag=a&tag=b+c&page=2'
    """
    pairs = []
    for name, value in params.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        pairs += [(name, item) for item in values if item is not None]
    return f"?{urlencode(pairs)}" if pairs else ""
