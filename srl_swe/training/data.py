"""Loading and checking of training data and tokenizers, before the first step.

Every rank checks the same files and stops alike: a rank that raised alone would leave the others
waiting in a collective.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from srl_swe.dialects import Dialect, ReplyFormat, get_dialect
from srl_swe.errors import UserError
from srl_swe.files import first_words
from srl_swe.rewards import asks_for_solution
from srl_swe.rewards.holistic import solution_text
from srl_swe.rollout.tokens import (
    TokenCounter,
    check_thought,
    find_end_ids,
    template_refusals,
    thought_opening,
)
from srl_swe.rollout.weights import CONFIG, check_folder
from srl_swe.steps.rows import load_rows, recorded_settings
from srl_swe.training.recipe import Overlong, Recipe, SrlRecipe
from srl_swe.types import Message

logger = logging.getLogger(__name__)

COLUMNS = ("prompt", "completion", "expert_action", "instance_id", "step_index", "n_steps", "tool")
PROFILE_COLUMN = "profile_mean"
"""Column of a profiled data set, which holds only some steps of a trajectory."""


def warn(finding: str) -> None:
    """Log a warning on the first rank only."""
    if PartialState().is_main_process:
        logger.warning("%s", finding)


def load_step_contexts(folder: str) -> Dataset:
    """Load a data set. Raises UserError if it is not one or has rows that can't be trained on."""
    try:
        data = load_rows(Path(folder))
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no step contexts; make them with `srl-swe steps`."
        ) from None
    except IndexError:  # datasets 5 raises it for a data set without rows, hence without tables
        raise UserError(f"{folder} holds no rows.") from None
    if not isinstance(data, Dataset):
        raise UserError(f"{folder} holds several splits; name the folder of one of them.")
    missing = [name for name in COLUMNS if name not in data.column_names]
    if missing:
        raise UserError(f"{folder} holds no step contexts: it lacks {', '.join(missing)}.")
    if len(data) == 0:
        raise UserError(f"{folder} holds no rows.")
    check_rows(data, folder)
    return data


