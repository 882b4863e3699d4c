"""TRL's config objects from the sections ``trainer`` and ``model_config`` of a recipe."""

from __future__ import annotations

import dataclasses
import enum
import os
import re
import types
import warnings
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import huggingface_hub.constants
import yaml
from trl.scripts.utils import TrlParser
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.model_config import ModelConfig
from trl.trainer.utils import get_peft_config, get_quantization_config

from srl_swe.errors import UserError, did_you_mean
from srl_swe.rollout.local_policy import PLAIN
from srl_swe.training.recipe import Recipe

# Checks one section of a recipe against the dataclass that it fills.


def field_names(record: type[Any]) -> list[str]:
    """The fields that the dataclass takes."""
    return [field.name for field in dataclasses.fields(record) if field.init]


def refuse_unknown(names: Iterable[object], known: Iterable[str], where: str) -> None:
    """Raise UserError, with the nearest known name, for a name that is not known."""
    known = list(known)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"{where}: unknown field {name!r}.{hint}")


def one_of(value: object, allowed: Iterable[str], where: str) -> None:
    """Raise UserError unless the value is one of those allowed."""
    allowed = list(allowed)
    if value not in allowed:
        raise UserError(f"{where} is {value!r}; it must be one of {', '.join(allowed)}.")


def typed_section(section: Any, record: type[Any], where: str) -> dict[str, Any]:
    """The section with its numbers as numbers: YAML 1.1 reads ``5e-7`` as a text.

    Other types are left to ``record`` to judge.
    """
    if not isinstance(section, dict):
        raise UserError(f"{where} must hold `name: value` lines, not {section!r}.")
    refuse_unknown(section, field_names(record), where)
    hints = get_type_hints(record)
    return {
        name: as_number(value, hints[name], f"{where}: {name}") for name, value in section.items()
    }


def kinds_of(hint: Any) -> set[Any]:
    """The types that a hint allows, None aside."""
    is_union = get_origin(hint) in (Union, types.UnionType)
    return (set(get_args(hint)) if is_union else {hint}) - {types.NoneType}


def is_number(hint: Any) -> bool:
    """Whether only a number will do."""
    return kinds_of(hint) <= {int, float}


def as_number(value: Any, hint: Any, where: str) -> Any:
    """The value, converted if ``hint`` says that only a number will do."""
    if value is None or not is_number(hint):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{where} must be a number, not {value!r}.") from None
    kinds = kinds_of(hint)
    if kinds == {float}:
        return number
    if number.is_integer():
        return int(number)
    if kinds == {int}:
        raise UserError(f"{where} must be a whole number, not {value!r}.")
    return number


# Fields of TRL's dataclasses, read as TRL's own scripts read them from a command line.


_UNSET = object()
_TRUTHS = {"true", "false", "yes", "no"}


class TrlFields:
    """The fields of ``record``, one of TRL's dataclasses.

    Texts are for TRL's parser to convert, with what it lacks: a list for whatever may hold one
    (``--report_to wandb tensorboard``), YAML for lists and dicts (``'{dtype: bfloat16}'``), 2.0
    or 1e3 for a whole number, and a text where a field takes texts beside true and false.
    """

    def __init__(self, record: Any) -> None:
        self._hints = get_type_hints(record)
        self._parser = _Parser([record], allow_abbrev=False, add_help=False)
        self.names = field_names(record)

    def field_of(self, option: str) -> str | None:
        """The field behind ``learning_rate``, ``learning-rate`` or ``no_shuffle_dataset``."""
        name = option.replace("-", "_")
        return next((one for one in (name, name.removeprefix("no_")) if one in self.names), None)

    def read(self, option: str, words: Sequence[str], where: str) -> Any:
        """The value of the field that ``--option word ...`` sets; UserError if it can't be one."""
        name = self.field_of(option)
        if name is None:
            refuse_unknown([option], self.names, where)
            raise AssertionError(option)
        hint, where = self._hints[name], f"{where}: {name}"
        if len(words) == 1 and _is_none(words[0], hint):
            return None
        if len(words) == 1 and _is_structured(words[0], hint):
            return _yaml(words[0], where)
        if len(words) == 1 and is_number(hint):
            return as_number(words[0], hint, where)
        if len(words) == 1 and {str, bool} <= kinds_of(hint) and words[0].lower() not in _TRUTHS:
            return words[0]
        if len(words) > 1 and _holds(hint, list):
            return [item for word in words for item in _as_list(self._parse(option, [word], where))]
        return self._parse(option, words, where)

    def convert(self, name: str, value: Any, where: str) -> Any:
        """The value that YAML gave, its texts read as above; others are TRL's to judge."""
        hint = self._hints[name]
        if isinstance(value, str):
            return self.read(name, [value], where)
        if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            return self.read(name, value, where)
        if value is False and any(isinstance(kind, enum.EnumMeta) for kind in kinds_of(hint)):
            return self.read(name, ["no"], where)  # what YAML 1.1 makes of `save_strategy: no`
        return as_number(value, hint, f"{where}: {name}")

    def section(self, section: Any, where: str) -> dict[str, Any]:
        """A section of a recipe that holds such fields. UserError for whatever can't be one."""
        if not isinstance(section, dict):
            raise UserError(f"{where} must hold `name: value` lines, not {section!r}.")
        refuse_unknown(section, self.names, where)
        return {name: self.convert(name, value, where) for name, value in section.items()}

    def _parse(self, option: str, words: Sequence[str], where: str) -> Any:
        given = Namespace(**dict.fromkeys(self.names, _UNSET))
        line = [f"--{option}={words[0]}"] if len(words) == 1 else [f"--{option}", *words]
        try:
            _, rest = self._parser.parse_known_args(line, given)
        except _Refused as refusal:
            raise UserError(f"{where}: {refusal}.") from None
        found = [value for value in vars(given).values() if value is not _UNSET]
        if rest or len(found) != 1:
            raise UserError(f"{where} takes one value, not {' '.join(words)!r}.")
        return found[0]


