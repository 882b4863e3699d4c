"""The settings oracle and agentless, on a real git repository."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.errors import PolicyError, SandboxDied, SandboxError
from srl_swe.instances import load_instances
from srl_swe.rollout import Completion, PromptTooLong
from srl_swe.rollout.agentless import MAX_FILES, Agentless, last_block, nearest_path, render_tree
from srl_swe.rollout.repair import oracle_paths
from srl_swe.sandbox import ExecResult, Sandbox
from srl_swe.sandbox.base_commit import BaseCommit
from srl_swe.testing import FakeSandbox, ScriptedPolicy
from srl_swe.types import Instance, Message, StopReason
from srl_swe_envs.local import open_local_sandbox

REAL_ROWS = Path(__file__).parents[3] / "shared" / "data" / "swebench_v5"
CODE = "def total(items):\n    return sum(items) + 1\n"
GOLD = (
    "diff --git a/lib/core/sums.py b/lib/core/sums.py\n--- a/lib/core/sums.py\n"
    "+++ b/lib/core/sums.py\n@@ -1,2 +1,2 @@\n def total(items):\n"
    "-    return sum(items) + 1\n+    return sum(items)\n"
)
FILES = {
    "lib/core/sums.py": CODE,
    "lib/core/other.py": "x = 1\n",
    "lib/testing.py": "helper = 1\n",
    "tests/test_sums.py": "import lib\n",
    "setup.cfg": "[metadata]\nname = lib\n",
    "odd/latin.py": "",
}
INSTANCE = Instance("a__b-1", "a/b", "HEAD", "The total is off by one.", "image", gold_patch=GOLD)


def block(path: str, search: str, replace: str) -> str:
    edit = f"<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE"
    return f"```python\n### {path}\n{edit}\n```\n"


FIX = block("lib/core/sums.py", "    return sum(items) + 1", "    return sum(items)")
NAMED = "<think>\nthe sum\n</think>\n\n```\nlib/core/sums.py\n```\n"


def commit(sandbox: Sandbox, files: dict[str, str], workdir: str = "/testbed") -> None:
    for path, text in files.items():
        sandbox.write_file(f"{workdir}/{path}", text.encode())
    made = sandbox.exec(
        f"cd {workdir} && git init -q . && git add -A && "
        "git -c user.name=x -c user.email=x@x commit -qm base"
    )
    assert made.exit_code == 0, made.output


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A repository at its base commit, whose working tree the image's set-up has changed."""
    with open_local_sandbox() as opened:
        opened.write_file("/testbed/odd/bytes.py", b"\xff\n")
        opened.exec("cd /testbed && ln -s core/sums.py lib/link.py")
        commit(opened, FILES)
        opened.write_file("/testbed/lib/core/other.py", b"x = 2\n")
        opened.write_file("/testbed/new.py", b"")
        yield opened


def oracle(*replies: str, **options: object) -> Agentless:
    return Agentless(ScriptedPolicy(replies), oracle=True, **options)  # type: ignore[arg-type]


def agentless(*replies: str, **options: object) -> Agentless:
    return Agentless(ScriptedPolicy(replies), **options)  # type: ignore[arg-type]


def prompts(attempt: Agentless) -> list[str]:
    assert isinstance(attempt.policy, ScriptedPolicy)
    return [prompt[1]["content"] for prompt in attempt.policy.prompts]


def said(attempt: Agentless, sandbox: Sandbox) -> tuple[str, str, str | None]:
    """How it ended, what the last reply was answered, and the patch."""
    result = attempt(INSTANCE, sandbox)
    last = result.steps[-1].observation
    assert last is not None
    return str(result.stop_reason), last.text, result.patch


def test_the_oracle_shows_the_files_of_the_gold_patch_and_takes_the_edits(sandbox: Sandbox) -> None:
    attempt, replies = oracle(f"<think>\nminus one\n</think>\n\n{FIX}"), list[Completion]()
    result = attempt(INSTANCE, sandbox, replies.append)
    assert result.stop_reason is StopReason.SUBMITTED
    assert result.patch is not None
    assert result.patch.splitlines()[-3:] == GOLD.splitlines()[-3:]
    assert result.normal_form is not None
    (step,) = result.steps
    assert step.observation is not None
    assert step.observation.text == "1 of 1 edits applied."
    assert step.thought.startswith("<think>\nminus one")
    assert (step.action, step.executed) == (None, True)
    (shown,) = prompts(attempt)
    assert shown.startswith("The total is off by one.")
    assert f"### lib/core/sums.py\n```\n{CODE}```" in shown
    assert "other.py" not in shown
    assert [reply.text for reply in replies] == [step.thought]


