"""Supervised reinforcement learning on step contexts (paper, sections 3 and 4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.trainer.grpo_config import GRPOConfig

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.rewards import asks_for_solution, weight_shares
from srl_swe.rollout.replies import check_thought, opens_thought, thought_opening
from srl_swe.training.guards.before_training import check_run, on_every_rank
from srl_swe.training.guards.chat_template import reply_ends
from srl_swe.training.guards.checks import (
    check_dialect,
    load_step_contexts,
    load_tokenizer,
)
from srl_swe.training.guards.lengths import fitting_prompts
from srl_swe.training.guards.rows import check_expert_actions
from srl_swe.training.recipes.records import SrlRecipe
from srl_swe.training.recipes.trainer_args import (
    ModelArguments,
    make_trainer_args,
    model_arguments,
    model_init_kwargs,
    template_kwargs,
    trl_refusals,
)
from srl_swe.training.run.callbacks import add_callbacks
from srl_swe.training.run.folder import open_run, train_to_end
from srl_swe.training.srl.step_reward import ReplyScorer
from srl_swe.training.srl.trainer import SrlTrainer
from srl_swe.training.srl.whole_solution import with_solutions
from srl_swe.training.validation.bench import ValidationBench


def train_srl(recipe: SrlRecipe, bench: ValidationBench | None = None) -> Path:
    """Train, or go on training, and return the folder of the final policy.

    A finished run returns at once. ``bench`` is for ``validation.instances``. Raises UserError
    for whatever can be known to be wrong before the first step.
    """
    data = load_step_contexts(recipe.data)
    run = open_run(recipe)
    if run.final.is_dir():
        return run.final
    model = model_arguments(recipe)
    args: GRPOConfig = make_trainer_args(GRPOConfig, trainer_section(recipe), run.path, model)
    tokenizer, rows = on_every_rank(lambda: _checked(recipe, args, model, data))
    with trl_refusals():
        trainer = SrlTrainer(
            model=recipe.model,
            args=args,
            train_dataset=rows,
            processing_class=tokenizer,
            dynamic_sampling=recipe.dynamic_sampling,
            scorer=_scorer(recipe, args, tokenizer),
            rewards=weight_shares(recipe.rewards),
            **model.for_trainer,
        )
    add_callbacks(trainer, recipe, run, bench)
    return train_to_end(trainer, run)


def trainer_section(recipe: SrlRecipe) -> dict[str, Any]:
    """The recipe's fields of GRPOConfig; the paper's loss by default, where TRL's is ``dapo``."""
    return {"loss_type": "grpo", **recipe.trainer}


def _checked(
    recipe: SrlRecipe, args: GRPOConfig, model: ModelArguments, data: Dataset
) -> tuple[PreTrainedTokenizerBase, Dataset]:
    """The tokenizer and the rows to train on, after all guards."""
    if args.reward_weights is not None:
        raise UserError("trainer: reward_weights are for `rewards: {name: weight}` to say.")
    check_expert_actions(data, recipe.data)
    check_dialect(data, recipe.data, recipe.dialect)
    tokenizer = load_tokenizer(recipe.model, model.init_kwargs)
    opening = thought_opening(tokenizer, template_kwargs(args))
    check_thought(recipe.model, opening, recipe.strictness)
    whole = asks_for_solution(recipe.rewards)
    if whole:
        data = with_solutions(data, get_dialect(recipe.dialect))
    rows = fitting_prompts(recipe, args, data, tokenizer, as_made=not whole)
    check_run(recipe, args, model, len(rows))
    return tokenizer, rows


def _scorer(recipe: SrlRecipe, args: GRPOConfig, tokenizer: PreTrainedTokenizerBase) -> ReplyScorer:
    return ReplyScorer(
        tokenizer,
        get_dialect(recipe.dialect),
        recipe.strictness,
        think_opened=opens_thought(tokenizer, template_kwargs(args)),
        whole_solution=asks_for_solution(recipe.rewards),
        end_ids=reply_ends(recipe.model, tokenizer, model_init_kwargs(args).get("revision")),
    )
