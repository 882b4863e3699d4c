"""RLVR in one turn: a reply of search/replace edits or a worked solution, which is verified.

The prompt for edits holds the issue and the files to change (oracle setting);
:mod:`srl_swe.rollout.repair` writes it and reads the edits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from srl_swe.dialects import ReplyFormat
from srl_swe.errors import UserError
from srl_swe.parallel import run_parallel
from srl_swe.rewards.outcome import TestReward
from srl_swe.rollout.agentless import oracle_blobs, texts_of
from srl_swe.rollout.repair import read_repair, repair_messages
from srl_swe.rollout.tokens import TokenCounter, decode_reply
from srl_swe.sandbox import OpenSandbox, Sandbox
from srl_swe.sandbox.base_commit import BaseCommit
from srl_swe.steps.prompt import OverBudget
from srl_swe.training.stats import NO_ANSWER, Tested
from srl_swe.types import Instance, Message, Verdict


@dataclass(frozen=True, slots=True)
class PatchTask:
    """An instance, and the text of its prompt's files by path."""

    instance: Instance
    files: Mapping[str, str]


def oracle_files(instance: Instance, sandbox: Sandbox) -> dict[str, str]:
    """The text of the oracle's files at the base commit, by path. Raises SandboxError.

    As in evaluations (:mod:`srl_swe.rollout.agentless`), files that are not UTF-8 are left out.
    """
    base = BaseCommit.open(sandbox, instance.base_commit, instance.workdir)
    return texts_of(oracle_blobs(instance, base))


def load_tasks(
    instances: Sequence[Instance], open_sandbox: OpenSandbox, workers: int
) -> dict[str, PatchTask]:
    """The tasks by instance id, their files read in a sandbox each.

    Raises UserError for an instance without a gold patch, as the oracle knows no files then, or
    whose gold patch changes no text that was there.
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
        if not files:
            raise UserError(
                f"{instance.instance_id}: its gold patch changes no text file that was there; "
                "leave it out of the bench."
            )
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
    count, rows = TokenCounter(tokenizer, template_kwargs), []
    for name, task in tasks.items():
        issue = task.instance.problem_statement
        try:
            prompt = repair_messages(issue, task.files, token_budget, count)
        except OverBudget as error:
            raise UserError(f"{name}: {error}; leave it out of the bench.") from None
        rows.append({"prompt": prompt, "instance_id": name})
    return Dataset.from_list(rows)


Verify = Callable[[Instance, str], Verdict]
"""Verifies the answer to an instance: a patch, or the text of an answer."""


ReadReply = Callable[[str, str], tuple[Instance, str, str]]
"""From an instance's id and a reply: the instance, the answer, and ``ok`` or the fault."""


def read_patches(tasks: Mapping[str, PatchTask], form: ReplyFormat) -> ReadReply:
    """Reads the patch that a reply's edits make, by the form's strictness and opening."""

    def read(name: str, text: str) -> tuple[Instance, str, str]:
        task = tasks[name]
        repair = read_repair(text, task.files, form.strictness, think_opened=form.think_opened)
        return task.instance, repair.patch, repair.fault.value if repair.fault else "ok"

    return read


def read_answers(
    problems: Sequence[Instance], read_answer: Callable[[str], str | None]
) -> ReadReply:
    """Reads the answer that a reply ends in; ``read_answer`` gives None for a reply without one."""
    by_id = {problem.instance_id: problem for problem in problems}

    def read(name: str, text: str) -> tuple[Instance, str, str]:
        answer = read_answer(text)
        return by_id[name], answer or "", NO_ANSWER if answer is None else "ok"

    return read


@dataclass
class OneReplyReward:
    """A reward function for GRPOTrainer that verifies replies, ``workers`` at once.

    Threads suffice: TRL waits for the whole batch of an ``async`` reward too.
    """

    __name__ = "tests"

    read: ReadReply
    run_tests: Verify
    tokenizer: PreTrainedTokenizerBase
    reward: TestReward
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
        with ThreadPoolExecutor(self.workers) as pool:
            replies = [decode_reply(self.tokenizer, ids, self.end_ids) for ids in completion_ids]
            tested = list(pool.map(self._test, instance_id, replies))
        self.tested += tested
        log_extra("outcome", [result.outcome.value for result in tested])
        log_extra("ended", [result.ended for result in tested])
        log_extra("detail", [result.detail for result in tested])
        return [result.reward for result in tested]

    def _test(self, name: str, reply: tuple[str, bool]) -> Tested:
        """The verdict on a reply, given as its text and whether the policy ended it."""
        instance, answer, ended = self.read(name, reply[0])
        verdict = self.run_tests(instance, answer)
        return Tested(
            instance_id=name,
            reward=self.reward(instance, verdict),
            outcome=verdict.outcome,
            ended=ended,
            truncated=not reply[1],
            detail=verdict.detail,
        )


def answer_dataset(
    problems: Sequence[Instance],
    prompt_of: Callable[[Instance], Sequence[Message]],
    tokenizer: PreTrainedTokenizerBase,
    token_budget: int | None,
    template_kwargs: Mapping[str, Any],
) -> Dataset:
    """One row per problem: ``prompt`` and ``instance_id``. Raises UserError if one can't fit."""
    count, rows = TokenCounter(tokenizer, template_kwargs), []
    for problem in problems:
        name, prompt = problem.instance_id, list(prompt_of(problem))
        if token_budget is not None and (tokens := count(prompt)) > token_budget:
            raise UserError(
                f"{name}: its prompt takes {tokens} tokens of {token_budget}; leave it out of the "
                "bench."
            )
        rows.append({"prompt": prompt, "instance_id": name})
    return Dataset.from_list(rows)
