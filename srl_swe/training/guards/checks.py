"""What can be known to be wrong before the first step, said in one sentence.

Each rank checks the same files, so that all stop alike: one that raised alone would leave the
others waiting in a collective for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState  # type: ignore[import-untyped]
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.step_dataset.folder import load_rows
from srl_swe.training.guards.chat_template import check_end
from srl_swe.training.guards.rows import check_rows

logger = logging.getLogger(__name__)

COLUMNS = ("prompt", "completion", "expert_action", "instance_id", "step_index", "n_steps", "tool")


def load_step_contexts(folder: str) -> Dataset:
    """The data set in the folder; UserError if it is none, or has rows that can't be trained on."""
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
    """Raise UserError where the expert's replies are written in another dialect."""
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
        raise UserError(f"{model} is no model folder: it holds no config.json.")
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
    """Say it once, on the first rank; for what may well go wrong but need not."""
    if PartialState().is_main_process:
        logger.warning("%s", finding)


def _is_local(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.count("/") != 1


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