def check_rows(data: Dataset, folder: str) -> None:
    """Raise UserError naming the first row with a missing or wrong prompt, reply or place."""
    for name in ("images", "image"):  # TRL would take a row for vision data
        if name in data.column_names:
            raise UserError(
                f"{folder} has a column {name!r}: step contexts are text alone; remove the column."
            )
    table = _table(data)
    for name in ("prompt", "completion"):
        _refuse_unless(_has_messages(table.column(name), name, folder), f"no {name}", folder)
    for name in ("instance_id", "tool"):
        _refuse_unless(pc.is_valid(table.column(name)), f"no {name}", folder)
    for name in ("n_steps", "step_index"):
        kind = table.column(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
            raise UserError(f"{folder}: {name} must be a whole number, not {kind}.")
    steps, index = table.column("n_steps"), table.column("step_index")
    _refuse_unless(pc.greater_equal(steps, 1), "n_steps below 1", folder)
    inside = pc.and_(pc.greater_equal(index, 0), pc.less(index, steps))
    _refuse_unless(inside, "a step_index outside of n_steps", folder)


def check_expert_actions(data: Dataset, folder: str) -> None:
    """Raise UserError for rows without an expert action to compare with; SFT takes them."""
    column = _table(data).column("expert_action").cast(pa.string())
    has_action = pc.not_equal(pc.utf8_trim_whitespace(column), "")
    _refuse_unless(has_action, "no expert_action", folder)


def check_dialect(data: Dataset, name: str, dialect: str, option: str = "`dialect:`") -> None:
    """Raise UserError, which names the option, if experts reply in another dialect."""
    reply = data[0]["completion"][0]["content"]
    if not get_dialect(dialect).parse_solution(reply, "lenient").actions:
        raise UserError(f"{name} is not written in the dialect {dialect}; set {option}.")


def with_thoughts(data: Dataset, name: str) -> Dataset:
    """Keep the rows whose reply holds a thought: the others would teach breaking the format.

    Raises UserError if no row has one.
    """
    if "has_thought" not in data.column_names:
        return data
    kept = [index for index, has_thought in enumerate(data["has_thought"]) if has_thought]
    if not kept:
        raise UserError(f"{name} has no thought in any reply, so SFT can't learn the format of it.")
    if len(kept) == len(data):
        return data
    warn(f"{len(data) - len(kept)} of {len(data)} rows in {name} have no thought: left out.")
    return data.select(kept)


def _table(data: Dataset) -> Any:
    return data.data if data._indices is None else data.flatten_indices().data


def _has_messages(column: Any, name: str, folder: str) -> Any:
    """Whether each row has messages, all of them with a text; null for a null."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise UserError(f"{folder}: {name} must be a list of messages, not {column.type}.")
    kind = column.type.value_type
    if not pa.types.is_struct(kind) or kind.get_field_index("content") < 0:
        raise UserError(f"{folder}: {name} must be messages of role and content, not {kind}.")
    if pc.struct_field(pc.list_flatten(column), "content").null_count == 0:
        return pc.greater(pc.list_value_length(column), 0)
    rows = (row or [None] for row in column.to_pylist())
    return pa.array([all(m and m["content"] is not None for m in row) for row in rows])


def _refuse_unless(right: Any, what: str, folder: str) -> None:
    """Raise UserError if a row is not right; a null is not."""
    wrong = pc.invert(pc.fill_null(right, False))
    if count := pc.sum(wrong).as_py():
        first = pc.index(wrong, True).as_py()
        raise UserError(
            f"{folder}: {count} of {len(wrong)} rows have {what} (the first is row {first}); leave "
            "them out, or make the step contexts anew with `srl-swe steps`."
        )


# Whole solutions: all remaining actions of a trajectory as one reply.


_OF_TRAJECTORY = ("trajectory_id", "instance_id", "n_steps")


def expert_column(replies: ReplyFormat) -> str:
    """Return the column of the step contexts to compare replies with."""
    return "expert_solution" if replies.whole_solution else "expert_action"


def reply_format(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, args: Any) -> ReplyFormat:
    """The format of a run's replies, in training and validation; ``args``: its trainer's.

    Raises UserError if the chat template leaves no room for the thought that it requires.
    """
    opening = thought_opening(tokenizer, getattr(args, "chat_template_kwargs", None))
    check_thought(recipe.model, opening, recipe.strictness)
    return ReplyFormat(
        get_dialect(recipe.dialect),
        recipe.strictness,
        think_opened=opening == "opened",
        whole_solution=asks_for_solution(getattr(recipe, "rewards", ())),
    )


def check_asks_for_steps(data: Dataset, folder: str) -> None:
    """Raises UserError if the prompts ask for whole solutions (see :func:`with_solutions`)."""
    if "expert_solution" in data.column_names:
        raise UserError(
            f"{folder} asks for whole solutions, as `srl-swe difficulty` found its pivots with the "
            "reward holistic; train with `rewards: {holistic: 1}`, or profile single steps."
        )


def with_solutions(data: Dataset, dialect: Dialect) -> Dataset:
    """Add a column ``expert_solution``, and prompts that ask for all remaining actions.

    The solution of a row is its action and those of the later rows of its trajectory. Actions
    without a row, such as the last ``submit``, are not part of it. Raises UserError if a profile
    has left out rows of the trajectories.
    """
    if "expert_solution" in data.column_names:
        return data
    if PROFILE_COLUMN in data.column_names:
        raise UserError(
            "whole solutions need every step of a trajectory, and a profile has left some out; "
            "train on the data that it was made from, or profile with this reward."
        )
    used = {*_OF_TRAJECTORY, "step_index", "expert_action"} & {*data.column_names}
    solutions = _solutions(data.select_columns(sorted(used)).to_list())
    opening: Message = {"role": "system", "content": dialect.SOLUTION_PROMPT}

    def ask(row: Mapping[str, Any], index: int) -> dict[str, Any]:
        later = dropwhile(lambda message: message["role"] == "system", row["prompt"])
        return {"prompt": [opening, *later], "expert_solution": solutions[index]}

    return data.map(ask, with_indices=True, load_from_cache_file=False)


def _solutions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each row, the actions from there to the end of its trajectory, as one text.

    Rows of one trajectory are adjacent and in order.
    """
    solutions: list[str] = []
    actions: list[str] = []
    following: Mapping[str, Any] = {}
    for row in reversed(rows):
        same = all(row[name] == following.get(name) for name in _OF_TRAJECTORY if name in row)
        if not (same and row["step_index"] < following["step_index"]):
            actions = []
        actions.insert(0, row["expert_action"])
        solutions.append(solution_text(actions))
        following = row
    return solutions[::-1]


# Tokenizers and chat templates.


def load_tokenizer(
    model: str, init_kwargs: Mapping[str, Any], eos_token: str | None = None
) -> PreTrainedTokenizerBase:
    """Load the policy's tokenizer; UserError if the model is missing or has no chat template.

    ``eos_token``: ends a reply in place of the tokenizer's own.
    """
    if check_folder(model) and not (Path(model) / CONFIG).is_file():
        raise UserError(f"{model} is not a model folder: {CONFIG} is missing.")
    revision = init_kwargs.get("revision")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model, revision=revision, padding_side="left"
        )
    except (OSError, ValueError) as error:
        raise UserError(f"no model at {model!r}: {first_words(error)}") from None
    if not tokenizer.chat_template:
        raise UserError(f"{model} has no chat template; SRL trains instruction-tuned models.")
    if eos_token is not None:
        tokenizer.eos_token = eos_token
    check_end(model, tokenizer, revision)
    return tokenizer


