"""How much the demo does: the full one, and a quick one with every stage for the tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from srl_swe.context_window import Window


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What decides a demo's results; a resume under another plan is refused.

    ``sft`` and ``srl`` override fields of the recipes ``sft-demo`` and ``srl-demo``.
    ``training_instances`` and ``held_out_instances`` say how many of each are rolled out.
    """

    training_instances: int
    held_out_instances: int
    sft: dict[str, str] = field(default_factory=dict)
    srl: dict[str, str] = field(default_factory=dict)
    observation_chars: int = 600
    max_steps: int = 12
    max_new_tokens: int = 96

    @property
    def window(self) -> Window:
        """The paper's last two pairs, with short observations."""
        return Window(observation_chars=self.observation_chars)


FULL = DemoPlan(training_instances=8, held_out_instances=2)
QUICK = DemoPlan(
    training_instances=1,
    held_out_instances=1,
    sft={"max_steps": "20"},
    srl={"max_steps": "2"},
    max_new_tokens=48,
)
