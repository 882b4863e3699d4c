"""Measures a policy on made problems: greedy and sampled solutions, and solutions step by step.

Answers are whole numbers, and are compared as texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from srl_swe.domains import MATH, Problem
from srl_swe.domains.worked import same_text, step_prompt
from srl_swe.experiments.maths_plan import LevelScore, MathsPlan
from srl_swe.rollout.local_policy import LocalModel, Sampling
from srl_swe.steps.contexts import StepContext
from srl_swe.training.data import load_tokenizer
from srl_swe.training.generate import batches_by_length
from srl_swe.types import Message

_MOST_STEPS = 12
_REPLIES_AT_ONCE = 512


class MathsPolicy:
    """A policy, and the figures of its replies to problems."""

    def __init__(self, policy: Path, max_new_tokens: int) -> None:
        """``max_new_tokens``: of a reply."""
        self._model = LocalModel.load(policy, load_tokenizer(str(policy), {}), device="cpu")
        self._max_new_tokens = max_new_tokens

    def score(
        self, problems: Sequence[Problem], steps: Sequence[StepContext], plan: MathsPlan, seed: int
    ) -> LevelScore:
        """All figures on the problems of a level, and one step of each.

        ``seed``: of the sampled solutions.
        """
        return LevelScore(
            greedy=tuple(self.greedy(problems)),
            stepwise=tuple(self.stepwise(problems)),
            single=tuple(self.single_steps(steps)),
            right=tuple(self.count_right(problems, plan.samples, seed)),
            samples=plan.samples,
        )

    def greedy(self, problems: Sequence[Problem]) -> list[bool]:
        """Whether the greedy solution of each problem ends in its answer."""
        return [count == 1 for count in self._count(problems, Sampling(self._max_new_tokens))]

    def count_right(self, problems: Sequence[Problem], samples: int, seed: int) -> list[int]:
        """Number of right ones among ``samples`` solutions of each problem, at temperature 1."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._count(problems, Sampling(self._max_new_tokens, 1.0, samples))

    def single_steps(self, steps: Sequence[StepContext]) -> list[bool]:
        """Whether each greedy reply is in format, and its step the expert's."""
        replies = self._replies([step.prompt for step in steps], Sampling(self._max_new_tokens))
        actions = [MATH.parse_reply(text).action for (text,) in replies]
        return [
            action is not None and action.arguments["text"].strip() == step.expert_action.strip()
            for action, step in zip(actions, steps, strict=True)
        ]

    def stepwise(self, problems: Sequence[Problem]) -> list[bool]:
        """Whether each problem is solved if every step is asked for alone, greedily.

        The prompts are those of SRL without a title, with the policy's own steps so far. A reply
        out of format ends the solution.
        """
        steps: list[list[str]] = [[] for _ in problems]
        right = [False] * len(problems)
        open_ones = list(range(len(problems)))
        for _ in range(_MOST_STEPS):
            prompts = [
                step_prompt(MATH.SYSTEM_PROMPT, problems[i].problem_statement, steps[i], "")
                for i in open_ones
            ]
            replies = self._replies(prompts, Sampling(self._max_new_tokens))
            still_open = []
            for i, (text,) in zip(open_ones, replies, strict=True):
                action = MATH.parse_reply(text).action
                if action is None:
                    continue
                step = action.arguments["text"]
                answer = MATH.read_answer(step)
                if answer is None:
                    steps[i].append(step)
                    still_open.append(i)
                else:
                    right[i] = same_text(problems[i].answer, answer)
            open_ones = still_open
            if not open_ones:
                break
        return right

    def _count(self, problems: Sequence[Problem], sampling: Sampling) -> list[int]:
        replies = self._replies([MATH.prompt(problem) for problem in problems], sampling)
        return [
            sum(
                answer is not None and same_text(problem.answer, answer)
                for answer in map(MATH.read_answer, texts)
            )
            for problem, texts in zip(problems, replies, strict=True)
        ]

    def _replies(self, prompts: Sequence[Sequence[Message]], sampling: Sampling) -> list[list[str]]:
        """The samples of each prompt."""
        replies: list[list[str]] = [[] for _ in prompts]
        for batch in batches_by_length(prompts, max(1, _REPLIES_AT_ONCE // sampling.samples)):
            texts = self._model.reply([prompts[index] for index in batch], sampling)
            for number, index in enumerate(batch):
                start = number * sampling.samples
                replies[index] = texts[start : start + sampling.samples]
        return replies


def accuracy(right: Sequence[bool]) -> float:
    """The share of True."""
    return sum(right) / len(right)
