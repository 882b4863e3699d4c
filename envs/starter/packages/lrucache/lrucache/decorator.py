"""Remember what a function returned."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from lrucache.cache import LRUCache

F = TypeVar("F", bound=Callable[..., Any])

_KEYWORDS = object()  # separates positional from keyword arguments in a key
_MISSING = object()


def make_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    """A key for a call; the order of keyword arguments does not matter."""
    if not kwargs:
        return args
    return (*args, _KEYWORDS, *sorted(kwargs.items()))


def cached(
    maxsize: int = 128,
    ttl: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    key: Callable[..., Hashable] | None = None,
) -> Callable[[F], F]:
    """Keep the results of a function, each for `ttl` seconds, or for good if that is None.

    `key` maps the arguments of a call to its key; by default all of them count
    and have to be hashable. The function gets an attribute `cache`.

    >>> @cached(maxsize=2)
    ... def square(x):
    ...     return x * x
    >>> square(3), square(3), square.cache.stats.hits
    (9, 9, 1)
    """

    def decorate(function: F) -> F:
        cache: LRUCache[Hashable, Any] = LRUCache(maxsize, ttl, clock)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = make_key(args, kwargs) if key is None else key(*args, **kwargs)
            result = cache.get(call, _MISSING)
            if result is _MISSING:
                result = cache[call] = function(*args, **kwargs)
            return result

        wrapper.cache = cache  # type: ignore[attr-defined]
        return wrapper  # type: ignore[return-value]

    return decorate