def test_agentless_finds_the_files_in_the_tree_of_the_base_commit(sandbox: Sandbox) -> None:
    attempt = agentless(NAMED, FIX)
    result = attempt(INSTANCE, sandbox)
    tree, shown = prompts(attempt)
    assert "lib/\n    core/\n        other.py\n        sums.py\nodd/\n" in tree
    for hidden in ("test", "setup.cfg", "new.py", "link.py"):
        assert hidden not in tree.partition("Python files:")[2]
    assert f"### lib/core/sums.py\n```\n{CODE}```" in shown
    assert [step.observation and step.observation.text for step in result.steps] == [
        "Files to edit:\nlib/core/sums.py",
        "1 of 1 edits applied.",
    ]
    assert result.patch == oracle(FIX)(INSTANCE, sandbox).patch


def test_files_are_those_of_the_base_commit_not_of_the_working_tree(sandbox: Sandbox) -> None:
    attempt = agentless("```\nlib/core/other.py\n```", block("lib/core/other.py", "x = 1", "x = 3"))
    result = attempt(INSTANCE, sandbox)
    assert "### lib/core/other.py\n```\nx = 1\n```" in prompts(attempt)[1]
    assert result.patch is not None
    assert "-x = 1\n+x = 3\n" in result.patch
    assert "new.py" not in result.patch
    assert sandbox.read_file("/testbed/lib/core/other.py") == b"x = 2\n", "nothing is written"
    assert not sandbox.exec("ls -A /tmp | grep srl_swe").output


@pytest.mark.parametrize(
    ("reply", "ending"),
    [
        (f"<think>{FIX}</think>I give up.", "it held no search/replace edit"),
        (f"<think>\n{FIX}", "it did not begin with <think>...</think>"),
    ],
)
def test_only_what_follows_the_thought_is_read(reply: str, ending: str, sandbox: Sandbox) -> None:
    assert said(oracle(reply), sandbox) == (
        "format_errors",
        f"Your reply was not used: {ending}.",
        "",
    )
    assert oracle(reply)(INSTANCE, sandbox).steps[0].executed is False


def test_a_strict_policy_has_to_think_and_a_template_may_have_opened_the_thought(
    sandbox: Sandbox,
) -> None:
    assert said(oracle(FIX, strictness="strict"), sandbox)[0] == "format_errors"
    assert said(agentless("```\na.py\n```", strictness="strict"), sandbox)[0] == "format_errors"
    opened = oracle(f"so\n</think>\n{FIX}", strictness="strict", think_opened=True)
    assert said(opened, sandbox)[1] == "1 of 1 edits applied."


NO_EDIT_APPLIES = "Nothing is submitted: no edit applies."


@pytest.mark.parametrize(
    ("edits", "verdict"),
    [
        (
            block("lib/core/sums.py", "return 1", "return 2"),
            "Nothing is submitted: no edit applies.",
        ),
        (block("lib/core/other.py", "x = 1", "x = 2"), NO_EDIT_APPLIES),
        (block("../../etc/passwd", "root", "me"), NO_EDIT_APPLIES),
        (
            block("lib/core/sums.py", "def total(items):", "def total(items):\n\n"),
            "Nothing is submitted: only blank lines differ.",
        ),
        (
            block("lib/core/sums.py", "def total(items):", "def total(items:"),
            "Nothing is submitted: a file no longer parses.",
        ),
    ],
)
def test_what_post_processing_rejects_leaves_an_empty_patch_and_the_reason(
    edits: str, verdict: str, sandbox: Sandbox
) -> None:
    ended, text, patch = said(oracle(edits), sandbox)
    assert (ended, patch) == ("submitted", "")
    assert text.startswith(verdict)
    assert oracle(edits)(INSTANCE, sandbox).normal_form is None


def test_edits_that_do_not_apply_are_skipped_and_repeated_ones_count_once(sandbox: Sandbox) -> None:
    wrong = block("lib/core/sums.py", "return 7", "return 8")
    _, text, patch = said(oracle(wrong + FIX + FIX), sandbox)
    assert text.splitlines() == [
        "1 of 2 edits applied.",
        "Skipped edit 1 of lib/core/sums.py: the text to search for is not in the file.",
    ]
    assert patch == oracle(FIX)(INSTANCE, sandbox).patch


@pytest.mark.parametrize(
    ("reply", "ended", "answer"),
    [
        ("lib/core/sums.py", "format_errors", "it held no code block of paths"),
        ("```\nlib/core/sums.py", "format_errors", "it held no code block of paths"),
        ("<think>```\nlib/core/sums.py\n```", "format_errors", "did not begin with <think>"),
        ("```\nno/such.py\n```", "submitted", "No named file exists."),
        ("```\n```", "submitted", "No named file exists."),
        ("```\nodd/bytes.py\n```", "submitted", "odd/bytes.py"),
    ],
)
def test_a_reply_that_names_no_file_ends_the_attempt(
    reply: str, ended: str, answer: str, sandbox: Sandbox
) -> None:
    found = said(agentless(reply), sandbox)
    assert (found[0], found[2]) == (ended, "")
    assert answer in found[1]


