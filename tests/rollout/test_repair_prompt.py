from __future__ import annotations

from collections.abc import Sequence

import pytest

pytest.importorskip("transformers", reason="needs the extra `train`")

from srl_swe.errors import SandboxError
from srl_swe.instances import load_instances
from srl_swe.steps.prompt import OverBudget
from srl_swe.testing import FakeSandbox
from srl_swe.training.rlvr_patch import oracle_files, oracle_paths, repair_messages
from srl_swe.types import Message
from srl_swe_envs.local import open_local_sandbox

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
    with pytest.raises(SandboxError, match=r"reader\.py"):
        oracle_files(instance, FakeSandbox())


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
