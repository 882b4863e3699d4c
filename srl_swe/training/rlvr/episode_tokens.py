"""An episode as one sequence of tokens: what the policy wrote, and what it only read.

    prompt | reply 1 | observation 1 | reply 2 | observation 2 | ... | reply N
             1 1 1 1   0 0 0 0 0 0 0   1 1 1 1   0 0 0 0 0 0 0         1 1 1 1    mask

Replies are the very tokens that were sampled, never text that was tokenized again. Observations
get mask 0: they are read in training as they were in sampling, and no gradient flows from them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from srl_swe.rollout.replies import decode_reply
from srl_swe.types import Message

_MARK = "\u2042reply\u2042"
"""Stands for a reply where a template is rendered; no template holds it."""


@dataclass(slots=True)
class EpisodeTokens:
    """``mask`` and ``logprobs`` belong to ``completion``, a number a token."""

    prompt: list[int]
    completion: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    """0.0 where the sampler gives none, and for observations."""

    @property
    def all(self) -> list[int]:
        """What the next reply is sampled after."""
        return [*self.prompt, *self.completion]

    def add_reply(self, ids: Sequence[int], logprobs: Sequence[float | None] | None) -> None:
        """What the policy wrote."""
        self.completion += ids
        self.mask += [1] * len(ids)
        self.logprobs += [0.0] * len(ids) if logprobs is None else logprobs

    def add_observation(self, ids: Sequence[int]) -> None:
        """What it reads before its next reply, the template's own tokens included."""
        self.completion += ids
        self.mask += [0] * len(ids)
        self.logprobs += [0.0] * len(ids)

    def hide(self, end: int) -> None:
        """Take the gradient from all of it; an empty one gets the token ``end``.

        TRL wants a last token of every sample, even of one whose sandbox never opened.
        """
        if not self.completion:
            self.add_observation([end])
        self.mask = [0] * len(self.mask)


class ChatTokens:
    """Tokens of a prompt and of the turns between replies, under a tokenizer's chat template.

    Threads take turns: a fast tokenizer that is asked twice at once may raise "Already borrowed".
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template_kwargs: Mapping[str, Any],
        end_ids: Sequence[int] = (),
    ) -> None:
        """``end_ids``: what ends a reply; without them any special token does."""
        self._tokenizer: Any = tokenizer
        self._template_kwargs = template_kwargs
        self._end_ids = end_ids
        ends = end_ids or [self._tokenizer.eos_token_id]
        self._end = re.compile(
            "|".join(re.escape(str(tokenizer.convert_ids_to_tokens(one))) for one in ends)
        )
        self._lock = threading.Lock()

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The first prompt, up to where a reply begins."""
        with self._lock:
            return list(self._render(messages, tokenize=True, return_dict=False))

    def read(self, reply: Sequence[int]) -> tuple[str, bool]:
        """The text of a reply, and whether the policy itself ended it."""
        with self._lock:
            return decode_reply(self._tokenizer, reply, self._end_ids)

    def between(self, observation: str) -> list[int]:
        """What stands between the last token of a reply and the first of the next."""
        turn = [{"role": "user", "content": "."}, {"role": "assistant", "content": _MARK}]
        answered = [*turn, {"role": "user", "content": observation}]
        with self._lock:
            return self._tokens_after_reply(str(self._render(answered, tokenize=False)))

    def _tokens_after_reply(self, rendered: str) -> list[int]:
        tail = rendered.partition(_MARK)[2]
        end = self._end.search(tail)
        if end and not tail[: end.start()].strip():  # the reply has its end already
            tail = tail[end.end() :]
        return list(self._tokenizer(tail, add_special_tokens=False)["input_ids"])

    def _render(self, messages: Sequence[Any], **options: Any) -> Any:
        return self._tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, **options, **self._template_kwargs
        )