class _Refused(ValueError):
    """What argparse would have printed before it ended the process."""


class _Parser(TrlParser):
    def error(self, message: str) -> NoReturn:
        """``argument --name/-n: invalid ...`` without its first half, which the caller says."""
        said = message.partition(": ")[2] if message.startswith("argument ") else message
        raise _Refused(said or message)


def _is_none(text: str, hint: Any) -> bool:
    """Whether it means None; where a text may stand, ``none`` can be a word like any other."""
    is_word = str in kinds_of(hint) and not _holds(hint, dict)
    return text.lower() in {"none", "null"} and type(None) in get_args(hint) and not is_word


def _is_structured(text: str, hint: Any) -> bool:
    return text.lstrip().startswith(("{", "[")) and (_holds(hint, dict) or _holds(hint, list))


def _holds(hint: Any, container: type[Any]) -> bool:
    return any(container in (kind, get_origin(kind)) for kind in kinds_of(hint))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{where}: {text!r} is no YAML.") from None


Config = TypeVar("Config")

_OF_THE_USERS = re.compile(
    r"\w+Callback requires "  # a reporter that is not installed, or not told where to report to
    r"|You're using `assistant_only_loss=True`"  # with a template that marks no reply
    r"|The vLLM server at "  # was started without what TRL needs of it
)
"""How RuntimeErrors of transformers and TRL begin that a recipe or a machine is at fault for."""

OUR_DEFAULTS = {"logging_steps": 1, "report_to": "none"}
"""Where TRL's defaults are 10 and every reporter that happens to be installed. GRPO samples by
:data:`srl_swe.rollout.local_policy.PLAIN` beside them, as validation and rollouts do."""

INIT_KWARGS = {
    "dtype": "dtype",
    "attn_implementation": "attn_implementation",
    "model_revision": "revision",
}
"""Fields of ModelConfig that ``from_pretrained`` takes, and its names for them."""


@dataclass(frozen=True, slots=True)
class ModelArguments:
    """How the model is loaded, and what of it is trained.

    ``init_kwargs``: for ``from_pretrained``. ``peft_config``: None trains every weight.
    """

    init_kwargs: dict[str, Any] = field(default_factory=dict)
    peft_config: Any = None
    quantization_config: Any = None

    @property
    def for_trainer(self) -> dict[str, Any]:
        """The keywords that every trainer of TRL's takes beside its config."""
        return {
            "peft_config": self.peft_config,
            "quantization_config": self.quantization_config,
        }


def model_arguments(recipe: Recipe) -> ModelArguments:
    """What ``model_config`` and ``trainer.model_init_kwargs`` say together.

    What neither says stays TRL's default, which loads in fp32. Raises UserError where they
    contradict each other or ask for what would silently be ignored.
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
        peft_config = get_peft_config(config)
        quantization_config = get_quantization_config(config)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"model_config: {_one_line(error)}") from None
    _name_single_module(peft_config)
    return ModelArguments(init_kwargs, peft_config, quantization_config)


def make_trainer_args(
    config: type[Config],
    section: Mapping[str, Any],
    output: Path,
    model: ModelArguments | None = None,
) -> Config:
    """The config with TRL's own defaults and checks; what they refuse becomes a UserError."""
    disable_telemetry()
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


@contextmanager
def trl_refusals() -> Iterator[None]:
    """Makes a UserError of what a config or a trainer of TRL's is refused with as it is made.

    A reporter, a kernel or an optimizer that is not installed, or fields that contradict each
    other: every rank is refused alike. A vLLM server that does not answer: the first rank is. Of
    RuntimeErrors only those known to be a mistake of the user's: a GPU without memory, or a bug,
    keeps its traceback.
    """
    try:
        yield
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        if isinstance(error, RuntimeError) and not _OF_THE_USERS.match(str(error)):
            raise
        raise UserError(f"trainer: {_one_line(error)}") from error


def model_init_kwargs(args: Any) -> dict[str, Any]:
    """What the model is loaded with: ``dtype``, ``revision``, ``attn_implementation`` and so on."""
    return dict(args.model_init_kwargs or {})


def template_kwargs(args: Any) -> dict[str, Any]:
    """What the chat template is rendered with, such as ``enable_thinking``; SFT has no such."""
    return dict(getattr(args, "chat_template_kwargs", None) or {})


def disable_telemetry() -> None:
    """TRL reports each run to the hub unless told not to; here and in child processes."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True


def _refuse_ignored(section: Mapping[str, Any]) -> None:
    """TRL ignores LoRA's fields without ``use_peft``, and can't train a quantised model whole."""
    if section.get("use_peft"):
        return
    idle = [name for name in section if name.startswith("lora_") or name in _OF_LORA]
    if idle:
        raise UserError(
            f"model_config: {', '.join(idle)} need LoRA; set `use_peft: true` or leave them out."
        )


def _name_single_module(peft_config: Any) -> None:
    """TRL makes a text of a list of one, which PEFT takes for a pattern of whole paths."""
    target = getattr(peft_config, "target_modules", None)
    if isinstance(target, str) and re.fullmatch(r"\w+", target):
        peft_config.target_modules = {target}


_OF_LORA = {"use_rslora", "use_dora", "load_in_4bit", "load_in_8bit"}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
