"""Reinforcement learning with verifiable rewards: the tests of instances (paper, section 4).

``setting: patch`` is one reply that rewrites files, ``setting: episode`` acts in a sandbox.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from trl.trainer.grpo_config import GRPOConfig

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import SandboxError, UserError
from srl_swe.evaluation.sandbox_tests import CachedTestRunner, check_testable
from srl_swe.instances import row_from_instance
from srl_swe.rewards.outcome import TEST_REWARDS
from srl_swe.rollout import Rules
from srl_swe.rollout.replies import check_thought, opens_thought, thought_opening
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps.prompt import make_messages
from srl_swe.swe_env import SweEnv, as_sandbox_errors
from srl_swe.training.callbacks import add_callbacks
from srl_swe.training.data import load_tokenizer, most_tokens, reply_ends, room_for_prompt
from srl_swe.training.grpo_trainer import DynamicSamplingGRPOTrainer
from srl_swe.training.preflight import check_run, on_every_rank
from srl_swe.training.recipe import EPISODE_WINDOW, RlvrRecipe
from srl_swe.training.rlvr_episodes import ChatTokens, EpisodeRollout, episode_dataset
from srl_swe.training.rlvr_patch import PatchReward, load_tasks, patch_dataset
from srl_swe.training.run_folder import open_run, train_to_end
from srl_swe.training.stats import Tested, outcome_stats
from srl_swe.training.trl_config import (
    ModelArguments,
    make_trainer_args,
    model_arguments,
    model_init_kwargs,
    template_kwargs,
    trl_refusals,
)
from srl_swe.training.validate_episodes import DEFAULT_WORKERS, ValidationBench
from srl_swe.types import Instance


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """Most tokens of a prompt or an episode; None means no limit.

    ``asked`` is the recipe's, ``hard`` the sampler's; ``reply`` is the longest reply.
    """

    asked: int | None
    hard: int | None
    reply: int

    @property
    def prompt(self) -> int | None:
        """The limit of a prompt with one reply; ``asked`` bounds the prompt alone."""
        return _least(self.asked, None if self.hard is None else self.hard - self.reply)

    @property
    def episode(self) -> int | None:
        """The limit of a prompt and its whole episode."""
        return _least(self.asked, self.hard)


def token_limits(recipe: RlvrRecipe, args: Any) -> TokenLimits:
    """The limits of the recipe, and of the model or vLLM, which fail on longer prompts.

    Raises UserError if the longest reply leaves no room for a prompt.
    """
    if args.max_completion_length is None:
        raise UserError("trainer: max_completion_length must be set for rlvr.")
    hard = most_tokens(recipe.model, args)
    if hard is not None:
        name = "trainer: max_completion_length"
        room_for_prompt(hard, args.max_completion_length, name, recipe.model)
    return TokenLimits(recipe.window.token_budget, hard, args.max_completion_length)


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


logger = logging.getLogger(__name__)

MOST_BROKEN_STEPS = 3
"""The run stops after this many steps in a row, refills included, whose sandboxes all broke."""


class RlvrTrainer(DynamicSamplingGRPOTrainer):
    """GRPO rewarded by tests, with the outcomes of the tests in each log.

    ``drain()`` returns this rank's tested replies since the last call. Samples without a reward
    are counted. If whole steps have none, all ranks stop, as all see the same gathered rewards; the
    same command resumes from the last checkpoint.
    """

    def __init__(self, *args: Any, drain: Callable[[], list[Tested]], **kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
            super().__init__(*args, **kwargs)
        self._drain = drain
        self._sound_step = -1
        self._broken_steps: set[int] = set()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the statistics to the log; called on every rank."""
        logs.update(outcome_stats(gather_object(self._drain())))
        super().log(logs, start_time)

    def _calculate_rewards(
        self,
        inputs: list[dict[str, Any]],
        prompts: list[Any],
        completions: list[Any],
        completion_ids_list: list[list[int]],
    ) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        broken = rewards.isnan().all(dim=1)
        if broken.any() and self.accelerator.is_main_process:
            logger.warning(
                "step %d: %d of %d samples have no reward, as their sandboxes broke",
                self.state.global_step,
                int(broken.sum()),
                len(broken),
            )
        self._note(self.state.global_step, sound=not bool(broken.all()))
        return rewards

    def _note(self, step: int, *, sound: bool) -> None:
        """Note a batch or refill; ``sound``: at least one of its sandboxes held."""
        if sound:
            self._sound_step, self._broken_steps = step, set()
        elif step != self._sound_step:
            self._broken_steps.add(step)
        if len(self._broken_steps) >= MOST_BROKEN_STEPS:
            raise UserError(
                f"step {step}: every sandbox of {MOST_BROKEN_STEPS} steps broke; see what "
                "`srl-swe doctor` says, then run the same command again: it continues from the "
                "last checkpoint."
            )


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
    run = open_run(recipe, instances_sha256(instances))
    if run.final.is_dir():
        return run.final
    model = model_arguments(recipe)
    args: GRPOConfig = make_trainer_args(GRPOConfig, trainer_section(recipe), run.path, model)
    tokenizer, parts = on_every_rank(
        lambda: _checked(recipe, args, model, open_sandbox, instances, workers)
    )
    with trl_refusals():
        trainer = RlvrTrainer(
            model=recipe.model,
            args=args,
            processing_class=tokenizer,
            dynamic_sampling=recipe.dynamic_sampling,
            **parts,
            **model.for_trainer,
        )
    add_callbacks(trainer, recipe, run, bench)
    return train_to_end(trainer, run)


