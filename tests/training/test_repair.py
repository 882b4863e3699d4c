from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="needs the extra `train`")

from srl_swe.errors import SandboxError
from srl_swe.instances import load_instances
from srl_swe.rollout.repair import (
    Edit,
    EditFault,
    make_patch,
    oracle_paths,
    parse_edits,
    read_repair,
    render_diff,
    repair_messages,
)
from srl_swe.steps.prompt import OverBudget
from srl_swe.training.rlvr_patch import oracle_files
from srl_swe.types import Message
from srl_swe_envs.local import open_local_sandbox

FILES = {"pkg/a.py": "import os\n\n\ndef f():\n    return 1\n", "b.txt": "one\ntwo"}


def block(path: str, search: str, replace: str) -> str:
    body = f"<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE"
    return f"```python\n### {path}\n{body}\n```\n"


FIX = block("pkg/a.py", "    return 1", "    return 2")
THOUGHT = "<think>\nit must be 2\n</think>\n\n"


def test_a_reply_with_a_thought_and_an_edit_becomes_a_diff() -> None:
    repair = read_repair(THOUGHT + FIX, FILES)
    assert repair.fault is None
    assert repair.patch == (
        "diff --git a/pkg/a.py b/pkg/a.py\n--- a/pkg/a.py\n+++ b/pkg/a.py\n@@ -2,4 +2,4 @@\n"
        " \n \n def f():\n-    return 1\n+    return 2\n"
    )


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (FIX, EditFault.NO_THINK),
        (f"<think>\n{FIX}", EditFault.NO_THINK),
        (f"<think> </think>{FIX}", EditFault.EMPTY_THOUGHT),
        (f"<think>{FIX}</think>I would rather not.", EditFault.NO_EDIT),
        (THOUGHT + block("c.py", "a", "b"), EditFault.UNKNOWN_FILE),
        (THOUGHT + block("../pkg/a.py", "import os", "b"), EditFault.UNKNOWN_FILE),
        (THOUGHT + block("pkg/a.py", "return 1", "return 2"), EditFault.NOT_FOUND),
        (THOUGHT + block("pkg/a.py", "", "x = 1"), EditFault.NOT_FOUND),
        (THOUGHT + block("pkg/a.py", "    return 1", "    return 1"), EditFault.NO_CHANGE),
        (THOUGHT + block("pkg/a.py", "import os", "import os\n\n"), EditFault.NO_CHANGE),
        (THOUGHT + block("pkg/a.py", "def f():", "def f(:"), EditFault.BROKEN_SYNTAX),
        (THOUGHT + FIX + block("pkg/a.py", "gone", "x"), EditFault.NOT_FOUND),
    ],
)
def test_what_can_not_be_used_hands_in_nothing_and_says_why(reply: str, fault: EditFault) -> None:
    repair = read_repair(reply, FILES)
    assert (repair.patch, repair.fault) == ("", fault)


def test_lenient_takes_a_reply_without_a_thought_but_never_reads_an_open_one() -> None:
    assert read_repair(FIX, FILES, "lenient").patch
    assert read_repair(f"<think>{FIX}", FILES, "lenient").fault is EditFault.NO_THINK


def test_a_template_that_opens_the_thought_leaves_only_its_end_in_the_reply() -> None:
    assert read_repair(f"it must be 2\n</think>\n{FIX}", FILES, think_opened=True).patch
    assert read_repair(FIX, FILES, think_opened=True).fault is EditFault.NO_THINK


def test_several_edits_are_applied_one_after_the_other() -> None:
    text = block("pkg/a.py", "    return 1", "    return 2") + block(
        "pkg/a.py", "def f():\n    return 2", "def g():\n    return 3"
    )
    patch = make_patch(parse_edits(text), FILES).patch
    assert "+def g():\n+    return 3\n" in patch


def test_an_empty_replacement_deletes_the_lines() -> None:
    edits = parse_edits("### b.txt\n<<<<<<< SEARCH\none\n=======\n>>>>>>> REPLACE")
    assert edits == [Edit("b.txt", "one", "")]
    assert "-one\n two\n\\ No newline at end of file\n" in make_patch(edits, FILES).patch


def test_a_file_that_was_broken_before_may_stay_so() -> None:
    files = {"old.py": "print 'python 2'\nx = 1\n"}
    assert make_patch([Edit("old.py", "x = 1", "x = 2")], files).patch


