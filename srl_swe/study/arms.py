"""The arms: what a policy is trained by. Each but the base is a curriculum that ships as a recipe.

A unit of the budget is one update on :data:`ACTIONS_AN_UPDATE` actions, of the expert or of the
policy. A reply that holds a whole solution, or an episode, is many actions; so these arms take
fewer of them, and the recipes say how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from srl_swe.errors import UserError

ACTIONS_AN_UPDATE = 64


@dataclass(frozen=True, slots=True)
class Arm:
    """``phases``: names of the recipe's phases with the share of the budget that each one gets."""

    name: str
    label: str
    phases: tuple[tuple[str, float], ...] = ()

    @property
    def recipe(self) -> str:
        """The curriculum that ships."""
        return f"study-{self.name}"


ARMS = (
    Arm("base", "base"),
    Arm("sft", "SFT", (("sft", 1.0),)),
    Arm("srl", "SRL", (("srl", 1.0),)),
    Arm("srl-unfiltered", "SRL without dynamic sampling", (("srl", 1.0),)),
    Arm("holistic", "holistic similarity", (("holistic", 1.0),)),
    Arm("rlvr", "RLVR", (("rlvr", 1.0),)),
    Arm("srl-rlvr", "SRL, then RLVR", (("srl", 0.5), ("rlvr", 0.5))),
)


def get_arms(names: Sequence[str]) -> list[Arm]:
    """Those of that name, in the order of :data:`ARMS`. Raises UserError for an unknown one."""
    known = [arm.name for arm in ARMS]
    for name in names:
        if name not in known:
            raise UserError(f"no arm {name!r}. Known: {', '.join(known)}.")
    return [arm for arm in ARMS if arm.name in names]
