"""Reinforcement learning with verifiable rewards: the tests of instances (paper, section 4).

``setting: patch`` is one reply that rewrites files, ``setting: episode`` acts in a sandbox. In a
domain of worked solutions a reply is a solution, and its answer is verified.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from trl.trainer.grpo_config import GRPOConfig

from srl_swe.dialects import ReplyFormat
from srl_swe.domains import WorkedDomain, find_domain
from srl_swe.errors import SandboxError, UserError
from srl_swe.evaluation.sandbox_tests import check_testable
from srl_swe.instances import row_from_instance
from srl_swe.rewards.outcome import TEST_REWARDS
from srl_swe.rollout import Rules
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps.prompt import make_messages
from srl_swe.swe_env import SweEnv, as_sandbox_errors
from srl_swe.training.callbacks import add_callbacks
from srl_swe.training.data import (
    load_tokenizer,
    most_tokens,
    reply_ends,
    reply_format,
    room_for_prompt,
)
from srl_swe.training.grpo_trainer import DynamicSamplingGRPOTrainer
from srl_swe.training.preflight import check_run, on_every_rank
from srl_swe.training.recipe import EPISODE_WINDOW, RlvrRecipe
from srl_swe.training.rlvr_episodes import ChatTokens, EpisodeRollout, episode_dataset
from srl_swe.training.rlvr_patch import (
    OneReplyReward,
    ReadReply,
    Verify,
    answer_dataset,
    load_tasks,
    patch_dataset,
    read_answers,
    read_patches,
)
from srl_swe.training.run_folder import open_run, train_to_end
from srl_swe.training.stats import outcome_stats
from srl_swe.training.trl_config import (
    ModelArguments,
    make_trainer_args,
    model_arguments,
    template_kwargs,
    trl_refusals,
)
from srl_swe.training.validate_episodes import DEFAULT_WORKERS, ValidationBench
from srl_swe.types import Instance

logger = logging.getLogger(__name__)

MOST_BROKEN_STEPS = 3
"""The run stops after this many steps in a row, refills included, whose sandboxes all broke."""


class RlvrTrainer(DynamicSamplingGRPOTrainer):
    """GRPO rewarded by tests, with the outcomes of the tests in each log.

    Samples without a reward are counted. If whole steps have none, all ranks stop, as all see the
    same gathered rewards; the same command resumes from the last checkpoint.
    """

    def __init__(
        self, *args: Any, reward_funcs: OneReplyReward | EpisodeRollout, **kwargs: Any
    ) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
            super().__init__(*args, reward_funcs=reward_funcs, **kwargs)
        self._reward = reward_funcs
        self._sound_step = -1
        self._broken_steps: set[int] = set()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the statistics to the log; called on every rank."""
        tested, self._reward.tested = self._reward.tested, []
        logs.update(outcome_stats(gather_object(tested)))
        super().log(logs, start_time)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        rewards = super()._calculate_rewards(*args, **kwargs)
        step, broken = self.state.global_step, rewards.isnan().all(dim=1)
        if broken.any() and self.accelerator.is_main_process:
            logger.warning(
                "step %d: %d of %d samples have no reward, as their sandboxes broke",
                step,
                int(broken.sum()),
                len(broken),
            )
        if not broken.all():
            self._sound_step, self._broken_steps = step, set()
        elif step != self._sound_step:  # a refill may break after a sound batch
            self._broken_steps.add(step)
        if len(self._broken_steps) >= MOST_BROKEN_STEPS:
            raise UserError(
                f"step {step}: every sandbox of {MOST_BROKEN_STEPS} steps broke; see what "
                "`srl-swe doctor` says, then run the same command again: it continues from the "
                "last checkpoint."
            )
        return rewards


def train_rlvr(
    recipe: RlvrRecipe,
    open_sandbox: OpenSandbox,
    instances: Sequence[Instance],
    *,
    workers: int = DEFAULT_WORKERS,
    bench: ValidationBench | None = None,
) -> Path:
    """Train, or resume training, and return the folder of the final policy.

    A finished run returns at once. ``bench`` is for ``validation.instances``. Raises UserError if
    a check before the first step fails, or every sandbox breaks for several steps.
    """
    rows = [row_from_instance(instance) for instance in instances]
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    run = open_run(recipe, digest)
    if run.final.is_dir():
        return run.final
    model = model_arguments(recipe)
    # In SRL truncated replies are not masked: a cut reply has no action there, and -1 is a signal.
    section = {"loss_type": "grpo", "mask_truncated_completions": True, **recipe.trainer}
    args: GRPOConfig = make_trainer_args(GRPOConfig, section, run.path, model)
    setting = on_every_rank(lambda: _checked(recipe, args, model, open_sandbox, instances, workers))
    with trl_refusals():
        trainer = RlvrTrainer(
            model=recipe.model,
            args=args,
            dynamic_sampling=recipe.dynamic_sampling,
            share_prompt=recipe.share_prompt,
            share_prompt_tokens=recipe.share_prompt_tokens,
            **setting,
            **model.for_trainer,
        )
    add_callbacks(trainer, recipe, run, bench)
    return train_to_end(trainer, run)