def rendered(
    tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Any], **template_kwargs: Any
) -> str:
    """Render the conversation; UserError if the template refuses it (e.g. no system role)."""
    with template_refusals(tokenizer):
        text = tokenizer.apply_chat_template(list(conversation), tokenize=False, **template_kwargs)
    return str(text)


def check_end(model: str, tokenizer: PreTrainedTokenizerBase, revision: str | None = None) -> None:
    """Raise UserError if sampling would not stop at the end of a reply.

    Replies closed by the template without an eos token would teach the policy never to stop.
    """
    if tokenizer.eos_token is None:
        raise UserError(f"the tokenizer of {model} has no eos token.")
    turn = [{"role": "user", "content": "."}, {"role": "assistant", "content": "REPLY"}]
    tail = rendered(tokenizer, turn).rpartition("REPLY")[2]
    declared = _generation_config(model, revision).eos_token_id
    ids = declared if isinstance(declared, list) else [declared]
    of_model = tokenizer.convert_ids_to_tokens([token for token in ids if token is not None])
    ends = dict.fromkeys([tokenizer.eos_token, *filter(None, of_model)])
    if not any(token in tail for token in ends):
        raise UserError(
            f"the chat template of {model} does not end a reply with an eos token, and so no reply "
            f"would stop: it ends in {tail.strip()!r}, the eos tokens are "
            f"{', '.join(map(repr, ends))}; name the right one in its tokenizer_config.json or "
            "generation_config.json, or fine-tune it with `trainer: {eos_token: ...}`."
        )


def reply_ends(
    model: str, tokenizer: PreTrainedTokenizerBase, revision: str | None = None
) -> list[int]:
    """Return all tokens that end a sampled reply, without loading the model."""
    return find_end_ids(tokenizer, _generation_config(model, revision))


