"""What a chat template does to a conversation, looked at before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from srl_swe.errors import UserError
from srl_swe.rollout.replies import find_end_ids


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
    """Raise UserError where sampling would not stop at the end of a reply.

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
