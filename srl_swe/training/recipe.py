"""Recipes: all settings of a training run, as validated records.

method: srl                  sft, srl or rlvr
model: ...                   the folder or hub id of the starting model
data: ...                    a folder of step contexts; rlvr has `bench:`, instances, instead
output: ...                  the folder of checkpoints, metrics.jsonl and final/
rewards: {similarity: 1.0}   srl: names of srl_swe/rewards with their weights
dynamic_sampling: {epsilon: 0.01, max_rounds: 4}       or null: plain GRPO
share_prompt: true           forward a shared prompt once, of a group or in sft of a trajectory
trainer: {...}               any field of TRL's GRPOConfig or SFTConfig, passed through
model_config: {...}          any field of TRL's ModelConfig: dtype, LoRA, quantisation
validation: {data: ..., every_steps: 20}               and/or `instances:`; null: no validation
alarms: {format_steps: 20}   srl and rlvr: when a run stops or warns
asynchronous: {max_staleness: 4}   srl: a vLLM server samples while the trainer trains

The records are pydantic dataclasses: they convert ("5e-7" is a number) and check their values,
independent of torch and TRL. :mod:`srl_swe.training.load_recipe` reads them from
YAML and the command line, :mod:`srl_swe.training.curriculum` chains them.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from srl_swe.dialects import Strictness, get_dialect
from srl_swe.domains import WorkedDomain, find_domain, find_worked
from srl_swe.errors import UserError, did_you_mean
from srl_swe.evaluation.sandbox_tests import DEFAULT_TESTS_TIMEOUT_S
from srl_swe.rewards.outcome import TEST_REWARDS
from srl_swe.rewards.table import weight_shares
from srl_swe.rollout import EpisodeLimits
from srl_swe.steps.prompt import Window

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Checked = TypeVar("Checked")

EPISODE_WINDOW = Window(pairs=None, thoughts=True)
"""An episode is trained on as one sequence; nothing of it may leave the prompt."""
PAPER_REWARD: Mapping[str, float] = {"similarity": 1.0}

Overlong = Literal["error", "drop"]
"""Handling of rows that do not fit: ``error`` stops before the first step, ``drop`` leaves them
out and counts them."""
Setting = Literal["patch", "episode"]
StepMetric = Literal["similarity", "format_rate", "exact_match", "reward"]
Metric = Literal[StepMetric, "resolved"]

# Types of fields with constraints beyond their Python type.

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Flag = Annotated[bool, Field(strict=True)]


def _checked_by(check: Callable[[Any], object]) -> AfterValidator:
    """Keep the value if ``check`` does not raise UserError."""

    def keep(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(keep)


def _over(default: Any) -> BeforeValidator:
    """Merge a section into the default record; an empty, null or false section is the default."""

    def merge(section: Any) -> Any:
        if not section:
            return default
        if isinstance(section, dict) and is_dataclass(default):
            return {**dataclasses.asdict(default), **section}  # type: ignore[arg-type]
        return section

    return BeforeValidator(merge)


def _check_signs(record: EpisodeLimits | Window) -> None:
    """Check EpisodeLimits and Window, plain records of rollouts; only ``pairs`` may be 0."""
    for name in (entry.name for entry in dataclasses.fields(record)):
        number, least = getattr(record, name), -1 if name == "pairs" else 0
        if not (number is None or isinstance(number, bool) or number > least):
            where = f"{type(record).__name__.lower()}.{name}"
            raise UserError(f"{where} must be greater than {least}, not {number}.")


def _check_test_reward(name: str) -> None:
    if name not in TEST_REWARDS:
        hint = did_you_mean(name, TEST_REWARDS)
        raise UserError(f"unknown reward {name!r}.{hint} Known: {', '.join(TEST_REWARDS)}.")


DomainName = Annotated[str, _checked_by(find_domain)]
DialectName = Annotated[str, _checked_by(get_dialect)]
Mixture = Annotated[
    Mapping[str, float],
    BeforeValidator(lambda given: {given: 1.0} if isinstance(given, str) else given),
    _checked_by(weight_shares),
]
TestReward = Annotated[str, _checked_by(_check_test_reward)]
TrlSection = Annotated[Mapping[str, Any], _over({})]
CheckedLimits = Annotated[EpisodeLimits, _checked_by(_check_signs)]
PromptWindow = Annotated[Window, _checked_by(_check_signs)]

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, config=_STRICT)
class DynamicSampling:
    """Settings of dynamic sampling.

    A group is kept if the population standard deviation of its rewards exceeds ``epsilon``
    (paper, section 3; it gives no value). ``max_rounds``: how often to resample missing groups
    before training on the batch as it is; 0 only leaves the dead groups out.
    """

    epsilon: Annotated[float, Field(ge=0)]
    max_rounds: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True, config=_STRICT)
class ValidationInstances:
    """Greedy episodes on instances; the metric is the share resolved by their tests.

    ``bench``: the name or path of the instances; ``rows``: how many of them, evenly spread, None
    for all. ``limits`` and ``window`` apply per episode. None: for RLVR those of its training
    episodes; for SFT and SRL 40 steps and the window recorded in the data, or else the paper's.
    A prompt that outgrows the model loses its oldest observations first.
    """

    bench: str
    rows: Positive | None = None
    limits: Annotated[CheckedLimits | None, _over(None)] = None
    window: Annotated[PromptWindow | None, _over(None)] = None
    tests_timeout_s: PositiveFloat = DEFAULT_TESTS_TIMEOUT_S


@dataclass(frozen=True, slots=True, config=_STRICT)
class Validation:
    """Greedy replies on held-out step contexts, on instances, or both; the best policy is kept.

    ``data``: the step contexts; ``rows``: how many of them, evenly spread, None for all.
    ``metric`` decides which policy is best: ``resolved`` needs ``instances``, the others
    ``data``; None means ``similarity`` if there is data, else ``resolved``.
    """

    every_steps: Positive
    data: str | None = None
    rows: Positive | None = None
    instances: Annotated[ValidationInstances | None, _over(None)] = None
    metric: Metric | None = None
    max_new_tokens: Positive | None = None

    def __post_init__(self) -> None:
        if not (self.data or self.instances):
            raise UserError("validation: name `data`, `instances`, or both.")
        needed = "instances" if self.decides == "resolved" else "data"
        if not getattr(self, needed):
            raise UserError(f"validation: the metric {self.decides} needs `{needed}`.")

    @property
    def decides(self) -> Metric:
        """The metric that decides the best policy."""
        return self.metric or ("similarity" if self.data else "resolved")


@dataclass(frozen=True, slots=True, config=_STRICT)
class Alarms:
    """Thresholds at which a run stops or warns (:mod:`srl_swe.training.alarms`).

    ``format_steps``: this many steps with a format rate of at most ``format_rate``; with
    ``format_stops`` they stop the run, else they warn. ``unfilled_steps``: this many steps in
    which dynamic sampling filled nothing; ``unfilled_stops`` likewise. ``drift_steps``: over this
    many steps the mean reward fell by more than ``drift_reward`` while replies grew by more than
    the share ``drift_length``. ``reward_call_s``: a call of the rewards took more seconds. None
    for the steps or seconds switches an alarm off. The defaults are ours.
    """

    format_steps: Positive | None = 20
    format_rate: Annotated[float, Field(ge=0)] = 0.01
    format_stops: Flag = True
    unfilled_steps: Positive | None = 10
    unfilled_stops: Flag = False
    drift_steps: Positive | None = 50
    drift_reward: PositiveFloat = 0.1
    drift_length: PositiveFloat = 0.25
    reward_call_s: PositiveFloat | None = 300.0


ALARMS_OF_TESTS = Alarms(format_stops=False, reward_call_s=DEFAULT_TESTS_TIMEOUT_S)
"""Defaults of RLVR, whose reward calls run tests and whose rewards are sparse by nature."""

SamplingSection = Annotated[DynamicSampling | None, _over(None)]
ValidationSection = Annotated[Validation | None, _over(None)]


@dataclass(frozen=True, slots=True, config=_STRICT)
class Asynchronous:
    """Settings of sampling by a vLLM server while the trainer trains.

    ``max_staleness``: groups sampled by a policy more than this many updates old are discarded.
    """

    max_staleness: Positive


@dataclass(frozen=True, slots=True, config=_STRICT)
class SrlRecipe:
    """Supervised reinforcement learning: GRPO on the similarity of single steps.

    ``share_prompt``: forward the prompt of a group once for all its replies;
    ``share_prompt_tokens``: most tokens of such a forward pass, None sets no limit.
    ``completions_every``: steps between two tables of sampled replies; 0 writes none.
    ``asynchronous``: None samples and trains in turn.
    """

    model: str
    data: str
    output: str
    dialect: DialectName = "xml"
    strictness: Strictness = "strict"
    dynamic_sampling: SamplingSection = None
    share_prompt: Flag = False
    share_prompt_tokens: Positive | None = None
    trainer: TrlSection = field(default_factory=dict)
    rewards: Mixture = field(default_factory=lambda: dict(PAPER_REWARD))
    overlong: Overlong = "error"
    model_config: TrlSection = field(default_factory=dict)
    validation: ValidationSection = None
    completions_every: Annotated[int, Field(ge=0)] = 10
    alarms: Annotated[Alarms, _over(Alarms())] = field(default_factory=Alarms)
    asynchronous: Annotated[Asynchronous | None, _over(None)] = None


@dataclass(frozen=True, slots=True, config=_STRICT)
class SftRecipe:
    """Supervised fine-tuning on the same rows; the loss is on the expert's reply only.

    ``dialect`` and ``strictness`` are for reading replies in validation. ``share_prompt``: steps of
    a trajectory whose prompts continue each other are one sequence.
    """

    model: str
    data: str
    output: str
    dialect: DialectName = "xml"
    strictness: Strictness = "strict"
    share_prompt: Flag = False
    overlong: Overlong = "error"
    trainer: TrlSection = field(default_factory=dict)
    model_config: TrlSection = field(default_factory=dict)
    validation: ValidationSection = None


@dataclass(frozen=True, slots=True, config=_STRICT)
class RlvrRecipe:
    """Reinforcement learning with the tests of instances as the reward.

    ``bench``: name or path of the instances. ``setting``: ``patch`` is one reply that rewrites
    files, ``episode`` acts in a sandbox within ``limits``. ``reward``: a name of
    srl_swe/rewards/outcome.py. ``window``: ``token_budget`` bounds a patch's prompt or a whole
    episode, ``observation_chars`` each observation; ``pairs`` stays null. ``domain``: that of the
    instances. In a domain of worked solutions the answer of a whole solution is verified, without
    ``setting``, ``limits``, ``tests_timeout_s``. ``share_prompt*``: as for SRL, not in episodes.
    """

    model: str
    bench: str
    output: str
    setting: Setting = "episode"
    dialect: DialectName = "xml"
    strictness: Strictness = "strict"
    limits: Annotated[CheckedLimits, _over(EpisodeLimits())] = field(default_factory=EpisodeLimits)
    window: Annotated[PromptWindow, _over(EPISODE_WINDOW)] = EPISODE_WINDOW
    tests_timeout_s: PositiveFloat = DEFAULT_TESTS_TIMEOUT_S
    reward: TestReward = "outcome"
    dynamic_sampling: SamplingSection = None
    share_prompt: Flag = False
    share_prompt_tokens: Positive | None = None
    trainer: TrlSection = field(default_factory=dict)
    model_config: TrlSection = field(default_factory=dict)
    validation: ValidationSection = None
    completions_every: Annotated[int, Field(ge=0)] = 10
    alarms: Annotated[Alarms, _over(ALARMS_OF_TESTS)] = ALARMS_OF_TESTS
    domain: DomainName = "software"

    def __post_init__(self) -> None:
        plays = self.validation is not None and bool(self.validation.instances)
        if plays and (self.setting != "episode" or self.worked):
            asked = f"domain: {self.domain}" if self.worked else f"setting: {self.setting}"
            raise UserError(
                f"validation.instances plays episodes, and a policy of `{asked}` learns to "
                "answer in one reply; leave it out, and measure that policy afterwards."
            )

    @property
    def worked(self) -> WorkedDomain | None:
        """The domain if a reply is a whole solution, verified by its answer; None for software."""
        return find_worked(self.domain)


Recipe = SftRecipe | SrlRecipe | RlvrRecipe
RecipeType = type[SftRecipe] | type[SrlRecipe] | type[RlvrRecipe]
METHODS: Mapping[str, RecipeType] = {"sft": SftRecipe, "srl": SrlRecipe, "rlvr": RlvrRecipe}


@dataclasses.dataclass(frozen=True, slots=True)
class Phase:
    """One run of a curriculum. ``name``: its folder's, such as ``01-srl``."""

    name: str
    recipe: Recipe


