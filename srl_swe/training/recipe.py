"""Recipes: all that a training run depends on, as records.

method: srl                  sft, srl or rlvr
model: ...                   a folder or hub id that training starts from
data: ...                    a folder of step contexts; rlvr has `bench:`, instances, in its place
output: ...                  a folder for checkpoints, metrics.jsonl and final/
rewards: {similarity: 1.0}   srl: names of srl_swe/rewards with their weights
dynamic_sampling: {epsilon: 0.01, max_rounds: 4}       or null: plain GRPO
trainer: {...}               any field of TRL's GRPOConfig or SFTConfig, passed on untouched
model_config: {...}          any field of TRL's ModelConfig: dtype, LoRA, quantisation
validation: {data: ..., every_steps: 20}               or null: none; `instances:` likewise
alarms: {format_steps: 20}   srl and rlvr: when a run that is under way stops or warns

srl_swe.training.load_recipe reads them, srl_swe.training.curriculum chains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from srl_swe.dialects import Strictness
from srl_swe.errors import UserError
from srl_swe.evaluation.sandbox_tests import DEFAULT_TESTS_TIMEOUT_S
from srl_swe.rollout import Limits
from srl_swe.steps.prompt import Window

Overlong = Literal["error", "drop"]
"""What happens to rows that do not fit: ``error`` names them before the first step, ``drop``
leaves them out and says how many."""

Setting = Literal["patch", "episode"]
StepMetric = Literal["similarity", "format_rate", "exact_match", "reward"]
Metric = StepMetric | Literal["resolved"]

EPISODE_WINDOW = Window(pairs=None, thoughts=True)
"""An episode is trained on as one sequence, so that nothing that was read may be left out."""
PAPER_REWARD: Mapping[str, float] = {"similarity": 1.0}


@dataclass(frozen=True, slots=True)
class DynamicSampling:
    """When a group is worth training on, and how long to look for such groups.

    A group is kept if the population standard deviation of its rewards exceeds ``epsilon``
    (paper, section 3; it gives no value). ``max_rounds``: how often missing groups are sampled
    anew before the batch is trained on as it is; 0 only leaves the dead groups out.
    """

    epsilon: float
    max_rounds: int


@dataclass(frozen=True, slots=True)
class ValidationInstances:
    """Greedy episodes on instances, of which the tests say how many are resolved.

    ``bench``: the name or path of the instances; ``rows``: how many of them, evenly spread, None
    is all. ``limits`` and ``window`` are those of an episode; None is what RLVR trains its episodes
    under, and for SFT and SRL 40 steps and the window of the data, if it is recorded, or else the
    paper's. A prompt that outgrows the model
    loses its oldest observations first.
    """

    bench: str
    rows: int | None = None
    limits: Limits | None = None
    window: Window | None = None
    tests_timeout_s: float = DEFAULT_TESTS_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Validation:
    """Greedy replies on held-out step contexts, on instances, or both; the best policy is kept.

    ``data``: the step contexts, None is none; ``rows``: how many of them, evenly spread, None is
    all. ``metric`` says which policy is best: ``resolved`` is of ``instances``, the others are of
    ``data``; None is ``similarity`` where there is data, else ``resolved``.
    """

    every_steps: int
    data: str | None = None
    rows: int | None = None
    instances: ValidationInstances | None = None
    metric: Metric | None = None
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        if not (self.data or self.instances):
            raise UserError("validation: name `data`, `instances`, or both.")
        needed = "instances" if self.decides == "resolved" else "data"
        if not getattr(self, needed):
            raise UserError(f"validation: the metric {self.decides} needs `{needed}`.")

    @property
    def decides(self) -> Metric:
        """The metric by which the best policy is kept."""
        return self.metric or ("similarity" if self.data else "resolved")


@dataclass(frozen=True, slots=True)
class Alarms:
    """When a run that is under way stops or warns (:mod:`srl_swe.training.alarms`).

    ``format_steps``: so many steps with a format rate of at most ``format_rate``; with
    ``format_stops`` that stops the run, else it warns. ``unfilled_steps``: so many steps in which
    dynamic sampling filled nothing; ``unfilled_stops`` likewise. ``drift_steps``: over so many
    steps the mean reward fell by more than ``drift_reward`` while replies grew by more than the
    share ``drift_length``. ``reward_call_s``: a call of the rewards took more seconds. None in
    place of the steps or seconds switches an alarm off. The defaults are ours.
    """

    format_steps: int | None = 20
    format_rate: float = 0.01
    format_stops: bool = True
    unfilled_steps: int | None = 10
    unfilled_stops: bool = False
    drift_steps: int | None = 50
    drift_reward: float = 0.1
    drift_length: float = 0.25
    reward_call_s: float | None = 300.0


ALARMS_OF_TESTS = Alarms(format_stops=False, reward_call_s=DEFAULT_TESTS_TIMEOUT_S)
"""Of RLVR, whose reward calls run tests, and whose rewards are sparse by nature."""


@dataclass(frozen=True, slots=True)
class SrlRecipe:
    """Supervised reinforcement learning: GRPO on the similarity of single steps.

    ``completions_every``: after how many steps the sampled replies are written down; 0 is never.
    """

    model: str
    data: str
    output: str
    dialect: str = "xml"
    strictness: Strictness = "strict"
    dynamic_sampling: DynamicSampling | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)
    rewards: Mapping[str, float] = field(default_factory=lambda: dict(PAPER_REWARD))
    overlong: Overlong = "error"
    model_config: Mapping[str, Any] = field(default_factory=dict)
    validation: Validation | None = None
    completions_every: int = 10
    alarms: Alarms = field(default_factory=Alarms)


@dataclass(frozen=True, slots=True)
class SftRecipe:
    """Supervised fine-tuning on the same rows; the loss is on the expert's reply only.

    ``dialect`` and ``strictness`` are how validation reads replies.
    """

    model: str
    data: str
    output: str
    dialect: str = "xml"
    strictness: Strictness = "strict"
    overlong: Overlong = "error"
    trainer: Mapping[str, Any] = field(default_factory=dict)
    model_config: Mapping[str, Any] = field(default_factory=dict)
    validation: Validation | None = None


@dataclass(frozen=True, slots=True)
class RlvrRecipe:
    """Reinforcement learning with the tests of instances as the reward.

    ``bench``: the name or path of the instances. ``setting``: ``patch`` is one reply that
    rewrites files, ``episode`` acts in a sandbox within ``limits``. ``reward`` names one of
    srl_swe/rewards/outcome.py. Of ``window``, ``token_budget`` bounds a patch's prompt or a whole
    episode, ``observation_chars`` each observation; ``pairs`` stays null.
    """

    model: str
    bench: str
    output: str
    setting: Setting = "episode"
    dialect: str = "xml"
    strictness: Strictness = "strict"
    limits: Limits = field(default_factory=Limits)
    window: Window = EPISODE_WINDOW
    tests_timeout_s: float = DEFAULT_TESTS_TIMEOUT_S
    reward: str = "outcome"
    dynamic_sampling: DynamicSampling | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)
    model_config: Mapping[str, Any] = field(default_factory=dict)
    validation: Validation | None = None
    completions_every: int = 10
    alarms: Alarms = ALARMS_OF_TESTS


Recipe = SftRecipe | SrlRecipe | RlvrRecipe
RecipeType = type[SftRecipe] | type[SrlRecipe] | type[RlvrRecipe]
METHODS: Mapping[str, RecipeType] = {"sft": SftRecipe, "srl": SrlRecipe, "rlvr": RlvrRecipe}


@dataclass(frozen=True, slots=True)
class Phase:
    """One run of a curriculum. ``name`` is its folder's, such as ``01-srl``."""

    name: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class CurriculumRecipe:
    """Runs one after another, each from the last one's final policy."""

    phases: tuple[Phase, ...]
    output: str


def method_of(recipe: Recipe) -> str:
    """The name that the command line and recipes know its method by."""
    return next(name for name, kind in METHODS.items() if isinstance(recipe, kind))