@pytest.mark.parametrize("endless", ["### pkg/a.py\n<<<<<<< SEARCH\n=======\n", "=======\n"])
def test_a_reply_that_never_ends_a_block_is_read_in_no_time(endless: str) -> None:
    reply = THOUGHT + "### pkg/a.py\n<<<<<<< SEARCH\n" + endless * 20_000
    assert read_repair(reply, FILES).fault is EditFault.NO_EDIT


def test_an_edit_without_its_path_is_none_and_a_divider_in_the_replacement_is_text() -> None:
    assert parse_edits(FIX.replace("### pkg/a.py\n", "")) == []
    (edit,) = parse_edits(block("b.txt", "one", "one\n=======\nthree"))
    assert edit == Edit("b.txt", "one", "one\n=======\nthree")


LINES = st.lists(st.sampled_from(["a", "b", "", "  c", "-- d", "++ e", "\\"]), max_size=8)
TEXTS = st.builds(lambda lines, end: "\n".join(lines) + end, LINES, st.sampled_from(["", "\n"]))


@settings(max_examples=40)
@given(before=TEXTS, after=TEXTS)
def test_git_applies_the_diff_and_gets_the_text_that_was_meant(
    tmp_path_factory: pytest.TempPathFactory, before: str, after: str
) -> None:
    if not before or not after:  # a file that appears or goes is no edit
        return
    folder: Path = tmp_path_factory.mktemp("git")
    (folder / "f.txt").write_text(before, newline="")
    patch = render_diff("f.txt", before, after)
    if patch:
        subprocess.run(
            ["git", "apply", "--whitespace=nowarn", "-"],
            cwd=folder, input=patch.encode(), check=True, capture_output=True,
        )  # fmt: skip
    assert (folder / "f.txt").read_bytes().decode() == after


ADDED = "diff --git a/new.py b/new.py\nnew file mode 100644\n--- /dev/null\n+++ b/new.py\n"
PATCH = (
    f"{ADDED}@@ -0,0 +1 @@\n+x\n"
    "diff --git a/old.py b/old.py\n--- a/old.py\n+++ b/old.py\n@@ -1 +1 @@\n--- a/trap.py\n+b\n"
    "diff --git a/doc.md b/doc.md\n--- a/doc.md\n+++ b/doc.md\n@@ -1 +1 @@\n-a\n+b\n"
)


def count(messages: Sequence[Message]) -> int:
    return sum(len(message["content"]) for message in messages)


def test_the_oracle_shows_the_python_files_that_the_gold_patch_changes() -> None:
    assert oracle_paths(PATCH) == ["old.py"]
    assert oracle_paths(PATCH[PATCH.index("diff --git a/doc.md") :]) == ["doc.md"]


def test_every_bundled_instance_shows_its_file_as_it_is_at_the_base_commit() -> None:
    for instance in load_instances("starter"):
        with open_local_sandbox(instance) as sandbox:
            files = oracle_files(instance, sandbox)
        assert list(files) == oracle_paths(instance.gold_patch)
        messages = repair_messages(instance.problem_statement, files)
        assert all(text in messages[1]["content"] for text in files.values())
        assert instance.problem_statement.strip() in messages[1]["content"]


def test_an_image_without_the_file_is_no_policys_fault() -> None:
    (instance,) = load_instances("starter", ids=["starter__inikit-1"])
    other = replace(instance, gold_patch=PATCH)
    with open_local_sandbox(instance) as sandbox, pytest.raises(SandboxError, match="has no old"):
        oracle_files(other, sandbox)


def test_a_small_budget_cuts_the_longest_files_at_the_end_and_never_the_issue() -> None:
    files = {"long.py": "x = 1\n" * 1_000, "short.py": "y = 2\n"}
    whole = repair_messages("It is broken.", files)
    assert repair_messages("It is broken.", files, count(whole), count) == whole
    cut = repair_messages("It is broken.", files, 3_000, count)
    assert count(cut) <= 3_000
    assert "It is broken." in cut[1]["content"]
    assert "y = 2" in cut[1]["content"]
    assert "x = 1\n(the rest of the file is left out)\n" in cut[1]["content"]
    with pytest.raises(OverBudget):
        repair_messages("It is broken.", files, 100, count)
    with pytest.raises(ValueError, match="count_tokens"):
        repair_messages("It is broken.", files, 100)