@dataclasses.dataclass(frozen=True, slots=True)
class CurriculumRecipe:
    """Runs one after another, each from the previous one's final policy."""

    phases: tuple[Phase, ...]
    output: str


def method_of(recipe: Recipe) -> str:
    """Return the method's name in recipes and on the command line."""
    return next(name for name, kind in METHODS.items() if isinstance(recipe, kind))


def check(record: type[Checked], content: Mapping[str, Any], where: str) -> Checked:
    """Make the record from its content. Raises UserError of one line if pydantic refuses it."""
    try:
        return TypeAdapter(record).validate_python(content)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except ValidationError as error:
        found = error.errors(include_url=False)
        first = min(found, key=lambda mistake: mistake["type"] not in _UNKNOWN)
        raise _refusal(first, record, where) from None


_UNKNOWN = {"unexpected_keyword_argument", "invalid_key"}


def _refusal(error: ErrorDetails, record: Any, where: str) -> UserError:
    *sections, name = map(str, error["loc"])
    given, path = error["input"], ".".join([*sections, name])
    kind, reason = error["type"], re.split(", | after", error["msg"])[0]
    message = re.sub(r"^\w+ should", "must", reason)
    if kind in _UNKNOWN:
        for section in sections:
            hint = get_type_hints(record)[section]
            record = next(part for part in (hint, *get_args(hint)) if is_dataclass(part))
        return unknown_field(name, field_names(record), ": ".join([where, *sections]))
    if kind == "missing" or (given is None and not sections and kind == "string_type"):
        return UserError(f"{where}: {path} is not set; write `{name}: ...` or give --{path}.")
    if kind in {"dataclass_type", "dict_type"}:
        message = "must hold `name: value` lines"
    elif kind == "literal_error":
        message = f"must be {error['ctx']['expected']}"
    return UserError(f"{where}: {path} {message}, not {shown(given)}.")


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 200
_REPR.maxlevel = 2


def shown(value: object) -> str:
    """The value for a message, shortened; None as YAML's null."""
    return "null" if value is None else _REPR.repr(value)


def unknown_field(name: object, known: Sequence[str], where: str) -> UserError:
    """Make the error for an unknown name, with the nearest known one."""
    return UserError(f"{where}: unknown field {name!r}.{did_you_mean(name, known)}")


def field_names(record: type[Any]) -> list[str]:
    """Return the names of the dataclass's init fields."""
    return [field.name for field in dataclasses.fields(record) if field.init]


def field_of(option: str, names: Collection[str]) -> str | None:
    """Find the field of ``learning_rate``, ``learning-rate`` or ``no_shuffle_dataset``."""
    name = option.replace("-", "_")
    return next((found for found in (name, name.removeprefix("no_")) if found in names), None)
