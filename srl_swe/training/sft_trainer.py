"""Supervised fine-tuning on step contexts: the comparison to SRL, and its warm start.

Rows and format are SRL's; the loss is on the expert's whole reply, thought included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import trl.trainer.utils
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from srl_swe.dialects import DIALECTS
from srl_swe.errors import UserError
from srl_swe.rollout.tokens import check_thought, thought_opening
from srl_swe.training.callbacks import add_callbacks
from srl_swe.training.data import (
    check_asks_for_steps,
    check_dialect,
    check_replies,
    fitting_rows,
    load_step_contexts,
    load_tokenizer,
    max_positions,
    rendered,
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
    with _replies_projected_alone() if recipe.share_prompt else nullcontext():
        return train_to_end(trainer, run)


def _checked(
    recipe: SftRecipe, args: SFTConfig, model: ModelArguments, data: Dataset
) -> tuple[PreTrainedTokenizerBase, Dataset]:
    """The tokenizer and the rows to train on, after all checks."""
    tokenizer = load_tokenizer(recipe.model, model.init_kwargs, args.eos_token)
    template = Path(args.chat_template_path or "")
    if is_file := template.suffix in {".jinja", ".j2"} and template.is_file():
        tokenizer.chat_template = template.read_text("utf-8")  # as TRL does, for all checks
    check_thought(recipe.model, thought_opening(tokenizer), recipe.strictness)
    check_asks_for_steps(data, recipe.data)
    first = data[0]["completion"][0]["content"]
    if any(known.parse_solution(first, "lenient").actions for known in DIALECTS.values()):
        check_dialect(data, recipe.data, recipe.dialect)  # repairs are in none
    if recipe.share_prompt and "trajectory_id" not in data.column_names:
        raise UserError(f"{recipe.data} has no column trajectory_id, by which share_prompt joins.")
    rows = with_thoughts(data, recipe.data)
    limits = (max_positions(recipe.model, model.init_kwargs), args.max_length)
    limit = min((limit for limit in limits if limit is not None), default=None)
    if limit is not None:  # TRL would cut longer rows, or drop them if no reply is left
        way_out = "make the step contexts with a smaller token budget, raise max_length"
        folder, overlong = recipe.data, recipe.overlong
        rows = fitting_rows(rows, folder, tokenizer, limit, "row", way_out, overlong=overlong)
    if args.chat_template_path is None or is_file:
        check_replies(recipe.model, tokenizer, rows[0])
    elif recipe.share_prompt:
        raise UserError(
            "share_prompt joins steps by the chat template of the model itself; leave it or "
            "`trainer: {chat_template_path: ...}` out."
        )
    columns = ["prompt", "completion"]
    rows = join_steps(rows, tokenizer) if recipe.share_prompt else rows.select_columns(columns)
    check_run(recipe, args, model, len(rows))
    return tokenizer, rows


@contextmanager
def _replies_projected_alone() -> Iterator[None]:
    """In it TRL projects only the tokens of replies to the vocabulary on CPUs too, as on GPUs.

    Without Triton TRL 1.16 projects all tokens, to keep shapes; most of them are of prompts.
    """
    utils: Any = trl.trainer.utils
    uses_triton = utils._use_triton
    utils._use_triton = lambda device: device.type == "cpu" or uses_triton(device)
    try:
        yield
    finally:
        utils._use_triton = uses_triton


def join_steps(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Lay steps of a trajectory whose prompts continue each other out as one sequence.

    Columns: ``input_ids``, and ``completion_mask``, 1 for the tokens of each step's reply. A token
    has the same context as in a row of its own, so that the sum of losses over all tokens is the
    same. A step whose prompt leaves out or changes what came before starts a new sequence.
    """
    sequences: list[dict[str, list[int]]] = []
    for _, steps in groupby(rows, key=itemgetter("trajectory_id")):
        ids: list[int] = []
        for step in sorted(steps, key=itemgetter("step_index")):
            prompt = _encode(tokenizer, step["prompt"], add_generation_prompt=True)
            whole = _encode(tokenizer, [*step["prompt"], *step["completion"]])
            if not ids or prompt[: len(ids)] != ids:
                sequences.append({"completion_mask": []})
            mask = sequences[-1]["completion_mask"]
            mask += [0] * (len(prompt) - len(mask)) + [1] * (len(whole) - len(prompt))
            sequences[-1]["input_ids"] = ids = whole
    return Dataset.from_list(sequences)


def _encode(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], **asks: bool
) -> list[int]:
    """Token ids of a conversation, as TRL makes them."""
    text = rendered(tokenizer, messages, **asks)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
