#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout fbf24157be4c80b2471d3e7851994b148b374fc5 tests/test_width.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_max_width.py b/tests/test_max_width.py
new file mode 100644
--- /dev/null
+++ b/tests/test_max_width.py
@@ -0,0 +1,22 @@
+from texttable import GRID, Column, Table
+
+
+def test_cut_cells_line_up_with_the_others():
+    table = Table([Column("text", max_width=8), "n"])
+    table.add_row("a rather long text", 1)
+    table.add_row("short", 2)
+    assert table.render(GRID).split("\n") == [
+        "+----------+-----+",
+        "| text     | n   |",
+        "+----------+-----+",
+        "| a rathe… | 1   |",
+        "| short    | 2   |",
+        "+----------+-----+",
+    ]
+
+
+def test_cells_of_just_the_maximum_are_not_cut():
+    table = Table([Column("text", max_width=8)])
+    table.add_row("12345678")
+    assert table.rows == [("12345678",)]
+    assert "12345678" in table.render()
diff --git a/tests/test_width.py b/tests/test_width.py
--- a/tests/test_width.py
+++ b/tests/test_width.py
@@ -38,6 +38,16 @@ def test_truncate_marks_the_cut():
     assert cut.startswith("Miss") and cut.endswith("…")
 
 
+@pytest.mark.parametrize("width, expected", [(10, "Mississip…"), (6, "Missi…"), (1, "…")])
+def test_truncate_fits(width, expected):
+    assert truncate("Mississippi", width) == expected
+
+
+def test_truncate_fits_wide_characters():
+    assert truncate("日本語", 5) == "日本…"
+    assert truncate("日本語", 4) == "日…"
+
+
 def test_truncate_needs_a_width():
     with pytest.raises(ValueError, match="width must be positive"):
         truncate("abc", 0)

EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA tests/test_width.py tests/test_max_width.py
: '>>>>> End Test Output'
git checkout fbf24157be4c80b2471d3e7851994b148b374fc5 tests/test_width.py
