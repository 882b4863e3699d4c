"""A policy for tests: it replies from a script and remembers its prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from srl_swe.rollout.episode import Completion
from srl_swe.types import Message


class ScriptedPolicy:
    """Gives the replies in order; a prompt after the last one raises AssertionError."""

    name = "scripted"

    def __init__(self, replies: Iterable[str]) -> None:
        self._replies = iter(list(replies))
        self.prompts: list[list[Message]] = []

    def reply(self, messages: Sequence[Message]) -> Completion:
        """The next reply of the script."""
        self.prompts.append(list(messages))
        text = next(self._replies, None)
        if text is None:
            raise AssertionError(f"the script is over, but reply {len(self.prompts)} was asked for")
        return Completion(text, self.count_tokens(messages), len(text))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """One token per character."""
        return sum(len(message["content"]) for message in messages)

    def with_seed(self, seed: int) -> ScriptedPolicy:
        """Itself: the script does not depend on a seed."""
        return self
