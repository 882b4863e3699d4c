"""RLVR in one turn: a reply of search/replace edits, and the tests as its reward.

The edits have the form of SWE-RL's Agentless-mini (``prompts/search_replace.md``). The prompt holds
the issue and the files to change (oracle setting). Edits inside the thought are ignored;
Agentless-mini reads the whole output. An edit that breaks the syntax of a file or changes only
blank lines submits nothing (the post-processing of Agentless-mini, which the paper's evaluation
uses).
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources
from typing import Any

from cydifflib import unified_diff
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from unidiff.patch import PatchSet

from srl_swe.dialects import FormatReason, ReplyFormat, Strictness
from srl_swe.dialects.reply import split_thought, thought_fault
from srl_swe.errors import SandboxError, UserError
from srl_swe.evaluation.sandbox_tests import CachedTestRunner
from srl_swe.parallel import run_parallel
from srl_swe.rewards.outcome import TestReward
from srl_swe.rollout.replies import decode_reply
from srl_swe.sandbox import OpenSandbox, Sandbox
from srl_swe.steps.prompt import CountTokens, OverBudget
from srl_swe.training.stats import Tested
from srl_swe.types import Instance, Message

_PATH, _SEARCH, _DIVIDE, _REPLACE = "### ", "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"


class EditFault(StrEnum):
    """Why a reply submits nothing; the values are names in training logs."""

    NO_THINK = "no_think"
    EMPTY_THOUGHT = "empty_thought"
    NO_EDIT = "no_edit"
    UNKNOWN_FILE = "unknown_file"
    NOT_FOUND = "not_found"
    """The text to search for is not in the file, or is empty."""
    NO_CHANGE = "no_change"
    """Only blank lines differ."""
    BROKEN_SYNTAX = "broken_syntax"


@dataclass(frozen=True, slots=True)
class Edit:
    """Replaces every occurrence of ``search`` that begins at the start of a line."""

    path: str
    search: str
    replace: str


@dataclass(frozen=True, slots=True)
class Repair:
    """The result of a reply. ``patch`` is a git diff, and empty exactly if there is a fault."""

    patch: str
    fault: EditFault | None = None


def read_repair(
    reply: str,
    files: Mapping[str, str],
    strictness: Strictness = "strict",
    *,
    think_opened: bool = False,
) -> Repair:
    """The patch of a reply's edits to ``files``, by path. Never raises.

    ``strict`` requires a non-empty thought. ``think_opened``: the generation prompt ends with
    ``<think>``, so the reply omits the tag.
    """
    thought, rest = split_thought(reply, think_opened=think_opened)
    unclosed = thought is None and rest.lstrip().startswith("<think>")
    reason = FormatReason.NO_THINK if unclosed else thought_fault(thought, strictness)
    return Repair("", EditFault(reason)) if reason else make_patch(parse_edits(rest), files)


def parse_edits(text: str) -> list[Edit]:
    r"""The edits in a text, in order; other text is ignored. Takes linear time for any reply.

    >>> parse_edits("### a.py\n<<<<<<< SEARCH\nx = 1\n=======\nx = 2\n>>>>>>> REPLACE\n")
    [Edit(path='a.py', search='x = 1', replace='x = 2')]
    """
    edits: list[Edit] = []
    path, before = "", ""
    search: list[str] = []
    replace: list[str] | None = None
    for line in text.split("\n"):
        mark = line.rstrip()
        if mark == _SEARCH:
            path = before.removeprefix(_PATH).strip() if before.startswith(_PATH) else ""
            search, replace = [], None
        elif path and mark == _REPLACE and replace is not None:
            edits.append(Edit(path, "\n".join(search), "\n".join(replace)))
            path = ""
        elif mark == _DIVIDE and replace is None:
            replace = []
        else:
            (search if replace is None else replace).append(line)
        before = line
    return edits


def make_patch(edits: Sequence[Edit], files: Mapping[str, str]) -> Repair:
    """The diff of the edits; all of them apply, or none."""
    if not edits:
        return Repair("", EditFault.NO_EDIT)
    changed: dict[str, str] = {}
    for edit in edits:
        if edit.path not in files:
            return Repair("", EditFault.UNKNOWN_FILE)
        before = "\n" + changed.get(edit.path, files[edit.path])
        if not edit.search or f"\n{edit.search}" not in before:
            return Repair("", EditFault.NOT_FOUND)
        replacement = f"\n{edit.replace}" if edit.replace else ""
        changed[edit.path] = before.replace(f"\n{edit.search}", replacement).removeprefix("\n")
    if all(_without_blanks(files[path]) == _without_blanks(changed[path]) for path in changed):
        return Repair("", EditFault.NO_CHANGE)
    for path, after in changed.items():
        if path.endswith(".py") and not _parses(after) and _parses(files[path]):
            return Repair("", EditFault.BROKEN_SYNTAX)
    return Repair("".join(render_diff(path, files[path], after) for path, after in changed.items()))


def render_diff(path: str, before: str, after: str) -> str:
    """One file's change as ``git diff`` writes it; empty if nothing differs."""
    changes = unified_diff(_lines(before), _lines(after), f"a/{path}", f"b/{path}", lineterm="")
    lines = list(changes)
    return "\n".join([f"diff --git a/{path} b/{path}", *lines, ""]) if lines else ""


