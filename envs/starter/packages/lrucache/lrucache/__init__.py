"""A least-recently-used cache whose entries can expire."""

from lrucache.cache import LRUCache
from lrucache.decorator import cached, make_key
from lrucache.stats import CacheStats

__all__ = ["CacheStats", "LRUCache", "cached", "make_key"]
