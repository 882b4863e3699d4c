#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout a2d60b95943ced4407cf99d56a282686083281f5 tests/test_intervalset.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_intervalset.py b/tests/test_intervalset.py
--- a/tests/test_intervalset.py
+++ b/tests/test_intervalset.py
@@ -53,5 +53,21 @@ def test_clip():
     assert numbers.clip(5, 5) == IntervalSet()
 
 
+def test_clip_starts_at_zero():
+    assert IntervalSet.of((-4, -2), (-1, 3)).clip(start=0) == IntervalSet.of((0, 3))
+
+
+def test_clip_ends_at_zero():
+    assert IntervalSet.of((-4, -2), (-1, 3)).clip(end=0) == IntervalSet.of((-4, -2), (-1, 0))
+
+
+def test_clip_to_nothing_at_zero():
+    assert IntervalSet.of((-4, 4)).clip(0, 0) == IntervalSet()
+
+
+def test_clip_without_limits_keeps_everything():
+    assert IntervalSet.of((-4, 4)).clip() == IntervalSet.of((-4, 4))
+
+
 def test_shift():
     assert IntervalSet.of((1, 3)).shift(10) == IntervalSet.of((11, 13))

EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA tests/test_intervalset.py
: '>>>>> End Test Output'
git checkout a2d60b95943ced4407cf99d56a282686083281f5 tests/test_intervalset.py
