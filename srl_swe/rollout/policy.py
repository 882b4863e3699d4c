"""The policy's side of a rollout: what picks the next action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from srl_swe.types import Message


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled reply. ``truncated``: it reached the limit of new tokens before its end."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    truncated: bool = False


class Policy(Protocol):
    """Replies to a prompt. Safe to call from several threads."""

    name: str
    """Goes into predictions as ``model_name_or_path``."""

    def reply(self, messages: Sequence[Message]) -> Completion:
        """The next reply. Raises PromptTooLong where the prompt leaves no room for one."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt under the policy's chat template."""
        ...


class PromptTooLong(ValueError):
    """The prompt does not fit the policy's context; the rollout ends with TOKEN_LIMIT."""