def _lines(text: str) -> list[str]:
    """Lines without their ends; a last line without a newline is followed by git's note of it."""
    lines = text.split("\n")
    last = lines.pop()
    return [*lines, f"{last}\n\\ No newline at end of file"] if last else lines


def _without_blanks(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _parses(text: str) -> bool:
    """Whether this Python parses the text; a file that it never could is not checked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as invalid escapes
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


SYSTEM_PROMPT = resources.files("srl_swe").joinpath("prompts/search_replace.md").read_text("utf-8")
_CUT = "(the rest of the file is left out)"
_SHORTEST_CHARS = 200


def oracle_paths(gold_patch: str) -> list[str]:
    """The files that the gold patch changes: its ``.py`` files, or all if it has none.

    Files that it adds are left out.
    """
    changed = [file.path for file in PatchSet(gold_patch) if not file.is_added_file]
    return [path for path in changed if path.endswith(".py")] or changed


def oracle_files(instance: Instance, sandbox: Sandbox) -> dict[str, str]:
    """The text of those files at the base commit, by path. Raises SandboxError.

    Files that are not UTF-8 are left out.
    """
    files: dict[str, str] = {}
    for path in oracle_paths(instance.gold_patch):
        try:
            files[path] = sandbox.read_file(f"{instance.workdir}/{path}").decode("utf-8")
        except FileNotFoundError as error:
            raise SandboxError(f"{instance.instance_id}: its image has no {path}") from error
        except (OSError, UnicodeDecodeError):
            continue
    return files


def repair_messages(
    issue: str,
    files: Mapping[str, str],
    token_budget: int | None = None,
    count_tokens: CountTokens | None = None,
) -> list[Message]:
    """The issue and each whole file; if the budget is too small, the longest are cut at the end.

    Raises OverBudget if it can't be met, ValueError if it comes without ``count_tokens``.
    """
    if token_budget is not None and count_tokens is None:
        raise ValueError("a token budget needs count_tokens")
    longest = max(map(len, files.values()), default=0)
    while True:
        shown = [f"### {path}\n```\n{_cut(text, longest)}```" for path, text in files.items()]
        messages: list[Message] = [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": "\n\n".join([issue.strip(), "The files:", *shown])},
        ]
        if token_budget is None or count_tokens is None or count_tokens(messages) <= token_budget:
            return messages
        if longest <= _SHORTEST_CHARS:
            raise OverBudget(
                f"the issue and the beginnings of its files are over {token_budget} tokens"
            )
        longest = longest * 4 // 5


def _cut(text: str, chars: int) -> str:
    """Cuts between lines: every line shown is a line of the file."""
    if len(text) <= chars:
        return text
    return f"{text[: text.rfind(chr(10), 0, chars) + 1]}{_CUT}\n"


@dataclass(frozen=True, slots=True)
class PatchTask:
    """An instance, and the text of its prompt's files by path."""

    instance: Instance
    files: Mapping[str, str]


def load_tasks(
    instances: Sequence[Instance], open_sandbox: OpenSandbox, workers: int
) -> dict[str, PatchTask]:
    """The tasks by instance id, their files read in a sandbox each.

    Raises UserError for an instance without a gold patch, as the oracle knows no files then.
    """
    for instance in instances:
        if not instance.gold_patch:
            raise UserError(
                f"{instance.instance_id} has no gold patch, which names the files that `setting: "
                "patch` shows; use `setting: episode`."
            )
    tasks: dict[str, PatchTask] = {}

    def read(instance: Instance) -> dict[str, str]:
        with open_sandbox(instance) as sandbox:
            return oracle_files(instance, sandbox)

    def keep(instance: Instance, files: dict[str, str]) -> None:
        tasks[instance.instance_id] = PatchTask(instance, files)

    run_parallel(read, instances, keep, workers=workers)
    return {instance.instance_id: tasks[instance.instance_id] for instance in instances}


def patch_dataset(
    tasks: Mapping[str, PatchTask],
    tokenizer: PreTrainedTokenizerBase,
    token_budget: int | None,
    template_kwargs: Mapping[str, Any],
) -> Dataset:
    """One row per instance: ``prompt`` and ``instance_id``. Raises UserError if one can't fit."""

    def count(messages: Sequence[Any]) -> int:
        ids: Any = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_dict=False, **template_kwargs
        )
        return len(ids)

    rows = []
    for name, task in tasks.items():
        issue = task.instance.problem_statement
        try:
            prompt = repair_messages(issue, task.files, token_budget, count)
        except OverBudget as error:
            raise UserError(f"{name}: {error}; leave it out of the bench.") from None
        rows.append({"prompt": prompt, "instance_id": name})
    return Dataset.from_list(rows)


