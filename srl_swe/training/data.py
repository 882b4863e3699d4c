"""Loading and checking of training data and tokenizers, before the first step.

Every rank checks the same files and stops alike: a rank that raised alone would leave the others
waiting in a collective forever.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from accelerate import PartialState
from datasets import Dataset
from jinja2 import TemplateError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from srl_swe.dialects import Dialect, ReplyFormat, get_dialect
from srl_swe.errors import UserError
from srl_swe.rewards.holistic import solution_text
from srl_swe.rollout.replies import find_end_ids
from srl_swe.rollout.tokens import TokenCounter
from srl_swe.steps.rows import load_rows, recorded_settings
from srl_swe.training.recipe import Overlong, SrlRecipe
from srl_swe.types import Message

# What a chat template does to a conversation, looked at before anything is trained on it.


def rendered(
    tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Any], **template_kwargs: Any
) -> str:
    """The conversation as text; UserError if the template refuses it, as one without a system."""
    try:
        text = tokenizer.apply_chat_template(list(conversation), tokenize=False, **template_kwargs)
    except TemplateError as error:
        model, said = tokenizer.name_or_path, " ".join(str(error).split()).rstrip(".")
        raise UserError(f"the chat template of {model} refuses these messages: {said}.") from None
    return str(text)


def check_end(model: str, tokenizer: PreTrainedTokenizerBase, revision: str | None = None) -> None:
    """Raises UserError if sampling would not stop at the end of a reply.

    A reply that the template closes without an eos token would teach never to stop.
    """
    if tokenizer.eos_token is None:
        raise UserError(f"the tokenizer of {model} has no eos token.")
    turn = [{"role": "user", "content": "."}, {"role": "assistant", "content": "REPLY"}]
    tail = rendered(tokenizer, turn).rpartition("REPLY")[2]
    ends = [tokenizer.eos_token, *_ends_of_model(model, tokenizer, revision)]
    if not any(token in tail for token in ends):
        raise UserError(
            f"the chat template of {model} does not end a reply with an eos token, and so no reply "
            f"would stop: it ends in {tail.strip()!r}, the eos tokens are "
            f"{', '.join(map(repr, dict.fromkeys(ends)))}; name the right one in its "
            "tokenizer_config.json or generation_config.json, or fine-tune it with `trainer: "
            "{eos_token: ...}`."
        )


def reply_ends(
    model: str, tokenizer: PreTrainedTokenizerBase, revision: str | None = None
) -> list[int]:
    """All tokens that end a sampled reply, before the model is loaded."""
    return find_end_ids(tokenizer, _generation_config(model, revision))


def _ends_of_model(
    model: str, tokenizer: PreTrainedTokenizerBase, revision: str | None
) -> list[str]:
    """The tokens that end a sampled reply beside the tokenizer's own eos token."""
    ids = _generation_config(model, revision).eos_token_id
    ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
    return [str(token) for token in tokenizer.convert_ids_to_tokens(ids) if token is not None]


def _generation_config(model: str, revision: str | None) -> GenerationConfig:
    """The checkpoint's; without one, the config that transformers makes of its model config."""
    try:
        return GenerationConfig.from_pretrained(model, revision=revision or "main")
    except OSError:
        config = AutoConfig.from_pretrained(model, revision=revision)
        return GenerationConfig.from_model_config(config)


