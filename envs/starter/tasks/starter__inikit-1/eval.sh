#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout dd1e91c72e4678b4f62297c91ea299360b31d4a5 tests/test_reader.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_reader.py b/tests/test_reader.py
--- a/tests/test_reader.py
+++ b/tests/test_reader.py
@@ -47,3 +47,15 @@ def test_load_reads_utf8(tmp_path):
     path = tmp_path / "a.ini"
     path.write_bytes("[a]\nname = Zoë\n".encode("utf-8"))
     assert load(path)["a"]["name"] == "Zoë"
+
+
+def test_load_skips_a_byte_order_mark(tmp_path):
+    path = tmp_path / "a.ini"
+    path.write_bytes(b"\xef\xbb\xbf[a]\nx = 1\n")
+    assert load(path).as_dict() == {"a": {"x": "1"}}
+
+
+def test_load_skips_a_byte_order_mark_before_a_key(tmp_path):
+    path = tmp_path / "a.ini"
+    path.write_bytes(b"\xef\xbb\xbfx = 1\n")
+    assert load(path).as_dict() == {"": {"x": "1"}}

EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA tests/test_reader.py
: '>>>>> End Test Output'
git checkout dd1e91c72e4678b4f62297c91ea299360b31d4a5 tests/test_reader.py
