"""Makes TRL's configs from the sections ``trainer`` and ``model_config`` of a recipe."""

from __future__ import annotations

import logging
import os
import re
import warnings
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import EnumMeta
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import datasets
import huggingface_hub.constants
from trl.scripts.utils import TrlParser
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.model_config import ModelConfig
from trl.trainer.utils import get_peft_config, get_quantization_config

from srl_swe.errors import UserError
from srl_swe.rollout.local_policy import PLAIN
from srl_swe.rollout.weights import hide_weight_bars
from srl_swe.training.recipe import Recipe, field_names, field_of, unknown_field
from srl_swe.trajectories.fields import parse_yaml


class TrlFields:
    """The fields of ``record``, a dataclass of TRL, read like the command line of TRL's scripts.

    Strings are converted by TRL's parser. Added are: lists for fields of list or string
    (``--report_to wandb tensorboard``), YAML for lists and dicts (``'{dtype: bfloat16}'``), null,
    2.0 or 1e3 for whole numbers, and strings for fields that also take true and false.
    """

    def __init__(self, record: Any) -> None:
        self.names = field_names(record)
        self._hints = get_type_hints(record)
        self._parser = _Parser([record], allow_abbrev=False, add_help=False)

    def read(self, option: str, words: Sequence[str], where: str) -> Any:
        """Convert the words of ``--option word ...`` to the field's value. Raises UserError."""
        name = field_of(option, self.names)
        if name is None:
            raise unknown_field(option, self.names, where)
        kinds, where = _kinds(self._hints[name]), f"{where}: {name}"
        takes_list = list in kinds
        if len(words) == 1:
            (word,) = words
            if (
                word.lower() in {"none", "null"}
                and NoneType in kinds
                and (str not in kinds or dict in kinds)
            ):
                return None
            if word.lstrip().startswith(("{", "[")) and (dict in kinds or takes_list):
                return _yaml(word, where)
            if {str, bool} <= kinds and word.lower() not in {"true", "false", "yes", "no"}:
                return word
            if kinds <= {int, NoneType}:
                words = [_whole(word)]
        elif takes_list:
            items = [self._parse(option, [word], where) for word in words]
            return [part for item in items for part in (item if isinstance(item, list) else [item])]
        return self._parse(option, words, where)

    def section(self, section: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Convert the strings of a recipe's section; TRL checks other values."""
        return {name: self._convert(name, value, where) for name, value in section.items()}

    def _convert(self, name: str, value: Any, where: str) -> Any:
        kinds = _kinds(self._hints[name])
        if value is False and any(isinstance(kind, EnumMeta) for kind in kinds):
            value = "no"  # YAML 1.1 reads no as false, as in `save_strategy: no`
        words = value if isinstance(value, list) else [value]
        if words and all(isinstance(word, str) for word in words):
            return self.read(name, words, where)
        if kinds <= {int, float, NoneType} and isinstance(value, int | float):
            return self.read(name, [repr(value)], where)
        return value

    def _parse(self, option: str, words: Sequence[str], where: str) -> Any:
        given = Namespace(**dict.fromkeys(self.names, _UNSET))
        line = [f"--{option}={words[0]}"] if len(words) == 1 else [f"--{option}", *words]
        try:
            _, rest = self._parser.parse_known_args(line, given)
        except ArgumentTypeError as refusal:
            raise UserError(f"{where}: {refusal}.") from None
        found = [value for value in vars(given).values() if value is not _UNSET]
        if rest or len(found) != 1:
            raise UserError(f"{where} takes one value, not {' '.join(words)!r}.")
        return found[0]


_UNSET = object()


class _Parser(TrlParser):
    def error(self, message: str) -> NoReturn:
        """Raise the ``invalid ...`` part of ``argument --name/-n: invalid ...``; never exit."""
        raise ArgumentTypeError(message.partition(": ")[2] or message)


def _kinds(hint: Any) -> set[Any]:
    """The types of a hint, without their parameters: dict for ``dict[str, Any]``."""
    is_union = get_origin(hint) in {Union, UnionType}
    return {get_origin(kind) or kind for kind in (get_args(hint) if is_union else [hint])}


def _whole(word: str) -> str:
    """Convert 2.0 and 1e3 to 2 and 1000; other words stay."""
    try:
        number = float(word)
    except ValueError:
        return word
    return str(int(number)) if number.is_integer() else word


def _yaml(text: str, where: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError:
        raise UserError(f"{where}: {text!r} is not YAML.") from None


Config = TypeVar("Config")

_OF_THE_USERS = re.compile(
    r"\w+Callback requires "  # a reporter not installed or not configured
    r"|You're using `assistant_only_loss=True`"  # with a template that marks no reply
    r"|The vLLM server at "  # it lacks options that TRL needs
)
"""Beginnings of RuntimeErrors of transformers and TRL caused by a recipe or a machine."""

OUR_DEFAULTS = {"logging_steps": 1, "report_to": "none"}
"""Replace TRL's defaults, 10 and every installed reporter. GRPO also samples by
:data:`srl_swe.rollout.local_policy.PLAIN`, as validation and rollouts do."""

INIT_KWARGS = {
    "dtype": "dtype",
    "attn_implementation": "attn_implementation",
    "model_revision": "revision",
}
"""Fields of ModelConfig for ``from_pretrained``, with its names for them."""


@dataclass(frozen=True, slots=True)
class ModelArguments:
    """Settings of loading the model, and of the weights to train.

    ``init_kwargs``: for ``from_pretrained``. ``peft_config``: None trains every weight.
    """

    init_kwargs: dict[str, Any] = field(default_factory=dict)
    peft_config: Any = None
    quantization_config: Any = None

    @property
    def for_trainer(self) -> dict[str, Any]:
        """Keyword arguments of every TRL trainer besides its config."""
        return {
            "peft_config": self.peft_config,
            "quantization_config": self.quantization_config,
        }


def model_arguments(recipe: Recipe) -> ModelArguments:
    """Make the model's arguments from ``model_config`` and ``trainer.model_init_kwargs``.

    TRL's defaults apply otherwise; they load in fp32. Raises UserError if the two contradict each
    other or set fields silently ignored by TRL.
    """
    section = recipe.model_config
    init_kwargs = dict(recipe.trainer.get("model_init_kwargs") or {})
    for name, keyword in INIT_KWARGS.items():
        if name in section and init_kwargs.setdefault(keyword, section[name]) != section[name]:
            raise UserError(
                f"{keyword} is {section[name]!r} in model_config and {init_kwargs[keyword]!r} in "
                "trainer.model_init_kwargs; say it once."
            )
    _refuse_ignored(section)
    dtype = {name: value for name, value in init_kwargs.items() if name == "dtype"}
    try:
        config = ModelConfig(**{**section, **dtype})
        peft_config: Any = get_peft_config(config)
        quantization_config = get_quantization_config(config)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"model_config: {_one_line(error)}") from None
    target = getattr(peft_config, "target_modules", None)
    if isinstance(target, str) and re.fullmatch(r"\w+", target):
        # TRL unpacks the list of a single module: to PEFT a string is a pattern of whole paths
        peft_config.target_modules = {target}
    return ModelArguments(init_kwargs, peft_config, quantization_config)


def make_trainer_args(
    config: type[Config],
    section: Mapping[str, Any],
    output: Path,
    model: ModelArguments | None = None,
) -> Config:
    """Make the config, with TRL's defaults and checks; their refusals become UserErrors."""
    quiet_libraries()
    sampling = PLAIN if issubclass(config, GRPOConfig) else {}
    asked = {**OUR_DEFAULTS, **sampling, **section, "output_dir": str(output)}
    if model is not None:
        asked["model_init_kwargs"] = model.init_kwargs
    with trl_refusals(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated")
        try:
            return config(**asked)
        except TypeError as error:
            raise UserError(f"trainer: {_one_line(error)}") from None
        except ZeroDivisionError:
            raise UserError("trainer: num_generations and batch sizes must be above 0.") from None


@contextmanager
def trl_refusals() -> Iterator[None]:
    """Turn TRL's refusals of a config or a trainer into UserErrors.

    Every rank is refused alike for a missing reporter, kernel or optimizer, or for contradicting
    fields; only the first rank for a vLLM server that does not answer. Only RuntimeErrors known to
    be the user's mistake are turned: a GPU without memory, or a bug, keeps its traceback.
    """
    try:
        yield
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        if isinstance(error, RuntimeError) and not _OF_THE_USERS.match(str(error)):
            raise
        raise UserError(f"trainer: {_one_line(error)}") from error


def template_kwargs(args: Any) -> dict[str, Any]:
    """Return the variables of the chat template, such as ``enable_thinking``; SFT has none."""
    return dict(getattr(args, "chat_template_kwargs", None) or {})


def quiet_libraries() -> None:
    """Stop TRL from reporting each run to the hub, and hide other bars than the run's own.

    transformers stays as verbose as it is: the Trainer drops its progress callback otherwise.
    """
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # of child processes
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    hide_weight_bars()
    datasets.disable_progress_bars()
    logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)  # on file times


def quiet_experiments() -> None:
    """Silence TRL's notices on experimental parts and vLLM's version, here and in child processes.

    The version has been warned of once, by the pre-flight checks.
    """
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("PYTHONWARNINGS", "ignore:TRL currently supports vLLM:UserWarning")
    warnings.filterwarnings("ignore", "TRL currently supports vLLM", UserWarning)


def _refuse_ignored(section: Mapping[str, Any]) -> None:
    """Refuse LoRA or quantisation fields without ``use_peft``: TRL ignores or can't train them."""
    bits = [name for name in section if name.startswith(("bnb_", "use_bnb_"))]
    if bits and not section.get("load_in_4bit"):
        raise UserError(
            f"model_config: {', '.join(bits)} need `load_in_4bit: true`; set it or leave them out."
        )
    if section.get("use_peft"):
        return
    idle = [name for name in section if name.startswith("lora_") or name in _OF_LORA]
    if idle:
        raise UserError(
            f"model_config: {', '.join(idle)} need LoRA; set `use_peft: true` or leave them out."
        )


_OF_LORA = {"use_rslora", "use_dora", "load_in_4bit", "load_in_8bit"}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def check_dynamic_sampling(args: Any) -> None:
    """Raise UserError if single groups can't be replaced on the rank that sampled them."""
    samples = args.per_device_train_batch_size * args.steps_per_generation
    if samples % args.num_generations:
        raise UserError(
            "dynamic sampling keeps a group on one rank: per_device_train_batch_size x "
            f"steps_per_generation ({samples}) must be a multiple of num_generations "
            f"({args.num_generations})."
        )
    for name, over_a_batch in (
        ("scale_rewards", "batch"),
        ("multi_objective_aggregation", "normalize_then_sum"),
    ):
        if getattr(args, name) == over_a_batch:
            raise UserError(
                f"trainer: {name}: {over_a_batch} scales rewards over all that is sampled at "
                "once, so that the refills of dynamic sampling would be scaled by themselves; "
                f"leave {name} out, or set `dynamic_sampling: null`."
            )
