"""What can be known to be wrong before the first step, said in one sentence.

Each rank checks the same files, so that all stop alike: one that raised alone would leave the
others waiting in a collective for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from srl_swe.errors import UserError

COLUMNS = ("prompt", "completion", "expert_action", "instance_id", "step_index", "n_steps", "tool")


def load_step_contexts(folder: str) -> Dataset:
    """The data set in the folder; UserError if it is none or lacks a column."""
    try:
        data = load_from_disk(folder)
    except (FileNotFoundError, ValueError):
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
    return data


def load_tokenizer(model: str, init_kwargs: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The policy's tokenizer; UserError if there is no such model or it can't chat."""
    if _is_local(model) and not Path(model).is_dir():
        raise UserError(f"no model folder at {model}.")
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise UserError(f"{model} is no model folder: it holds no config.json.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model, revision=init_kwargs.get("revision"), padding_side="left"
        )
    except (OSError, ValueError) as error:
        raise UserError(f"no model at {model!r}: {_first_line(error)}") from None
    if not tokenizer.chat_template:
        raise UserError(f"{model} has no chat template; SRL trains instruction-tuned models.")
    _check_end(model, tokenizer)
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded


def max_positions(model: str, init_kwargs: Mapping[str, Any]) -> int | None:
    """How many tokens the model can take; None if its config does not say."""
    try:
        config = AutoConfig.from_pretrained(model, revision=init_kwargs.get("revision"))
    except (OSError, ValueError) as error:
        raise UserError(f"{model!r} is no model: {_first_line(error)}") from None
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(positions) if positions else None


def overlong_rows(
    data: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    messages: Callable[[Mapping[str, Any]], list[dict[str, str]]],
    template_kwargs: Mapping[str, Any],
) -> dict[int, int]:
    """Rows whose ``messages`` take more than ``limit`` tokens, with how many they take.

    A token is at least one byte, so that only rows of enough bytes are tokenized.
    """
    overlong: dict[int, int] = {}
    for index, row in enumerate(data):
        conversation = messages(row)
        text = tokenizer.apply_chat_template(conversation, tokenize=False, **template_kwargs)
        if len(str(text).encode("utf-8", "surrogatepass")) <= limit:
            continue
        tokens = len(tokenizer(str(text), add_special_tokens=False)["input_ids"])
        if tokens > limit:
            overlong[index] = tokens
    return overlong


def _check_end(model: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """A reply that the template closes without the eos token would teach never to stop."""
    if tokenizer.eos_token is None:
        raise UserError(f"the tokenizer of {model} has no eos token.")
    turn = [{"role": "user", "content": "."}, {"role": "assistant", "content": "REPLY"}]
    rendered = str(tokenizer.apply_chat_template(turn, tokenize=False))
    tail = rendered.rpartition("REPLY")[2]
    if not any(token in tail for token in tokenizer.all_special_tokens):
        raise UserError(f"the chat template of {model} does not end a reply with its eos token.")


def _is_local(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.count("/") != 1


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
