"""What a chat template does to a conversation, looked at before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from srl_swe.errors import UserError


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


def check_end(model: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """A reply that the template closes without the eos token would teach never to stop."""
    if tokenizer.eos_token is None:
        raise UserError(f"the tokenizer of {model} has no eos token.")
    turn = [{"role": "user", "content": "."}, {"role": "assistant", "content": "REPLY"}]
    tail = rendered(tokenizer, turn).rpartition("REPLY")[2]
    if not any(token in tail for token in tokenizer.all_special_tokens):
        raise UserError(f"the chat template of {model} does not end a reply with its eos token.")


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