def check_replies(model: str, tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> None:
    """Raise UserError where SFT would not see the whole reply, or takes part of it for the prompt.

    Templates of reasoning models, R1's for one, leave the thought out of what was said.
    """
    whole = rendered(tokenizer, [*row["prompt"], *row["completion"]])
    prompt = rendered(tokenizer, row["prompt"], add_generation_prompt=True)
    reply = row["completion"][0]["content"]
    if not whole.startswith(prompt) or "".join(reply.split()) not in "".join(whole.split()):
        raise UserError(
            f"the chat template of {model} does not keep a reply with its thought as it is, so "
            "SFT would learn another one; name a template by `trainer: {chat_template_path: ...}`."
        )


# Rows of step contexts that no trainer could take, found by column before anything is loaded.


_IMAGES = ("images", "image")
"""Columns by which TRL takes a row for one of a vision model."""


def check_rows(data: Dataset, folder: str) -> None:
    """Raise UserError that names the first row whose prompt, reply or place is missing."""
    for name in _IMAGES:
        if name in data.column_names:
            raise UserError(
                f"{folder} has a column {name!r}: step contexts are text alone; remove the column."
            )
    table = _table(data)
    for name in ("prompt", "completion"):
        _refuse(_without_messages(table.column(name), name, folder), f"no {name}", folder)
    for name in ("instance_id", "tool"):
        _refuse(pc.is_null(table.column(name)), f"no {name}", folder)
    steps, index = _numbers(table, "n_steps", folder), _numbers(table, "step_index", folder)
    _refuse(_either(pc.is_null(steps), pc.less(steps, 1)), "n_steps below 1", folder)
    outside = pc.or_(pc.less(index, 0), pc.greater_equal(index, steps))
    _refuse(_either(pc.is_null(index), outside), "a step_index outside of n_steps", folder)


def check_expert_actions(data: Dataset, folder: str) -> None:
    """Raise UserError for rows that no reply can be compared with; SFT takes them."""
    column = _table(data).column("expert_action").cast(pa.string())
    blank = pc.equal(pc.utf8_trim_whitespace(column), "")
    _refuse(_either(pc.is_null(column), blank), "no expert_action", folder)


def _numbers(table: Any, name: str, folder: str) -> Any:
    column = table.column(name)
    if not (pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        raise UserError(f"{folder}: {name} must be a whole number, not {column.type}.")
    return column


def _table(data: Dataset) -> Any:
    return data.data if data._indices is None else data.flatten_indices().data


def _without_messages(column: Any, name: str, folder: str) -> Any:
    """Whether each row is without a message, or has one without a text."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise UserError(f"{folder}: {name} must be a list of messages, not {column.type}.")
    empty = _either(pc.is_null(column), pc.equal(pc.list_value_length(column), 0))
    kind = column.type.value_type
    if not pa.types.is_struct(kind) or kind.get_field_index("content") < 0:
        raise UserError(f"{folder}: {name} must be messages of role and content, not {kind}.")
    contents = pc.struct_field(pc.list_flatten(column), "content")
    if not contents.null_count:
        return empty
    silent = pc.filter(pc.list_parent_indices(column), pc.is_null(contents))
    rows = pa.array(range(len(column)), silent.type)
    return pc.or_(empty, pc.is_in(rows, value_set=pa.array(silent.to_pylist(), silent.type)))


def _either(is_null: Any, is_wrong: Any) -> Any:
    return pc.or_(is_null, pc.fill_null(is_wrong, True))


def _refuse(wrong: Any, what: str, folder: str) -> None:
    count = pc.sum(wrong).as_py() or 0
    if count:
        first = pc.index(wrong, True).as_py()
        raise UserError(
            f"{folder}: {count} of {len(wrong)} rows have {what} (the first is row {first}); leave "
            "them out, or make the step contexts anew with `srl-swe steps`."
        )


# Rows that ask for all remaining actions at once, for rewards that compare whole solutions.


PROFILE_COLUMN = "profile_mean"
"""A data set with it holds only those steps of a trajectory that were worth keeping."""


def expert_column(replies: ReplyFormat) -> str:
    """The column of the step contexts that replies are compared with."""
    return "expert_solution" if replies.whole_solution else "expert_action"


_OF_TRAJECTORY = ("trajectory_id", "instance_id", "n_steps")
_USED = (*_OF_TRAJECTORY, "step_index", "expert_action")


def with_solutions(data: Dataset, dialect: Dialect) -> Dataset:
    """The rows with a column ``expert_solution``, and prompts that ask for one.

    The solution of a row is its action and those of the later rows of its trajectory, so that
    what made no row, the last ``submit`` above all, is not part of it. Raises UserError if rows
    of the trajectories were left out since.
    """
    if "expert_solution" in data.column_names:
        return data
    if PROFILE_COLUMN in data.column_names:
        raise UserError(
            "whole solutions need every step of a trajectory, and a profile has left some out; "
            "train on the data that it was made from, or profile with this reward."
        )
    columns = [name for name in _USED if name in data.column_names]
    solutions = _solutions(data.select_columns(columns).to_list())

    def ask(row: Mapping[str, Any], index: int) -> dict[str, Any]:
        prompt = solution_prompt(row["prompt"], dialect)
        return {"prompt": prompt, "expert_solution": solutions[index]}

    return data.map(ask, with_indices=True, load_from_cache_file=False)


def solution_prompt(prompt: Sequence[Message], dialect: Dialect) -> list[Message]:
    """The prompt of a step with the system prompt that asks for all remaining actions."""
    asked: Message = {"role": "system", "content": dialect.SOLUTION_PROMPT}
    has_system = bool(prompt) and prompt[0]["role"] == "system"
    return [asked, *prompt[1 if has_system else 0 :]]


def _solutions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each row the actions from there to the end of its trajectory, as one text."""
    solutions: list[str] = []
    following: list[str] = []
    for index in reversed(range(len(rows))):
        if index + 1 == len(rows) or not _continues(rows[index], rows[index + 1]):
            following = []
        following.insert(0, rows[index]["expert_action"])
        solutions.append(solution_text(following))
    return solutions[::-1]


def _continues(row: Mapping[str, Any], following: Mapping[str, Any]) -> bool:
    """Whether two neighbours are of one trajectory: its rows are in order, one after another."""
    same = all(row[name] == following[name] for name in _OF_TRAJECTORY if name in row)
    return bool(same and row["step_index"] < following["step_index"])


logger = logging.getLogger(__name__)

COLUMNS = ("prompt", "completion", "expert_action", "instance_id", "step_index", "n_steps", "tool")


def load_step_contexts(folder: str) -> Dataset:
    """Load a data set. Raises UserError if it is not one or has rows that can't be trained on."""
    try:
        data = load_rows(Path(folder))
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no step contexts; make them with `srl-swe steps`."
        ) from None
    except IndexError:  # how datasets 5 fails on a data set without rows, hence without tables
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


def check_dialect(data: Dataset, name: str, dialect: str) -> None:
    """Raises UserError if the expert's replies are written in another dialect."""
    reply = data[0]["completion"][0]["content"]
    if get_dialect(dialect).parse_reply(reply, "lenient").action is None:
        raise UserError(f"{name} is not written in the dialect {dialect}; set `dialect:`.")


def with_thoughts(data: Dataset, name: str) -> Dataset:
    """The rows whose reply holds a thought: the others would teach what breaks the format.

    Raises UserError where none does.
    """
    if "has_thought" not in data.column_names:
        return data
    kept = [index for index, has_one in enumerate(data["has_thought"]) if has_one]
    if not kept:
        raise UserError(f"{name} has no thought in any reply, so SFT can't learn the format of it.")
    if len(kept) == len(data):
        return data
    warn(f"{len(data) - len(kept)} of {len(data)} rows in {name} have no thought: left out.")
    return data.select(kept)


def load_tokenizer(
    model: str, init_kwargs: Mapping[str, Any], eos_token: str | None = None
) -> PreTrainedTokenizerBase:
    """The policy's tokenizer; UserError if there is no such model or it can't chat.

    ``eos_token``: what is to end a reply in the place of the tokenizer's own.
    """
    if _is_local(model) and not Path(model).is_dir():
        raise UserError(f"no model folder at {model}.")
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise UserError(f"{model} is not a model folder: config.json is missing.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model, revision=init_kwargs.get("revision"), padding_side="left"
        )
    except (OSError, ValueError) as error:
        raise UserError(f"no model at {model!r}: {_first_line(error)}") from None
    if not tokenizer.chat_template:
        raise UserError(f"{model} has no chat template; SRL trains instruction-tuned models.")
    if eos_token is not None:
        tokenizer.eos_token = eos_token
    check_end(model, tokenizer, init_kwargs.get("revision"))
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded


def warn(finding: str) -> None:
    """Log a warning on the first rank only."""
    if PartialState().is_main_process:
        logger.warning("%s", finding)


def _is_local(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.count("/") != 1


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


# Rows, prompts and replies that do not fit the model, found before the first step.
#
# A data set made with the policy's own tokenizer holds the length of each prompt already: those
# counts are used, and a few are counted again to be sure. Else each row is rendered, and counted
# unless it has fewer bytes than tokens are allowed.


Part = Literal["prompt", "row"]
"""Counted tokens: of the prompt up to where a reply begins, or of prompt and completion."""

_COLUMNS: Mapping[Part, tuple[str, ...]] = {
    "prompt": ("prompt_tokens",),
    "row": ("prompt_tokens", "completion_tokens"),
}
_COUNTED_AGAIN = 8


def max_positions(model: str, init_kwargs: Mapping[str, Any]) -> int | None:
    """The number of tokens that the model takes; None if its config has no such number."""
    try:
        config = AutoConfig.from_pretrained(model, revision=init_kwargs.get("revision"))
    except (OSError, ValueError) as error:
        raise UserError(f"{model!r} is not a model: {str(error).strip().splitlines()[0]}") from None
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(positions) if positions else None


def served_tokens(args: Any) -> int | None:
    """The number of tokens that vLLM takes; None without vLLM or without a configured length."""
    length: int | None = args.vllm_max_model_length if args.use_vllm else None
    return length


def most_tokens(model: str, args: Any) -> int | None:
    """The most tokens of prompt and reply for model and sampler; None if neither has a limit."""
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
