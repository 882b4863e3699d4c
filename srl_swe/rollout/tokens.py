"""Counting the tokens of messages under a policy's chat template, exactly and fast.

A fast tokenizer splits a text at its added tokens, and normalises and encodes each segment by
itself. The counter caches the count of each segment: the prompts of one trajectory share nearly
all of their text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from srl_swe.errors import UserError
from srl_swe.types import Message

_SEGMENTS_KEPT = 2048
"""Several times the messages of a long trajectory; most segments are at most a message."""


class TokenCounter:
    """Counts and renders exactly as the tokenizer's ``apply_chat_template``.

    ``tokenizer``: one of transformers with a chat template. Whole texts are counted for slow
    tokenizers (in Python), whose segments may depend on their neighbours, and for tokenizers set
    to split added tokens. ``template``: variables of the chat template, such as
    ``enable_thinking``.
    """

    def __init__(self, tokenizer: Any, template: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self._template = dict(template or {})
        by_segment = tokenizer.is_fast and not tokenizer.split_special_tokens
        self.count_text = _count_by_segment(tokenizer) if by_segment else self._count_whole
        """The tokens of a text from :meth:`render`."""

    def __call__(self, messages: Sequence[Message]) -> int:
        """The tokens of the chat, as in :data:`~srl_swe.steps.prompt.CountTokens`."""
        return self.count_text(self.render(messages))

    def render(self, messages: Sequence[Message]) -> str:
        """The text to tokenize; with the generation prompt, unless a reply ends it."""
        chat: list[Any] = list(messages)
        asks = chat[-1]["role"] != "assistant"
        text = self.tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=asks, **self._template
        )
        return str(text)

    @property
    def digest(self) -> str:
        """Digest of the vocabulary, rules and chat template, which decide the counts."""
        rules = (
            self.tokenizer.backend_tokenizer.to_str()
            if self.tokenizer.is_fast
            else repr(sorted(self.tokenizer.get_vocab().items()))
        )
        return hashlib.sha256(f"{rules}\0{self.tokenizer.chat_template}".encode()).hexdigest()

    def _count_whole(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@cache
def token_counter(tokenizer: str) -> TokenCounter:
    """The counter of a folder or a hub model, cached. Raises UserError without a chat template."""
    from transformers import AutoTokenizer

    try:
        loaded: Any = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        raise UserError(f"{tokenizer}: no tokenizer ({str(error).splitlines()[0]}).") from None
    if not loaded.chat_template:
        raise UserError(f"{tokenizer} has no chat template; name an instruction-tuned model.")
    return TokenCounter(loaded)


def _count_by_segment(tokenizer: Any) -> Callable[[str], int]:
    """Counts of texts. Encodes a segment after its added token: some differ at a text's start.

    Searches for all added tokens that match before normalisation, as the longest wins, but cuts a
    text only at tokens that take no adjacent space and end any adjacent word.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    added = [token for token in tokenizer.added_tokens_decoder.values() if not token.normalized]
    cuts_at = {
        token.content
        for token in added
        if not (token.lstrip or token.rstrip or token.single_word)
        and re.fullmatch(r"[^\w\s](.*[^\w\s])?", token.content, re.DOTALL)
    }
    longest_first = sorted((token.content for token in added), key=len, reverse=True)
    found = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @lru_cache(_SEGMENTS_KEPT)
    def count_segment(before: str, segment: str) -> int:
        (encoded,) = backend.encode_batch_fast([before + segment], add_special_tokens=False)
        return len(encoded)

    def count(text: str) -> int:
        total, start, before = 0, 0, ""
        for match in found.finditer(text):
            if match[0] in cuts_at:
                total += count_segment(before, text[start : match.start()])
                start, before = match.end(), match[0]
        return total + count_segment(before, text[start:])

    return count
