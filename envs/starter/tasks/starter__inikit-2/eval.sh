#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout b62836bfc299a00a78fe768738ba4a474aa7671f tests/test_reader.py tests/test_writer.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_reader.py b/tests/test_reader.py
--- a/tests/test_reader.py
+++ b/tests/test_reader.py
@@ -28,6 +28,10 @@ def test_line_breaks_in_quotes():
     assert loads('[a]\nx = "one\\ntwo"')["a"]["x"] == "one\ntwo"
 
 
+def test_escapes_in_quotes():
+    assert loads('[a]\nx = "C:\\\\new ; \\"old\\""')["a"]["x"] == 'C:\\new ; "old"'
+
+
 def test_a_section_that_comes_twice_is_merged():
     assert loads("[a]\nx=1\n[b]\n[a]\nx=2\ny=3").as_dict() == {"a": {"x": "2", "y": "3"}, "b": {}}
 
diff --git a/tests/test_writer.py b/tests/test_writer.py
--- a/tests/test_writer.py
+++ b/tests/test_writer.py
@@ -32,6 +32,23 @@ def test_values_survive(value):
     assert loads(dumps(make(x=value)))["a"]["x"] == value
 
 
+@pytest.mark.parametrize(
+    "value",
+    ["C:\\new ; C:\\old", 'say "hi" # now', '"quoted"', " \\ ", "\\n\n\\"],
+    ids=["path", "quotes", "quoted", "backslash", "mixed"],
+)
+def test_backslashes_and_quotes_survive(value):
+    assert loads(dumps(make(x=value)))["a"]["x"] == value
+
+
+def test_backslashes_and_quotes_are_escaped():
+    assert dumps(make(x='C:\\new ; "b"')) == '[a]\nx = "C:\\\\new ; \\"b\\""\n'
+
+
+def test_plain_backslashes_stay_as_they_are():
+    assert dumps(make(path="C:\\new")) == "[a]\npath = C:\\new\n"
+
+
 def test_save_and_load(tmp_path):
     document = make(name="Zoë", motto="first ; then")
     save(document, tmp_path / "a.ini")

EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA tests/test_reader.py tests/test_writer.py
: '>>>>> End Test Output'
git checkout b62836bfc299a00a78fe768738ba4a474aa7671f tests/test_reader.py tests/test_writer.py