@dataclass
class PatchReward:
    """A reward function for GRPOTrainer that tests patches, ``workers`` at once.

    Threads suffice: TRL waits for the whole batch of an ``async`` reward too.
    """

    __name__ = "tests"

    tasks: Mapping[str, PatchTask]
    run_tests: CachedTestRunner
    tokenizer: PreTrainedTokenizerBase
    reward: TestReward
    form: ReplyFormat
    """Its strictness and its opening of the thought are used."""
    end_ids: Collection[int]
    """The tokens that end a reply; if empty, any special token does."""
    workers: int
    tested: list[Tested] = field(default_factory=list)
    """This rank's replies; emptied by the trainer when it logs them."""

    def __call__(
        self,
        *,
        completion_ids: Sequence[Sequence[int]],
        instance_id: Sequence[str],
        log_extra: Callable[[str, list[Any]], None],
        **_: Any,
    ) -> list[float | None]:
        """One reward per completion; None if its sandbox broke."""
        replies = [decode_reply(self.tokenizer, ids, self.end_ids) for ids in completion_ids]
        with ThreadPoolExecutor(self.workers) as pool:
            tested = list(pool.map(self._test, instance_id, replies))
        self.tested += tested
        log_extra("outcome", [result.outcome.value for result in tested])
        log_extra("ended", [result.ended for result in tested])
        log_extra("detail", [result.detail for result in tested])
        return [result.reward for result in tested]

    def _test(self, name: str, reply: tuple[str, bool]) -> Tested:
        task, (text, ended), form = self.tasks[name], reply, self.form
        repair = read_repair(text, task.files, form.strictness, think_opened=form.think_opened)
        verdict = self.run_tests(task.instance, repair.patch)
        return Tested(
            instance_id=name,
            reward=self.reward(task.instance, verdict),
            outcome=verdict.outcome,
            ended=repair.fault.value if repair.fault else "ok",
            truncated=not ended,
            detail=verdict.detail,
        )