def test_an_instance_whose_gold_patch_has_no_python_file_shows_its_other_files(
    sandbox: Sandbox,
) -> None:
    gold = GOLD.replace("lib/core/sums.py", "setup.cfg")
    attempt = oracle(block("setup.cfg", "name = lib", "name = sums"))
    result = attempt(replace(INSTANCE, gold_patch=gold), sandbox)
    assert "### setup.cfg\n" in prompts(attempt)[0]
    assert result.patch is not None
    assert "+name = sums\n" in result.patch


def test_a_gold_patch_that_only_adds_files_shows_nothing_and_asks_nothing(sandbox: Sandbox) -> None:
    gold = (
        "diff --git a/new.py b/new.py\nnew file mode 100644\n"
        "--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+a\n"
    )
    result = oracle()(replace(INSTANCE, gold_patch=gold), sandbox)
    assert (result.stop_reason, result.patch, result.steps) == (StopReason.SUBMITTED, "", ())
    assert result.notes == ("nothing to edit: no file that exists",)


def test_a_reply_of_half_characters_is_no_crash(sandbox: Sandbox) -> None:
    odd = block("lib/core/sums.py", "    return sum(items) + 1", "    return '\ud800'")
    assert said(oracle(odd), sandbox)[1] == "Nothing is submitted: a file no longer parses."
    instance = replace(INSTANCE, gold_patch=GOLD.replace("lib/core/sums.py", "setup.cfg"))
    odd = block("setup.cfg", "name = lib", "name = \ud800")
    assert "+name = ?\n" in str(oracle(odd)(instance, sandbox).patch)


def test_a_renamed_gold_file_is_shown_under_its_old_name() -> None:
    moved = (
        "diff --git a/old.py b/new.py\nsimilarity index 90%\nrename from old.py\n"
        "rename to new.py\n--- a/old.py\n+++ b/new.py\n@@ -1 +1 @@\n-a\n+b\n"
    )
    assert oracle_paths(moved) == ["old.py"]


class Overflowing(ScriptedPolicy):
    def reply(self, messages: Sequence[Message]) -> Completion:
        if len(self.prompts) == 1:
            raise PromptTooLong("full")
        return super().reply(messages)


def test_a_prompt_over_the_context_is_the_token_limit(sandbox: Sandbox) -> None:
    for budget in (1, 700):
        result = agentless(NAMED, token_budget=budget)(INSTANCE, sandbox)
        assert (result.stop_reason, result.patch) == (StopReason.TOKEN_LIMIT, "")
        assert f"over {budget} tokens" in result.notes[0]
    result = Agentless(Overflowing([NAMED]))(INSTANCE, sandbox)
    assert (result.stop_reason, result.patch, len(result.steps)) == (StopReason.TOKEN_LIMIT, "", 1)


def test_long_files_are_cut_to_the_budget_but_edited_whole(sandbox: Sandbox) -> None:
    long = {"lib/long.py": "".join(f"line_{n} = {n}\n" for n in range(2000))}
    edit = block("lib/long.py", "line_1999 = 1999", "line_1999 = 0")
    with open_local_sandbox() as opened:
        commit(opened, long)
        attempt = agentless("```\nlong.py\n```", edit, token_budget=5000)
        result = attempt(INSTANCE, opened)
    assert "(the rest of the file is left out)" in prompts(attempt)[1]
    assert len(prompts(attempt)[1]) < 5000
    assert result.patch is not None
    assert "+line_1999 = 0\n" in result.patch


class Failing(ScriptedPolicy):
    def reply(self, messages: Sequence[Message]) -> Completion:
        raise PolicyError("no answer")


def die(command: str) -> ExecResult:
    raise SandboxDied("gone")


@pytest.mark.parametrize(
    ("policy", "where", "reason"),
    [
        (Failing([]), None, StopReason.POLICY_ERROR),
        (ScriptedPolicy([]), FakeSandbox(answer=die), StopReason.SANDBOX_ERROR),
        (
            ScriptedPolicy([]),
            FakeSandbox(answer=lambda _: ExecResult("fatal: no repository", 128)),
            StopReason.SANDBOX_ERROR,
        ),
    ],
)
def test_a_failure_of_infrastructure_is_recorded_and_gives_no_patch(
    policy: ScriptedPolicy, where: Sandbox | None, reason: StopReason, sandbox: Sandbox
) -> None:
    result = Agentless(policy)(INSTANCE, where or sandbox)
    assert (result.stop_reason, result.patch) == (reason, None)


