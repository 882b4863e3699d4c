from __future__ import annotations

import pytest

from srl_swe.experts import find_leak
from srl_swe.experts.reading import Issue, Seen
from srl_swe.types import Action, Observation, Step, Trajectory

ISSUE = """\
# `gaps()` crashes on neighbours. It did not before

```python
>>> from intervals import IntervalSet
>>> day = IntervalSet.of((8, 12), (12, 16))  # as it should be
>>> day.gaps()
Traceback (most recent call last):
  ...
ValueError: empty interval: [12, 12)
>>> len(day)
2
```

And `len(truncate("Mississippi", 6))` is 7, see maxWidth in `texttable/width.py`.
"""


def bash(command: str, printed: str = "", code: int | None = 0) -> Step:
    return Step("t", Action("bash", {"command": command}), Observation(printed, code))


def edit(path: str = "/testbed/a.py", old: str = "x", new: str = "y") -> Step:
    given = {"command": "str_replace", "path": path, "old_str": old, "new_str": new}
    return Step("t", Action("str_replace_editor", given), Observation("edited", 0))


def test_an_issue_names_its_code_but_not_the_words_of_comments_and_tracebacks() -> None:
    issue = Issue(ISSUE)
    assert issue.title == "`gaps()` crashes on neighbours"
    assert {"gaps", "IntervalSet", "day", "truncate", "maxWidth"} <= set(issue.names)
    assert not {"should", "Traceback", "recent", "Mississippi"} & set(issue.names)
    assert issue.messages == ["empty interval"]
    assert issue.calls == ['len(truncate("Mississippi", 6))']


def test_the_script_of_an_issue_prints_the_values_that_it_shows() -> None:
    assert Issue(ISSUE).script.splitlines() == [
        "from intervals import IntervalSet",
        "day = IntervalSet.of((8, 12), (12, 16))  # as it should be",
        "print(day.gaps())",
        "print(len(day))",
    ]


@pytest.mark.parametrize(
    "block",
    [
        "import time\ntime.sleep(61)\nprint(1)",
        "KeyError: 'id'",
        "+----+\n| a  |",
        "def f():\n    return 1",
        "x = 1",
        "f(1)",
    ],
    ids=["sleeps", "traceback", "output", "definition", "no call", "no import"],
)
def test_a_block_that_shows_nothing_gives_no_script(block: str) -> None:
    assert Issue(f"It fails.\n```\n{block}\n```\n").script == ""


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("./pkg/a.py:3: x", True),
        ('File "/testbed/pkg/a.py", line 3', True),
        ("pkg/a.pyc", False),
        ("otherpkg/a.py", False),
    ],
)
def test_a_path_is_known_once_it_was_printed(text: str, known: bool) -> None:
    assert Seen(Issue("x"), [bash("grep -rn x .", text)]).knows_path("pkg/a.py") == known


@pytest.mark.parametrize(
    ("steps", "last_change"),
    [
        ([bash("grep -rn x . > /dev/null 2>&1")], -1),
        ([bash("sed -i s/a/b/ a.py")], 0),
        ([bash("ls"), edit(), bash("python -m pytest -q")], 1),
        ([bash("python - <<'EOF'\nopen('a', 'w').write('x')\nEOF")], -1),
        ([bash("git checkout -- a.py"), bash("git diff")], 0),
        ([edit(), bash("git apply p", "error", 1)], 0),
    ],
)
def test_the_last_change_is_found_whoever_made_it(steps: list[Step], last_change: int) -> None:
    assert Seen(Issue("x"), steps).last_change == last_change


@pytest.mark.parametrize(
    ("steps", "reproduced"),
    [
        ([bash("python reproduce.py", "KeyError")], True),
        ([bash("python -m pytest -q", "2 failed, 3 passed")], True),
        ([bash("python -m pytest -q", "5 passed")], False),
        ([bash("ls")], False),
    ],
)
def test_the_symptom_is_reproduced_by_a_script_or_a_failing_test(
    steps: list[Step], reproduced: bool
) -> None:
    assert Seen(Issue("x"), steps).has_reproduced() == reproduced


def test_code_counts_as_seen_only_in_an_answer_about_its_file() -> None:
    printed = "    ttl: float = 60.0,\n    clock: int,"
    seen = Seen(Issue("x"), [bash("cat a.py", printed)])
    assert seen.has_seen("a.py", ["ttl: float = 60.0,", "clock:   int,"])
    assert not seen.has_seen("b.py", ["ttl: float = 60.0,"])
    assert not seen.has_seen("a.py", ["ttl: float = 60.0,", "def f():"])


PATCH = """\
--- a/a.py
+++ b/a.py
@@ -1,1 +1,2 @@
-x = 1
+x = hidden_name(1)
+check(x)
"""


@pytest.mark.parametrize(
    ("steps", "leak"),
    [
        ([bash("grep -rn x ."), edit(new="x = hidden_name(1)")], None),
        ([bash("grep -rn hidden_name .")], "step 0 shows 'hidden_name'"),
        ([bash("cat b.py", "def hidden_name"), bash("grep -n hidden_name b.py")], None),
        ([Step("I need `hidden_name`.", Action("submit"))], "step 0 shows 'hidden_name'"),
        ([Step("x = hidden_name(1) is right", Action("submit"))], "shows 'x = hidden_name(1)'"),
    ],
    ids=["edit", "search", "was printed", "thought", "whole line"],
)
def test_the_patch_is_not_used_before_it_is_seen(steps: list[Step], leak: str | None) -> None:
    found = find_leak(Trajectory("a", tuple(steps), "It fails for x."), PATCH)
    assert found is None if leak is None else leak in (found or "")
