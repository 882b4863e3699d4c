#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout 20481cd016c86e700532f7df0513aeb5d304f09b tests/test_cache.py tests/test_decorator.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_cache.py b/tests/test_cache.py
--- a/tests/test_cache.py
+++ b/tests/test_cache.py
@@ -78,6 +78,18 @@ def test_setting_again_renews_an_entry(clock):
     assert cache["a"] == 2
 
 
+def test_entries_do_not_expire_unless_asked_to(clock):
+    cache = LRUCache(clock=clock)
+    cache["a"] = 1
+    clock.now += 10_000_000
+    assert cache["a"] == 1
+    assert cache.stats.expirations == 0
+
+
+def test_there_is_no_lifetime_by_default():
+    assert LRUCache().ttl is None
+
+
 def test_put_has_a_lifetime_of_its_own(clock):
     cache = LRUCache(ttl=10, clock=clock)
     cache.put("short", 1, ttl=1)
diff --git a/tests/test_decorator.py b/tests/test_decorator.py
--- a/tests/test_decorator.py
+++ b/tests/test_decorator.py
@@ -53,6 +53,14 @@ def test_results_expire():
     assert function() == 2
 
 
+def test_results_do_not_expire_unless_asked_to():
+    now = [0.0]
+    function, calls = recorder(clock=lambda: now[0])
+    function()
+    now[0] = 10_000_000.0
+    assert function() == 1
+
+
 def test_name_and_docstring_are_kept():
     function, _ = recorder()
     assert (function.__name__, function.__doc__) == ("function", "Doc.")

EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA tests/test_cache.py tests/test_decorator.py
: '>>>>> End Test Output'
git checkout 20481cd016c86e700532f7df0513aeb5d304f09b tests/test_cache.py tests/test_decorator.py