def _checked(
    recipe: RlvrRecipe,
    args: GRPOConfig,
    model: ModelArguments,
    open_sandbox: OpenSandbox,
    instances: Sequence[Instance],
    workers: int,
) -> dict[str, Any]:
    """The trainer's arguments that depend on the setting, after all checks."""
    if not instances:
        raise UserError(f"{recipe.bench} holds no instance to train on.")
    if recipe.window.pairs is not None or not recipe.window.thoughts:
        raise UserError(
            "window: pairs must be null and thoughts true for rlvr: an episode is trained on as "
            "one sequence, from which nothing that was read can be left out."
        )
    domain = recipe.worked
    if recipe.share_prompt and recipe.setting == "episode" and domain is None:
        raise UserError(
            "share_prompt is for `setting: patch`: an episode is far longer than its first prompt; "
            "leave share_prompt out."
        )
    for instance in instances if domain is None else ():
        check_testable(instance)
    tokenizer = load_tokenizer(recipe.model, model.init_kwargs)
    check_run(recipe, args, model, len(instances))
    setting = _Setting(
        recipe,
        args,
        tokenizer,
        instances,
        open_sandbox,
        workers,
        form=reply_format(recipe, tokenizer, args),
        limits=token_limits(recipe, args),
        end_ids=reply_ends(recipe.model, tokenizer, model.init_kwargs.get("revision")),
        run_tests=find_domain(recipe.domain).verifier(
            as_sandbox_errors(open_sandbox), recipe.tests_timeout_s
        ),
    )
    if domain is not None:
        return {"processing_class": tokenizer, **setting.answer(domain)}
    try:
        parts = setting.patch() if recipe.setting == "patch" else setting.episode()
    except SandboxError as error:
        raise UserError(f"no sandbox to train in ({error}); see `srl-swe doctor`.") from error
    return {"processing_class": tokenizer, **parts}


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """Most tokens of a prompt with one reply, and of a prompt with its episode; None: no limit."""

    prompt: int | None
    episode: int | None


def token_limits(recipe: RlvrRecipe, args: Any) -> TokenLimits:
    """The limits of the recipe, and of the model or vLLM, which fail on longer prompts.

    Raises UserError if the longest reply leaves no room for a prompt.
    """
    asked, reply = recipe.window.token_budget, args.max_completion_length
    hard = most_tokens(recipe.model, args)
    if hard is None:
        return TokenLimits(asked, asked)
    room = room_for_prompt(hard, reply, "trainer: max_completion_length", recipe.model)
    return TokenLimits(min(asked or room, room), min(asked or hard, hard))


@dataclass(frozen=True, slots=True)
class _Setting:
    """The parts of all settings; a method per setting returns arguments of RlvrTrainer."""

    recipe: RlvrRecipe
    args: Any
    tokenizer: PreTrainedTokenizerBase
    instances: Sequence[Instance]
    open_sandbox: OpenSandbox
    workers: int
    form: ReplyFormat
    limits: TokenLimits
    end_ids: Sequence[int]
    run_tests: Verify

    @property
    def _template(self) -> dict[str, Any]:
        return template_kwargs(self.args)

    def answer(self, domain: WorkedDomain) -> dict[str, Any]:
        domain.verified_by()  # fails early if a package is missing
        prompt, limit = domain.prompt, self.limits.prompt
        rows = answer_dataset(self.instances, prompt, self.tokenizer, limit, self._template)
        return self._one_reply(rows, read_answers(self.instances, domain.read_answer))

    def patch(self) -> dict[str, Any]:
        tasks = load_tasks(self.instances, self.open_sandbox, self.workers)
        rows = patch_dataset(tasks, self.tokenizer, self.limits.prompt, self._template)
        return self._one_reply(rows, read_patches(tasks, self.form))

    def _one_reply(self, rows: Dataset, read: ReadReply) -> dict[str, Any]:
        reward = OneReplyReward(
            read,
            self.run_tests,
            self.tokenizer,
            TEST_REWARDS[self.recipe.reward],
            self.end_ids,
            self.workers,
        )
        return {"train_dataset": rows, "reward_funcs": reward}

    def episode(self) -> dict[str, Any]:
        recipe, reply_tokens = self.recipe, self.args.max_completion_length
        token_budget = self.limits.episode
        if token_budget is None:
            raise UserError(
                f"{recipe.model} does not say how many tokens it takes; set window.token_budget "
                "to the most that an episode may have."
            )
        with self.open_sandbox(self.instances[0]):  # fails early if no sandbox opens
            pass
        chat = ChatTokens(self.tokenizer, self._template, self.end_ids)
        for instance in self.instances:
            issue, dialect = instance.problem_statement, self.form.dialect
            messages = make_messages(issue, [], dialect, workdir=instance.workdir)
            tokens = len(chat.prompt(messages))
            if tokens + reply_tokens > token_budget:
                raise UserError(
                    f"{instance.instance_id} leaves no room for a reply: its prompt takes {tokens} "
                    f"tokens of {token_budget}, and max_completion_length is {reply_tokens}; leave "
                    "it out of the bench."
                )
        chars = recipe.window.observation_chars
        window = dataclasses.replace(EPISODE_WINDOW, observation_chars=chars)
        make_env = partial(
            SweEnv,
            open_sandbox=as_sandbox_errors(self.open_sandbox),
            rules=Rules(self.form, window, recipe.limits),
            reward=TEST_REWARDS[recipe.reward],
            test_runner=self.run_tests,
        )
        by_id = {instance.instance_id: instance for instance in self.instances}
        longest = token_budget - reply_tokens
        rollout = EpisodeRollout(by_id, make_env, chat, longest, self.workers)
        return {
            "train_dataset": episode_dataset(self.instances),
            "reward_funcs": rollout,
            "rollout_func": rollout.rollout,
        }
