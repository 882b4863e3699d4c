"""TRL's config objects from the sections ``trainer`` and ``model_config`` of a recipe."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub.constants
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.model_config import ModelConfig
from trl.trainer.utils import get_peft_config, get_quantization_config

from srl_swe.errors import UserError
from srl_swe.rollout.generate import PLAIN
from srl_swe.training.recipes.records import Recipe

Config = TypeVar("Config")

_OF_THE_USERS = re.compile(
    r"\w+Callback requires "  # a reporter that is not installed, or not told where to report to
    r"|You're using `assistant_only_loss=True`"  # with a template that marks no reply
    r"|The vLLM server at "  # was started without what TRL needs of it
)
"""How RuntimeErrors of transformers and TRL begin that a recipe or a machine is at fault for."""

OUR_DEFAULTS = {"logging_steps": 1, "report_to": "none"}
"""Where TRL's defaults are 10 and every reporter that happens to be installed. GRPO samples by
:data:`srl_swe.rollout.generate.PLAIN` beside them, as validation and rollouts do."""

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