def trainer_section(recipe: RlvrRecipe) -> dict[str, Any]:
    """The recipe's fields of GRPOConfig; the paper's loss by default.

    Truncated replies are masked by default. In SRL they are not: a cut reply has no action there,
    and -1 is a signal.
    """
    return {"loss_type": "grpo", "mask_truncated_completions": True, **recipe.trainer}


def instances_sha256(instances: Sequence[Instance]) -> str:
    """A digest of the training instances: detects other rows under the same name."""
    rows = [row_from_instance(one) for one in instances]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _checked(
    recipe: RlvrRecipe,
    args: GRPOConfig,
    model: ModelArguments,
    open_sandbox: OpenSandbox,
    instances: Sequence[Instance],
    workers: int,
) -> tuple[PreTrainedTokenizerBase, dict[str, Any]]:
    """The tokenizer and the setting's arguments for the trainer, after all checks."""
    _check_recipe(recipe, instances)
    tokenizer = load_tokenizer(recipe.model, model.init_kwargs)
    check_run(recipe, args, model, len(instances))
    opening = thought_opening(tokenizer, template_kwargs(args))
    check_thought(recipe.model, opening, recipe.strictness)
    limits = token_limits(recipe, args)
    setting = _Setting(recipe, args, tokenizer, open_sandbox, instances, workers, limits)
    try:
        return tokenizer, setting.patch() if recipe.setting == "patch" else setting.episode()
    except SandboxError as error:
        raise UserError(f"no sandbox to train in ({error}); see `srl-swe doctor`.") from error


@dataclass(frozen=True, slots=True)
class _Setting:
    """The parts of both settings; a method per setting returns arguments of RlvrTrainer."""

    recipe: RlvrRecipe
    args: Any
    tokenizer: PreTrainedTokenizerBase
    open_sandbox: OpenSandbox
    instances: Sequence[Instance]
    workers: int
    limits: TokenLimits

    def patch(self) -> dict[str, Any]:
        tasks = load_tasks(self.instances, self.open_sandbox, self.workers)
        template = template_kwargs(self.args)
        reward = PatchReward(
            tasks,
            self._make_test_runner(),
            self.tokenizer,
            TEST_REWARDS[self.recipe.reward],
            workers=self.workers,
            strictness=self.recipe.strictness,
            think_opened=opens_thought(self.tokenizer, template),
            end_ids=self._end_ids(),
        )
        return {
            "train_dataset": patch_dataset(tasks, self.tokenizer, self.limits.prompt, template),
            "reward_funcs": reward,
            "drain": reward.drain,
        }

    def episode(self) -> dict[str, Any]:
        token_budget = self.limits.episode
        if token_budget is None:
            raise UserError(
                f"{self.recipe.model} does not say how many tokens it takes; set "
                "window.token_budget to the most that an episode may have."
            )
        with self.open_sandbox(self.instances[0]):  # fails early if no sandbox opens
            pass
        self._check_prompts(token_budget)
        test_runner = self._make_test_runner()
        rollout = EpisodeRollout(
            lambda: self._env(test_runner),
            self.tokenizer,
            token_budget=token_budget,
            reply_tokens=self.args.max_completion_length,
            workers=self.workers,
            template_kwargs=template_kwargs(self.args),
            end_ids=self._end_ids(),
        )
        return {
            "train_dataset": episode_dataset(self.instances),
            "reward_funcs": rollout,
            "rollout_func": rollout.rollout,
            "drain": rollout.drain,
        }

    def _check_prompts(self, budget: int) -> None:
        """Raise UserError for an instance whose first reply would not fit."""
        dialect = get_dialect(self.recipe.dialect)
        chat = ChatTokens(self.tokenizer, template_kwargs(self.args))
        for one in self.instances:
            tokens = len(chat.prompt(make_messages(one.problem_statement, [], dialect)))
            if tokens + self.args.max_completion_length > budget:
                raise UserError(
                    f"{one.instance_id} leaves no room for a reply: its prompt takes {tokens} "
                    f"tokens of {budget}, and max_completion_length is "
                    f"{self.args.max_completion_length}; leave it out of the bench."
                )

    def _end_ids(self) -> list[int]:
        revision = model_init_kwargs(self.args).get("revision")
        return reply_ends(self.recipe.model, self.tokenizer, revision)

    def _make_test_runner(self) -> CachedTestRunner:
        return CachedTestRunner(as_sandbox_errors(self.open_sandbox), self.recipe.tests_timeout_s)

    def _env(self, test_runner: CachedTestRunner) -> SweEnv:
        recipe, chars = self.recipe, self.recipe.window.observation_chars
        replies = ReplyFormat(
            get_dialect(recipe.dialect),
            recipe.strictness,
            opens_thought(self.tokenizer, template_kwargs(self.args)),
        )
        window = dataclasses.replace(EPISODE_WINDOW, observation_chars=chars)
        rules = Rules(replies, window, recipe.limits)
        return SweEnv(
            self.instances,
            as_sandbox_errors(self.open_sandbox),
            rules,
            reward=TEST_REWARDS[recipe.reward],
            test_runner=test_runner,
        )


def _check_recipe(recipe: RlvrRecipe, instances: Sequence[Instance]) -> None:
    if not instances:
        raise UserError(f"{recipe.bench} holds no instance to train on.")
    if recipe.window.pairs is not None:
        raise UserError(
            "window: pairs must be null for rlvr: an episode is trained on as one sequence, from "
            "which nothing that was read can be left out."
        )
    for instance in instances:
        check_testable(instance)
