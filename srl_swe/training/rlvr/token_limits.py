"""How many tokens a prompt or an episode of RLVR may have; None where nothing says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from srl_swe.errors import UserError
from srl_swe.training.guards.lengths import most_tokens, room_for_prompt
from srl_swe.training.recipes.records import RlvrRecipe


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """``asked`` is the recipe's, ``hard`` the sampler's; ``reply`` is the longest reply."""

    asked: int | None
    hard: int | None
    reply: int

    @property
    def prompt(self) -> int | None:
        """Of a prompt that one reply follows: what is asked for is the prompt's alone."""
        return _least(self.asked, None if self.hard is None else self.hard - self.reply)

    @property
    def episode(self) -> int | None:
        """Of a prompt and all that follows it."""
        return _least(self.asked, self.hard)


def token_limits(recipe: RlvrRecipe, args: Any) -> TokenLimits:
    """Of the recipe, and of the model or vLLM, which would die of a prompt too long.

    Raises UserError if the longest reply leaves no room for a prompt.
    """
    if args.max_completion_length is None:
        raise UserError("trainer: max_completion_length must be set for rlvr.")
    hard = most_tokens(recipe.model, args)
    if hard is not None:
        name = "trainer: max_completion_length"
        room_for_prompt(hard, args.max_completion_length, name, recipe.model)
    return TokenLimits(recipe.window.token_budget, hard, args.max_completion_length)


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
