#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout 944bd9ed99218d10c0d80cf28a7136a78eabd6d8 tests/test_cache.py tests/test_decorator.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_cache.py b/tests/test_cache.py
--- a/tests/test_cache.py
+++ b/tests/test_cache.py
@@ -115,3 +115,24 @@ def test_lookups_are_counted(clock):
     clock.now += 10
     cache.get("b")
     assert stats == CacheStats(hits=1, misses=2, evictions=1, expirations=1)
+
+
+def test_every_cache_counts_for_itself():
+    busy, idle = LRUCache(), LRUCache()
+    busy["a"] = 1
+    busy["a"]
+    busy.get("b")
+    assert busy.stats == CacheStats(hits=1, misses=1)
+    assert idle.stats == CacheStats()
+
+
+def test_a_new_cache_starts_at_zero():
+    LRUCache().get("missing")
+    assert LRUCache().stats.lookups == 0
+
+
+def test_counters_can_be_shared():
+    stats = CacheStats()
+    LRUCache(stats=stats).get("a")
+    LRUCache(stats=stats).get("a")
+    assert stats.misses == 2
diff --git a/tests/test_decorator.py b/tests/test_decorator.py
--- a/tests/test_decorator.py
+++ b/tests/test_decorator.py
@@ -53,6 +53,13 @@ def test_results_expire():
     assert function() == 2
 
 
+def test_every_function_counts_for_itself():
+    first, _ = recorder()
+    second, _ = recorder()
+    first(), first(), second()
+    assert (first.cache.stats.hits, second.cache.stats.hits) == (1, 0)
+
+
 def test_name_and_docstring_are_kept():
     function, _ = recorder()
     assert (function.__name__, function.__doc__) == ("function", "Doc.")

EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA tests/test_cache.py tests/test_decorator.py
: '>>>>> End Test Output'
git checkout 944bd9ed99218d10c0d80cf28a7136a78eabd6d8 tests/test_cache.py tests/test_decorator.py
