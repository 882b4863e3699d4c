"""Rows, prompts and replies that do not fit the model, found before the first step.

A data set made with the policy's own tokenizer holds the length of each prompt already: those
counts are used, and a few are counted again to be sure. Else each row is rendered, and counted
unless it has fewer bytes than tokens are allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from transformers import AutoConfig, PreTrainedTokenizerBase

from srl_swe.errors import UserError
from srl_swe.rollout.tokens import TokenCounter
from srl_swe.step_dataset.recorded import recorded_settings
from srl_swe.training.guards.chat_template import rendered
from srl_swe.training.guards.checks import warn
from srl_swe.training.recipes.records import Overlong, SrlRecipe

Part = Literal["prompt", "row"]
"""Counted tokens: of the prompt up to where a reply begins, or of prompt and completion."""

_COLUMNS: Mapping[Part, tuple[str, ...]] = {
    "prompt": ("prompt_tokens",),
    "row": ("prompt_tokens", "completion_tokens"),
}
_COUNTED_AGAIN = 8


def max_positions(model: str, init_kwargs: Mapping[str, Any]) -> int | None:
    """How many tokens the model can take; None if its config does not say."""
    try:
        config = AutoConfig.from_pretrained(model, revision=init_kwargs.get("revision"))
    except (OSError, ValueError) as error:
        raise UserError(f"{model!r} is no model: {str(error).strip().splitlines()[0]}") from None
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(positions) if positions else None


def served_tokens(args: Any) -> int | None:
    """How many tokens the vLLM that samples takes; None without one, or if nobody says."""
    length: int | None = args.vllm_max_model_length if args.use_vllm else None
    return length


def most_tokens(model: str, args: Any) -> int | None:
    """How many tokens of prompt and reply the model and its sampler take; None if neither says."""
    limits = (max_positions(model, args.model_init_kwargs or {}), served_tokens(args))
    return min((limit for limit in limits if limit), default=None)


def room_for_prompt(context: int, reply: int, field: str, model: str) -> int:
    """The longest prompt that leaves room for a reply; UserError if there is room for none."""
    if reply >= context:
        raise UserError(
            f"{field} {reply} leaves no room for a prompt: {model} takes {context} tokens of "
            "prompt and reply together; set a smaller one."
        )
    return context - reply


def fitting_prompts(
    recipe: SrlRecipe,
    args: Any,
    data: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    as_made: bool,
) -> Dataset:
    """The rows whose prompt leaves room for a reply: TRL would not look, and vLLM would die.

    ``as_made``: the prompts are those that the data set was made with.
    """
    room = most_tokens(recipe.model, args)
    if room is None:
        return data
    sampler = "vLLM" if room == served_tokens(args) else recipe.model
    limit = room_for_prompt(
        room, args.max_completion_length or 0, "trainer: max_completion_length", sampler
    )
    tokens = overlong_rows(
        data,
        tokenizer,
        limit,
        "prompt",
        args.chat_template_kwargs,
        recorded_in=recipe.data if as_made else None,
    )
    way_out = (
        f"{sampler} has room for {room} with max_completion_length {args.max_completion_length}; "
        "make the step contexts with a smaller token budget"
    )
    return fitting_rows(data, tokens, limit, recipe.overlong, recipe.data, way_out)


def fitting_rows(
    data: Dataset, tokens: Mapping[int, int], limit: int, choice: Overlong, name: str, way_out: str
) -> Dataset:
    """The rows but those in ``tokens``, which take more than ``limit`` by :func:`overlong_rows`.

    Raises UserError unless they may be dropped, and where nothing would be left.
    """
    if not tokens:
        return data
    finding = (
        f"{len(tokens)} of {len(data)} rows in {name} take more than {limit} tokens "
        f"(the longest {max(tokens.values())})"
    )
    some_fit = len(tokens) < len(data)
    if choice == "error" or not some_fit:
        or_drop = ", or set `overlong: drop`" if some_fit else ""
        raise UserError(f"{finding}; {way_out}{or_drop}.")
    warn(f"{finding} and are left out.")
    return data.select([index for index in range(len(data)) if index not in tokens])


def overlong_rows(
    data: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    part: Part,
    template: Mapping[str, Any] | None = None,
    *,
    recorded_in: str | None = None,
) -> dict[int, int]:
    """Rows whose ``part`` takes more than ``limit`` tokens, with how many they take.

    ``recorded_in``: the folder that the rows are of, whose counts are used if they were made with
    this tokenizer and chat template; None counts. ``template``: variables of the chat template.
    """
    counter = TokenCounter(tokenizer, template)
    recorded = _recorded(data, counter, part, recorded_in) if recorded_in and not template else None
    if recorded is not None:
        return {index: tokens for index, tokens in enumerate(recorded) if tokens > limit}
    return _count_overlong(data, tokenizer, counter, limit, part, template or {})


def _recorded(data: Dataset, counter: TokenCounter, part: Part, folder: str) -> list[int] | None:
    """The counts that the data set holds; None if it has none of this tokenizer, or wrong ones."""
    columns = _COLUMNS[part]
    known_by = recorded_settings(Path(folder)).tokenizer_sha256
    if known_by != counter.digest or not {*columns} <= {*data.column_names}:
        return None
    counts = [data[name][:] for name in columns]
    if any(count is None for column in counts for count in column):
        return None
    totals: list[int] = [sum(row) for row in zip(*counts, strict=True)]
    for index in _sample(totals):
        if counter(_messages(data[index], part)) != totals[index]:
            warn(f"{folder}: its token counts are not those of its rows; they are counted again.")
            return None
    return totals


def _sample(totals: Sequence[int]) -> set[int]:
    """The longest row and some evenly spread."""
    spread = {n * len(totals) // _COUNTED_AGAIN for n in range(_COUNTED_AGAIN)}
    return {max(range(len(totals)), key=totals.__getitem__), *spread}


def _count_overlong(
    data: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    counter: TokenCounter,
    limit: int,
    part: Part,
    template: Mapping[str, Any],
) -> dict[int, int]:
    """A token is at least one byte, so that only rows of enough bytes are tokenized."""
    overlong: dict[int, int] = {}
    columns = ["prompt"] if part == "prompt" else ["prompt", "completion"]
    asks = {"add_generation_prompt": part == "prompt", **template}
    for index, row in enumerate(data.select_columns(columns)):
        text = rendered(tokenizer, _messages(row, part), **asks)
        if len(text.encode("utf-8", "surrogatepass")) <= limit:
            continue
        tokens = counter.count_text(text)
        if tokens > limit:
            overlong[index] = tokens
    return overlong


def _messages(row: Mapping[str, Any], part: Part) -> list[Any]:
    return list(row["prompt"] if part == "prompt" else row["prompt"] + row["completion"])
