"""Supervised fine-tuning on step contexts: the comparison to SRL, and its warm start.

Rows and format are SRL's; the loss is on the expert's whole reply, thought included.
"""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from srl_swe.rollout.tokens import check_thought, thought_opening
from srl_swe.training.callbacks import add_callbacks
from srl_swe.training.data import (
    check_replies,
    fitting_rows,
    load_step_contexts,
    load_tokenizer,
    max_positions,
    with_thoughts,
)
from srl_swe.training.preflight import check_run, on_every_rank
from srl_swe.training.recipe import SftRecipe
from srl_swe.training.run_folder import open_run, train_to_end
from srl_swe.training.trl_config import (
    ModelArguments,
    make_trainer_args,
    model_arguments,
    trl_refusals,
)
from srl_swe.training.validate_episodes import ValidationBench


def train_sft(recipe: SftRecipe, bench: ValidationBench | None = None) -> Path:
    """Train, or resume training, and return the folder of the final policy.

    A finished run returns at once. ``bench`` is for ``validation.instances``. Raises UserError if
    a check before the first step fails.
    """
    data = load_step_contexts(recipe.data)
    run = open_run(recipe)
    if run.final.is_dir():
        return run.final
    section = {"max_length": None, **recipe.trainer, "completion_only_loss": True}
    model = model_arguments(recipe)
    args: SFTConfig = make_trainer_args(SFTConfig, section, run.path, model)
    tokenizer, rows = on_every_rank(lambda: _checked(recipe, args, model, data))
    with trl_refusals():
        trainer = SFTTrainer(
            model=recipe.model,
            args=args,
            train_dataset=rows,
            processing_class=tokenizer,
            **model.for_trainer,
        )
    add_callbacks(trainer, recipe, run, bench)
    return train_to_end(trainer, run)


def _checked(
    recipe: SftRecipe, args: SFTConfig, model: ModelArguments, data: Dataset
) -> tuple[PreTrainedTokenizerBase, Dataset]:
    """The tokenizer and the rows to train on, after all checks."""
    tokenizer = load_tokenizer(recipe.model, model.init_kwargs, args.eos_token)
    check_thought(recipe.model, thought_opening(tokenizer), recipe.strictness)
    rows = with_thoughts(data, recipe.data)
    limits = (max_positions(recipe.model, model.init_kwargs), args.max_length)
    limit = min((limit for limit in limits if limit is not None), default=None)
    if limit is not None:  # TRL would cut longer rows, or drop them if no reply is left
        way_out = "make the step contexts with a smaller token budget, raise max_length"
        folder, overlong = recipe.data, recipe.overlong
        rows = fitting_rows(rows, folder, tokenizer, limit, "row", way_out, overlong=overlong)
    rows = rows.select_columns(["prompt", "completion"])
    if args.chat_template_path is None:
        check_replies(recipe.model, tokenizer, rows[0])
    check_run(recipe, args, model, len(rows))
    return tokenizer, rows
