#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout 2d17b68cd5091c8a5b55241d74d9fd8fd1ee7f1b tests/test_router.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_router.py b/tests/test_router.py
--- a/tests/test_router.py
+++ b/tests/test_router.py
@@ -51,6 +51,17 @@ def test_url_for_puts_the_rest_into_the_query(router):
     assert router.url_for("user", {"id": 3, "tab": "posts"}) == "/users/3?tab=posts"
 
 
+def test_url_for_leaves_the_params_alone(router):
+    params = {"id": 3, "tab": "posts"}
+    router.url_for("user", params)
+    assert params == {"id": 3, "tab": "posts"}
+
+
+def test_url_for_twice_with_the_same_params(router):
+    params = {"id": 3}
+    assert router.url_for("user", params) == router.url_for("user", params) == "/users/3"
+
+
 def test_url_for_an_unknown_route(router):
     with pytest.raises(BuildError, match="no route 'nobody'"):
         router.url_for("nobody")

EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA tests/test_router.py
: '>>>>> End Test Output'
git checkout 2d17b68cd5091c8a5b55241d74d9fd8fd1ee7f1b tests/test_router.py
