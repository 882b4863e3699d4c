"""The cache itself."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from typing import Generic, NamedTuple, TypeVar

from lrucache.stats import CacheStats

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Entry(NamedTuple, Generic[V]):
    value: V
    expires_at: float | None  # None: never

    def alive(self, now: float) -> bool:
        return self.expires_at is None or now < self.expires_at


class LRUCache(MutableMapping[K, V]):
    """A mapping of at most `maxsize` entries; the one unused for longest goes first.

    `ttl` is how many seconds an entry lives after it was set, None for no end.
    `clock` tells the time in seconds. Lookups are counted in `stats`.

    Looking (`in`, `peek`, iteration) changes neither the order nor the counters.
    """

    def __init__(
        self,
        maxsize: int = 128,
        ttl: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        stats: CacheStats | None = None,
    ) -> None:
        if maxsize < 1:
            raise ValueError(f"maxsize must be positive, not {maxsize}")
        self.maxsize = maxsize
        self.ttl = ttl
        self.stats = CacheStats() if stats is None else stats
        self._clock = clock
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()  # oldest use first

    def __getitem__(self, key: K) -> V:
        entry = self._live_entry(key)
        if entry is None:
            self.stats.misses += 1
            raise KeyError(key)
        self.stats.hits += 1
        self._entries.move_to_end(key)
        return entry.value

    def __setitem__(self, key: K, value: V) -> None:
        self.put(key, value, self.ttl)

    def put(self, key: K, value: V, ttl: float | None) -> None:
        """Set an entry with a lifetime of its own."""
        expires_at = None if ttl is None else self._clock() + ttl
        self._entries[key] = _Entry(value, expires_at)
        self._entries.move_to_end(key)
        if len(self._entries) > self.maxsize:
            self._make_room()

    def __delitem__(self, key: K) -> None:
        del self._entries[key]

    def __contains__(self, key: object) -> bool:
        entry = self._entries.get(key)  # type: ignore[arg-type]
        return entry is not None and entry.alive(self._clock())

    def __iter__(self) -> Iterator[K]:
        """Yield the keys of live entries, least recently used first."""
        now = self._clock()
        return iter([key for key, entry in self._entries.items() if entry.alive(now)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"LRUCache(maxsize={self.maxsize}, ttl={self.ttl}, keys={list(self)})"

    def peek(self, key: K) -> V:
        """The value, without counting as a use."""
        if key not in self:
            raise KeyError(key)
        return self._entries[key].value

    def clear(self) -> None:
        """Drop every entry. The counters stay."""
        self._entries.clear()

    def purge(self) -> int:
        """Drop every expired entry and return how many there were."""
        now = self._clock()
        dead = [key for key, entry in self._entries.items() if not entry.alive(now)]
        for key in dead:
            del self._entries[key]
        self.stats.expirations += len(dead)
        return len(dead)

    def _live_entry(self, key: K) -> _Entry[V] | None:
        """The entry, or None where it is missing or has expired (and is dropped)."""
        entry = self._entries.get(key)
        if entry is None or entry.alive(self._clock()):
            return entry
        del self._entries[key]
        self.stats.expirations += 1
        return None

    def _make_room(self) -> None:
        """Drop what has expired, else the entry unused for longest."""
        if self.purge() == 0:
            self._entries.popitem(last=False)
            self.stats.evictions += 1
