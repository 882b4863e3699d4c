import pytest

from lrucache import CacheStats, LRUCache


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_it_is_a_mapping():
    cache = LRUCache()
    cache["a"] = 1
    assert cache["a"] == 1
    assert "a" in cache and "b" not in cache
    assert cache.get("b") is None
    del cache["a"]
    assert len(cache) == 0


def test_the_entry_unused_for_longest_is_evicted():
    cache = LRUCache(maxsize=2)
    cache["a"], cache["b"] = 1, 2
    cache["a"]
    cache["c"] = 3
    assert list(cache) == ["a", "c"]


def test_setting_counts_as_a_use():
    cache = LRUCache(maxsize=2)
    cache["a"], cache["b"] = 1, 2
    cache["a"] = 10
    cache["c"] = 3
    assert dict(cache.items()) == {"a": 10, "c": 3}


def test_peek_does_not_count_as_a_use():
    cache = LRUCache(maxsize=2)
    cache["a"], cache["b"] = 1, 2
    assert cache.peek("a") == 1
    cache["c"] = 3
    assert list(cache) == ["b", "c"]


@pytest.mark.parametrize("maxsize", [0, -1])
def test_maxsize_must_be_positive(maxsize):
    with pytest.raises(ValueError, match="maxsize must be positive"):
        LRUCache(maxsize)


def test_entries_expire(clock):
    cache = LRUCache(ttl=10, clock=clock)
    cache["a"] = 1
    clock.now += 9
    assert cache["a"] == 1
    clock.now += 1
    assert "a" not in cache
    with pytest.raises(KeyError):
        cache["a"]


def test_setting_again_renews_an_entry(clock):
    cache = LRUCache(ttl=10, clock=clock)
    cache["a"] = 1
    clock.now += 8
    cache["a"] = 2
    clock.now += 8
    assert cache["a"] == 2


def test_put_has_a_lifetime_of_its_own(clock):
    cache = LRUCache(ttl=10, clock=clock)
    cache.put("short", 1, ttl=1)
    cache.put("forever", 2, ttl=None)
    clock.now += 1000
    assert list(cache) == ["forever"]


def test_expired_entries_make_room_first(clock):
    cache = LRUCache(maxsize=2, clock=clock)
    cache["old"] = 1
    cache.put("dead", 2, ttl=1)
    clock.now += 5
    cache["new"] = 3
    assert list(cache) == ["old", "new"]


def test_purge(clock):
    cache = LRUCache(ttl=10, clock=clock)
    cache["a"], cache["b"] = 1, 2
    clock.now += 5
    cache["c"] = 3
    clock.now += 5
    assert cache.purge() == 2
    assert list(cache) == ["c"]


def test_lookups_are_counted(clock):
    stats = CacheStats()
    cache = LRUCache(maxsize=1, ttl=10, clock=clock, stats=stats)
    cache["a"] = 1
    cache["b"] = 2
    cache["b"]
    cache.get("a")
    clock.now += 10
    cache.get("b")
    assert stats == CacheStats(hits=1, misses=2, evictions=1, expirations=1)
