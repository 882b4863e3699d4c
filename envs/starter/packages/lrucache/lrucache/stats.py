"""How well a cache does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class CacheStats:
    """Counters that a cache keeps while it works."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    expirations: int = 0

    @property
    def lookups(self) -> int:
        return self.hits + self.misses

    @property
    def hit_rate(self) -> float:
        """Hits per lookup; 0.0 before the first one."""
        return self.hits / self.lookups if self.lookups else 0.0

    def reset(self) -> None:
        self.hits = self.misses = self.evictions = self.expirations = 0
