"""RLVR in one turn: a reply of search/replace edits, and the tests as its reward."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from srl_swe.context_window import OverBudget
from srl_swe.dialects import Strictness
from srl_swe.errors import UserError
from srl_swe.evaluation.judge import Judge
from srl_swe.parallel import run_parallel
from srl_swe.rewards.outcome import TestReward
from srl_swe.rollout.repair_prompt import oracle_files, repair_messages
from srl_swe.rollout.replies import decode_reply
from srl_swe.rollout.search_replace import read_repair
from srl_swe.sandbox import OpenSandbox
from srl_swe.training.rlvr.outcome_stats import Tested
from srl_swe.types import Instance


@dataclass(frozen=True, slots=True)
class PatchTask:
    """An instance with the text of the files that its prompt shows, by path."""

    instance: Instance
    files: Mapping[str, str]


def load_tasks(
    instances: Sequence[Instance], open_sandbox: OpenSandbox, workers: int
) -> dict[str, PatchTask]:
    """The tasks by instance id, their files read in a sandbox each.

    Raises UserError for an instance without a gold patch, as the oracle knows no files then.
    """
    without = [one.instance_id for one in instances if not one.gold_patch]
    if without:
        raise UserError(
            f"{without[0]} has no gold patch, which names the files that `setting: patch` shows; "
            "use `setting: episode`."
        )
    tasks: dict[str, PatchTask] = {}

    def read(instance: Instance) -> dict[str, str]:
        with open_sandbox(instance) as sandbox:
            return oracle_files(instance, sandbox)

    def keep(instance: Instance, files: dict[str, str]) -> None:
        tasks[instance.instance_id] = PatchTask(instance, files)

    run_parallel(read, instances, keep, workers=workers)
    return {one.instance_id: tasks[one.instance_id] for one in instances}


def patch_dataset(
    tasks: Mapping[str, PatchTask],
    tokenizer: PreTrainedTokenizerBase,
    token_budget: int | None,
    template_kwargs: Mapping[str, Any],
) -> Dataset:
    """A row an instance: ``prompt`` and ``instance_id``. Raises UserError where one can't fit."""

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


class PatchReward:
    """A reward function for GRPOTrainer that has patches judged, ``workers`` at once.

    Threads do for it what ``async`` would: TRL waits for all of a batch in either case.
    """

    __name__ = "tests"

    def __init__(
        self,
        tasks: Mapping[str, PatchTask],
        judge: Judge,
        tokenizer: PreTrainedTokenizerBase,
        reward: TestReward,
        *,
        workers: int,
        strictness: Strictness = "strict",
        think_opened: bool = False,
        end_ids: Collection[int] = (),
    ) -> None:
        """``end_ids``: what ends a reply; without them any special token does."""
        self._tasks = tasks
        self._judge = judge
        self._tokenizer = tokenizer
        self._reward = reward
        self._workers = workers
        self._strictness: Strictness = strictness
        self._think_opened = think_opened
        self._end_ids = end_ids
        self._tested: list[Tested] = []

    def __call__(
        self,
        *,
        completion_ids: Sequence[Sequence[int]],
        instance_id: Sequence[str],
        log_extra: Callable[[str, list[Any]], None],
        **_: Any,
    ) -> list[float | None]:
        """One reward a completion; None where its sandbox broke."""
        replies = [decode_reply(self._tokenizer, ids, self._end_ids) for ids in completion_ids]
        with ThreadPoolExecutor(self._workers) as pool:
            tested = list(pool.map(self._test, instance_id, replies))
        self._tested += tested
        log_extra("outcome", [one.outcome.value for one in tested])
        log_extra("ended", [one.ended for one in tested])
        log_extra("detail", [one.detail for one in tested])
        return [one.reward for one in tested]

    def drain(self) -> list[Tested]:
        """This rank's replies since the last call."""
        tested, self._tested = self._tested, []
        return tested

    def _test(self, name: str, reply: tuple[str, bool]) -> Tested:
        task, (text, ended) = self._tasks[name], reply
        repair = read_repair(text, task.files, self._strictness, think_opened=self._think_opened)
        verdict = self._judge(task.instance, repair.patch)
        return Tested(
            instance_id=name,
            reward=self._reward(task.instance, verdict),
            outcome=verdict.outcome,
            ended=repair.fault.value if repair.fault else "ok",
            truncated=not ended,
            detail=verdict.detail,
        )