def test_an_image_without_the_gold_file_is_a_broken_sandbox(sandbox: Sandbox) -> None:
    gold = GOLD.replace("lib/core/sums.py", "lib/gone.py")
    result = oracle()(replace(INSTANCE, gold_patch=gold), sandbox)
    assert result.stop_reason is StopReason.SANDBOX_ERROR
    assert result.steps[-1].observation is not None
    assert "has no lib/gone.py" in result.steps[-1].observation.text


def test_a_commit_that_does_not_exist_is_a_broken_sandbox(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="base commit can't be read"):
        BaseCommit.open(sandbox, "f" * 40, "/testbed")


KNOWN = ["a/b/models.py", "a/b/views.py", "c/models.py", "core/handlers/base.py", "base.py"]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("a/b/views.py", "a/b/views.py"),
        ("1. `a/b/views.py` (the view)", "a/b/views.py"),
        ("- ./a/b/views.py", "a/b/views.py"),
        ("/testbed/a/b/views.py", "a/b/views.py"),
        ("b/views.py", "a/b/views.py"),
        ("views.py", "a/b/views.py"),
        ("base.py", "base.py"),
        ("other/base.py", None),
        ("/testbed/core/handlers/base.py", "core/handlers/base.py"),
        ("core/handler/base.py", "core/handlers/base.py"),
        ("core/handlerz/bas.py", "core/handlers/base.py"),
        ("models.py", None),
        ("a/b/nothing.txt", None),
        ("x" * 100_000 + ".py", None),
        ("", None),
    ],
)
def test_near_misses_are_repaired_to_paths_that_exist(line: str, path: str | None) -> None:
    assert nearest_path(line, KNOWN) == path


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        ("```\na.py\n```", ["a.py"]),
        ("```\na.py\n```\nor rather\n```text\nb.py\n\nc.py\n```\nbye", ["b.py", "c.py"]),
        ("```\na.py\n```\n```\nb.py", ["a.py"]),
        ("a.py", None),
        ("```\n" * 99_999, []),
    ],
)
def test_paths_are_the_lines_of_the_last_block(answer: str, lines: list[str] | None) -> None:
    assert last_block(answer) == lines


def test_the_tree_names_each_folder_once() -> None:
    paths = [f"a/{n}/{m}.py" for n in range(3) for m in range(2)]
    assert render_tree(paths).count("\n") == 1 + 3 + 6


class FakeGit:
    """A fake repository: answers ``ls-tree`` and ``cat-file`` as git does, without a process."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        ids = {path: hashlib.sha1(path.encode()).hexdigest() for path in files}
        self._blobs = {ids[path]: data for path, data in files.items()}
        self._tree = "".join(f"100644 blob {id}\t{path}\0" for path, id in ids.items()).encode()

    def open(self) -> FakeSandbox:
        def answer(command: str) -> ExecResult:
            words = shlex.split(command)
            if "ls-tree" in command:
                opened.write_file(f"{words[-3]}/tree", self._tree)
            elif "cat-file" in command:
                asked = opened.read_file(f"{words[-2]}/ids").decode().split()
                opened.write_file(f"{words[-2]}/blobs", b"".join(map(self._blob, asked)))
            return ExecResult("", 0)

        opened = FakeSandbox(answer)
        return opened

    def _blob(self, id: str) -> bytes:
        return f"{id} blob {len(self._blobs[id])}\n".encode() + self._blobs[id] + b"\n"


@pytest.mark.slow
@pytest.mark.skipif(not REAL_ROWS.is_dir(), reason="the rows of SWE-bench are not here")
def test_both_settings_reach_their_prompts_on_every_row_of_verified() -> None:
    rows = load_instances(str(REAL_ROWS / "SWE-bench_Verified"))
    gold = {row.instance_id: oracle_paths(row.gold_patch) for row in rows}
    counts = [len(paths) for paths in gold.values()]
    assert (len(rows), min(counts), sum(count > 1 for count in counts)) == (500, 1, 70)
    assert sum(row.gold_patch.count("\ndiff --git ") > 0 for row in rows) == 71
    files = {path: f"# {path}\n".encode() for paths in gold.values() for path in paths}
    git = FakeGit(files)
    for row in rows:
        repository, paths = git.open(), gold[row.instance_id]
        attempt = oracle("no edit")
        assert attempt(row, repository).stop_reason is StopReason.FORMAT_ERRORS
        (shown,) = prompts(attempt)
        assert shown.startswith(row.problem_statement.strip())
        assert shown.endswith("\n\n".join(f"### {path}\n```\n# {path}\n```" for path in paths))

        attempt = agentless(
            "\n".join(["```", *(f"/testbed/{path}" for path in paths), "```"]), "no"
        )
        result = attempt(row, repository)
        tree, _ = prompts(attempt)
        assert all(f"    {Path(path).name}\n" in tree for path in paths)
        assert result.steps[0].observation is not None
        assert result.steps[0].observation.text.splitlines()[1:] == paths[:MAX_FILES]
