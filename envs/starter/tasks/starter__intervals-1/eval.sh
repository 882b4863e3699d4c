#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout 85ec5a6daf79ec96a1a9addf0b54d7685404c0c1 tests/test_intervalset.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_intervalset.py b/tests/test_intervalset.py
--- a/tests/test_intervalset.py
+++ b/tests/test_intervalset.py
@@ -13,6 +13,23 @@ def test_an_interval_inside_another_disappears():
     assert IntervalSet.of((1, 9), (2, 3)) == IntervalSet.of((1, 9))
 
 
+def test_touching_intervals_are_joined():
+    assert list(IntervalSet.of((1, 3), (3, 5))) == [Interval(1, 5)]
+
+
+def test_a_small_gap_keeps_intervals_apart():
+    assert len(IntervalSet.of((1, 3), (3.001, 5))) == 2
+
+
+def test_neighbours_in_a_union_are_joined():
+    quarters = IntervalSet.of((0, 0.25), (0.5, 0.75)) | IntervalSet.of((0.25, 0.5), (0.75, 1))
+    assert quarters == IntervalSet.of((0, 1))
+
+
+def test_there_is_no_gap_between_neighbours():
+    assert IntervalSet.of((1, 3), (3, 5), (7, 8)).gaps() == IntervalSet.of((5, 7))
+
+
 def test_membership():
     numbers = IntervalSet.of((1, 3), (5, 8))
     assert [x for x in range(10) if x in numbers] == [1, 2, 5, 6, 7]

EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA tests/test_intervalset.py
: '>>>>> End Test Output'
git checkout 85ec5a6daf79ec96a1a9addf0b54d7685404c0c1 tests/test_intervalset.py
