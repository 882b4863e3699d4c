#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout 44ea8715950e8c1f4fcdc574aa34d32d3833451c tests/test_table.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_table.py b/tests/test_table.py
--- a/tests/test_table.py
+++ b/tests/test_table.py
@@ -50,6 +50,23 @@ def test_sort_by_keeps_the_order_of_ties():
     assert column(table) == ["Bob", "Di", "Ada", "Cy"]
 
 
+def test_sort_by_keeps_the_order_of_ties_in_reverse():
+    table = Table(["name", "team"])
+    for name, team in [("Ada", 2), ("Bob", 1), ("Cy", 2), ("Di", 1)]:
+        table.add_row(name, team)
+    table.sort_by("team", reverse=True)
+    assert column(table) == ["Ada", "Cy", "Bob", "Di"]
+
+
+def test_sort_by_one_column_after_another():
+    table = Table(["name", "points"])
+    for name, points in [("Cy", 5), ("Ada", 5), ("Bob", 9), ("Di", 5)]:
+        table.add_row(name, points)
+    table.sort_by("name")
+    table.sort_by("points", reverse=True)
+    assert column(table) == ["Bob", "Ada", "Cy", "Di"]
+
+
 def test_blank_cells_are_sorted_last():
     table = Table.from_dicts([{"n": None}, {"n": 2}, {"n": 1}])
     table.sort_by("n")

EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA tests/test_table.py
: '>>>>> End Test Output'
git checkout 44ea8715950e8c1f4fcdc574aa34d32d3833451c tests/test_table.py
