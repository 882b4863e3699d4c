"""Tokens under a policy's chat template: exact and fast counts, replies, their ends and thoughts.

A fast tokenizer splits a text at its added tokens, and normalises and encodes each segment by
itself. The counter caches the count of each segment: the prompts of one trajectory share nearly
all of their text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import TemplateError

from srl_swe.errors import UserError
from srl_swe.files import first_words
from srl_swe.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from srl_swe.dialects import Strictness

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
        with template_refusals(self.tokenizer):
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


@contextmanager
def template_refusals(tokenizer: Any) -> Iterator[None]:
    """UserError if the chat template refuses messages, such as those of a system."""
    try:
        yield
    except TemplateError as error:
        model, said = tokenizer.name_or_path, " ".join(str(error).split()).rstrip(".")
        raise UserError(f"the chat template of {model} refuses these messages: {said}.") from None


def chat_tokenizer(name: str) -> Any:
    """The tokenizer of a folder or a hub model. Raises UserError without a chat template."""
    from transformers import AutoTokenizer

    try:
        loaded: Any = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # a bare one of the package tokenizers for a newer file
        raise UserError(f"{name}: no tokenizer ({first_words(error)}).") from None
    if not loaded.chat_template:
        raise UserError(f"{name} has no chat template; name an instruction-tuned model.")
    return loaded


@cache
def token_counter(tokenizer: str) -> TokenCounter:
    """The counter of a folder or a hub model, cached. Raises UserError without a chat template."""
    return TokenCounter(chat_tokenizer(tokenizer))


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


Opening = Literal["none", "opened", "closed"]
"""The thought in a generation prompt: not begun, begun, or empty and closed."""

_MARK = "\u2042reply\u2042"


def decode_reply(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], end_ids: Collection[int] = ()
) -> tuple[str, bool]:
    """The text of sampled ids, and whether the policy ended it.

    ``end_ids``: the tokens that end a reply (:func:`find_end_ids`); if empty, any special token
    does. Decoded from the ids, since a tokenizer with a ``response_template`` moves the thought
    out of the message's content. Special tokens are removed at the end only.
    """
    special = {*tokenizer.all_special_ids, *end_ids}
    end = len(ids)
    while end and ids[end - 1] in special:
        end -= 1
    text = tokenizer.decode(
        list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return str(text), any(token in end_ids or not end_ids for token in ids[end:])


def find_end_ids(
    tokenizer: PreTrainedTokenizerBase,
    generation_config: Any,
    template: Mapping[str, Any] | None = None,
) -> list[int]:
    """All tokens that end a reply, without duplicates.

    The tokenizer's eos token, the generation config's (a number or list), and the first special
    token that the chat template writes after a reply, if any.
    """
    declared = getattr(generation_config, "eos_token_id", None)
    listed = declared if isinstance(declared, list) else [declared]
    turn = [{"role": "user", "content": "."}, {"role": "assistant", "content": _MARK}]
    tail = _render(tokenizer, turn, template, asks=False).rpartition(_MARK)[2]
    written: list[int] = tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ends_turn = next((token for token in written if token in special), None)
    found = [tokenizer.eos_token_id, *listed, ends_turn]
    return list(dict.fromkeys(int(token) for token in found if token is not None))


def thought_opening(
    tokenizer: PreTrainedTokenizerBase, template: Mapping[str, Any] | None = None
) -> Opening:
    """The thought in the template's generation prompt.

    R1's and Qwen3-Thinking's open it; Qwen3's with ``enable_thinking: false`` opens and closes it.
    """
    asked = _render(tokenizer, [{"role": "user", "content": _MARK}], template, asks=True)
    added = asked.rpartition(_MARK)[2]
    if "</think>" in added:
        return "closed"
    return "opened" if added.rstrip().endswith("<think>") else "none"


def check_thought(model: str, opening: Opening, strictness: Strictness) -> None:
    """Raise UserError if replies must hold a thought and the generation prompt has closed it.

    Every reply would be out of format.
    """
    if strictness == "strict" and opening == "closed":
        raise UserError(
            f"the chat template of {model} closes the thought before a reply begins (</think> in "
            "the generation prompt), and no reply could hold one: leave `enable_thinking: "
            "false` out of chat_template_kwargs, or take replies without a thought by `strictness: "
            "lenient`."
        )


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Any],
    template: Mapping[str, Any] | None,
    *,
    asks: bool,
) -> str:
    text = tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=asks, **(template or {})
    )
    return str(text)
