"""From token ids to the reply's text, and what the chat template adds before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase


def decode_reply(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, bool]:
    """The text of sampled ids, and whether the policy itself ended it.

    Decoded from the ids, since a tokenizer with a ``response_template`` moves the thought out
    of the message's content. Only the special tokens at the end go: one in the middle is text.
    """
    special = set(tokenizer.all_special_ids)
    end = len(ids)
    while end and ids[end - 1] in special:
        end -= 1
    text = tokenizer.decode(
        list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return str(text), end < len(ids)


def opens_thought(
    tokenizer: PreTrainedTokenizerBase, template_kwargs: Mapping[str, Any] | None = None
) -> bool:
    """Whether the template's generation prompt already holds ``<think>``, as those of R1 do."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "."}],
        tokenize=False,
        add_generation_prompt=True,
        **(template_kwargs or {}),
    )
    return str(prompt).rstrip().endswith("<think>")
