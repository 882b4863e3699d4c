from lrucache import CacheStats


def test_hit_rate():
    assert CacheStats(hits=3, misses=1).hit_rate == 0.75


def test_hit_rate_before_the_first_lookup():
    assert CacheStats().hit_rate == 0.0


def test_reset():
    stats = CacheStats(1, 2, 3, 4)
    stats.reset()
    assert stats == CacheStats()