def check_replies(model: str, tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> None:
    """Raise UserError if SFT would miss part of the reply, or take part of it for the prompt.

    Templates of reasoning models such as R1 drop the thought from a reply.
    """
    whole = rendered(tokenizer, [*row["prompt"], *row["completion"]])
    prompt = rendered(tokenizer, row["prompt"], add_generation_prompt=True)
    reply = row["completion"][0]["content"]
    if not whole.startswith(prompt) or "".join(reply.split()) not in "".join(whole.split()):
        raise UserError(
            f"the chat template of {model} does not keep a reply with its thought as it is, so "
            "SFT would learn another one; name a template by `trainer: {chat_template_path: ...}`."
        )


def _generation_config(model: str, revision: str | None) -> GenerationConfig:
    """The checkpoint's generation config; without one, transformers' from the model config."""
    try:
        return GenerationConfig.from_pretrained(model, revision=revision or "main")
    except OSError:
        config = AutoConfig.from_pretrained(model, revision=revision)
        return GenerationConfig.from_model_config(config)


# Lengths: a data set made with the policy's own tokenizer records them; those counts are used, and
# a few are verified. Else each row is rendered, and tokenized unless its bytes fit the limit.


Part = Literal["prompt", "row"]
"""Counted tokens: of the prompt up to the start of the reply, or of prompt and completion."""

_MESSAGES: Mapping[Part, Sequence[str]] = {"prompt": ["prompt"], "row": ["prompt", "completion"]}
"""The columns of messages of each part."""
_COUNTED_AGAIN = 8


def max_positions(model: str, init_kwargs: Mapping[str, Any]) -> int | None:
    """Return the model's context length in tokens; None if its config has none."""
    try:
        config = AutoConfig.from_pretrained(model, revision=init_kwargs.get("revision"))
    except (OSError, ValueError) as error:
        raise UserError(f"{model!r} is not a model: {first_words(error)}") from None
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(positions) if positions else None


def served_tokens(args: Any) -> int | None:
    """Return vLLM's context length; None without vLLM or without a configured length."""
    length: int | None = args.vllm_max_model_length if args.use_vllm else None
    return length


def most_tokens(model: str, args: Any) -> int | None:
    """Return the token limit of prompt and reply for model and sampler; None without a limit."""
    limits = (max_positions(model, args.model_init_kwargs or {}), served_tokens(args))
    return min((limit for limit in limits if limit), default=None)


def room_for_prompt(context: int, reply: int, field: str, model: str) -> int:
    """Return the token limit of a prompt; UserError if the reply leaves no room for one."""
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
    """Keep the rows whose prompt leaves room for a reply: TRL does not check, and vLLM would die.

    ``as_made``: the prompts are unchanged since the data set was made.
    """
    room = most_tokens(recipe.model, args)
    if room is None:
        return data
    sampler = "vLLM" if room == served_tokens(args) else recipe.model
    reply = args.max_completion_length or 0
    return fitting_rows(
        data,
        recipe.data,
        tokenizer,
        room_for_prompt(room, reply, "trainer: max_completion_length", sampler),
        "prompt",
        f"{sampler} has room for {room} with max_completion_length {reply}; "
        "make the step contexts with a smaller token budget",
        overlong=recipe.overlong,
        template=args.chat_template_kwargs,
        as_made=as_made,
    )


def fitting_rows(
    data: Dataset,
    folder: str,
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    part: Part,
    way_out: str,
    *,
    overlong: Overlong | None = None,
    template: Mapping[str, Any] | None = None,
    as_made: bool = True,
) -> Dataset:
    """Keep the rows of ``folder`` whose ``part`` takes at most ``limit`` tokens.

    Raises UserError unless the others may be dropped, and if no row would be left. ``overlong``:
    the recipe's choice, None without one. ``as_made``: as in :func:`fitting_prompts`.
    """
    recorded_in = folder if as_made else None
    tokens = overlong_rows(data, tokenizer, limit, part, template, recorded_in=recorded_in)
    if not tokens:
        return data
    finding = (
        f"{len(tokens)} of {len(data)} rows in {folder} take more than {limit} tokens "
        f"(the longest {max(tokens.values())})"
    )
    some_fit = len(tokens) < len(data)
    if overlong != "drop" or not some_fit:
        or_drop = ", or set `overlong: drop`" if overlong and some_fit else ""
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
    """Find the rows whose ``part`` takes more than ``limit`` tokens, with their token counts.

    ``recorded_in``: the folder of the rows; its counts are used if made with this tokenizer and
    chat template. None counts anew. ``template``: variables of the chat template.
    """
    counter = TokenCounter(tokenizer, template)
    recorded = _recorded(data, counter, part, recorded_in) if recorded_in and not template else None
    if recorded is not None:
        return {index: tokens for index, tokens in enumerate(recorded) if tokens > limit}
    asks = {"add_generation_prompt": part == "prompt", **(template or {})}
    overlong: dict[int, int] = {}
    for index, row in enumerate(data.select_columns(_MESSAGES[part])):
        text = rendered(tokenizer, _messages(row, part), **asks)
        if len(text.encode("utf-8", "surrogatepass")) <= limit:  # a token is at least one byte
            continue
        if (tokens := counter.count_text(text)) > limit:
            overlong[index] = tokens
    return overlong


def _recorded(data: Dataset, counter: TokenCounter, part: Part, folder: str) -> list[int] | None:
    """The data set's own counts; None if it has none by this tokenizer, or wrong ones."""
    columns = [f"{name}_tokens" for name in _MESSAGES[part]]
    known_by = recorded_settings(Path(folder)).tokenizer_sha256
    if known_by != counter.digest or not {*columns} <= {*data.column_names}:
        return None
    counts = [data[name][:] for name in columns]
    if any(None in column for column in counts):
        return None
    totals: list[int] = [sum(row) for row in zip(*counts, strict=True)]
    longest = max(range(len(totals)), key=totals.__getitem__)
    spread = (n * len(totals) // _COUNTED_AGAIN for n in range(_COUNTED_AGAIN))
    for index in {longest, *spread}:
        if counter(_messages(data[index], part)) != totals[index]:
            warn(f"{folder}: its token counts are not those of its rows; they are counted again.")
            return None
    return totals


def _messages(row: Mapping[str, Any], part: Part) -> list[Any]:
    return [message for name in _MESSAGES[part] for message in row[name]]
