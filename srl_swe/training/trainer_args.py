"""TRL's config objects from the section ``trainer`` of a recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub.constants

from srl_swe.errors import UserError

Config = TypeVar("Config")

OUR_DEFAULTS = {"logging_steps": 1, "report_to": "none"}
"""Where TRL's defaults are 10 and every reporter that happens to be installed."""


def make_trainer_args(config: type[Config], section: Mapping[str, Any], output: Path) -> Config:
    """The config with TRL's own defaults and checks; what they refuse becomes a UserError."""
    disable_telemetry()
    try:
        return config(**{**OUR_DEFAULTS, **section, "output_dir": str(output)})
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from None


def model_init_kwargs(args: Any) -> dict[str, Any]:
    """What the model is loaded with: ``dtype``, ``revision``, ``attn_implementation`` and so on."""
    return dict(args.model_init_kwargs or {})


def template_kwargs(args: Any) -> dict[str, Any]:
    """What the chat template is rendered with, such as ``enable_thinking``."""
    return dict(args.chat_template_kwargs or {})


def disable_telemetry() -> None:
    """TRL reports each run to the hub unless told not to; here and in child processes."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
