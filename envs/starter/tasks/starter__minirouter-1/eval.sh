#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout 6f979137b78702cc1678c35c289842187dfa99b5 tests/test_router.py tests/test_pattern.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_pattern.py b/tests/test_pattern.py
--- a/tests/test_pattern.py
+++ b/tests/test_pattern.py
@@ -1,6 +1,6 @@
 import pytest
 
-from minirouter import Pattern
+from minirouter import BuildError, Pattern
 
 
 @pytest.mark.parametrize(
@@ -29,6 +29,11 @@ def test_build_encodes_values():
     assert Pattern("/files/{name:path}").build({"name": "a/b c"}) == "/files/a/b%20c"
 
 
+def test_build_needs_every_value():
+    with pytest.raises(BuildError):
+        Pattern("/{year:int}/{slug}").build({"slug": "hello"})
+
+
 def test_names():
     assert Pattern("/{year:int}/{slug}").names == ["year", "slug"]
 
diff --git a/tests/test_router.py b/tests/test_router.py
--- a/tests/test_router.py
+++ b/tests/test_router.py
@@ -61,6 +61,16 @@ def test_url_for_a_value_that_does_not_fit(router):
         router.url_for("user", {"id": "me"})
 
 
+def test_url_for_without_a_value(router):
+    with pytest.raises(BuildError):
+        router.url_for("user")
+
+
+def test_url_for_with_other_values_only(router):
+    with pytest.raises(BuildError):
+        router.url_for("user", {"tab": "posts"})
+
+
 def test_include(router):
     outer = Router()
     outer.include("/api", router)

EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA tests/test_router.py tests/test_pattern.py
: '>>>>> End Test Output'
git checkout 6f979137b78702cc1678c35c289842187dfa99b5 tests/test_router.py tests/test_pattern.py
