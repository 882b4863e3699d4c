"""Decodes replies; finds their end tokens, and how a template opens or closes the thought.

Used by rollouts, validation, profiles and training.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from srl_swe.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from srl_swe.dialects import Strictness

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
