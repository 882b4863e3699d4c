"""Counting the tokens of a prompt under a policy's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srl_swe.context_window import CountTokens
from srl_swe.types import Message


def token_counter(tokenizer: str) -> CountTokens:
    """Counts under the chat template of ``tokenizer``, a folder or a name on the hub."""
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer)

    def count(messages: Sequence[Message]) -> int:
        chat: list[Any] = list(messages)
        ids: Any = loaded.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        return len(ids)

    return count
