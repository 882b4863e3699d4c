"""How large a model is, from its config alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig


@dataclass(frozen=True, slots=True)
class ModelSize:
    """``bytes_each``: of a parameter as it is loaded for training."""

    parameters: int
    bytes_each: int

    @property
    def weights(self) -> int:
        """Bytes of all parameters."""
        return self.parameters * self.bytes_each


def empty_model(model: str, init_kwargs: Mapping[str, Any]) -> Any:
    """The model's modules without weights.

    None for an architecture that transformers does not know as a language model. Made by its
    class: ``from_config`` would share the weights out where ZeRO-3 is on, and there are none.
    """
    config = AutoConfig.from_pretrained(model, revision=init_kwargs.get("revision"))
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    of_text = not isinstance(config, architecture.config_class)
    with torch.device("meta"):
        return architecture(config.get_text_config() if of_text else config)


def model_size(empty: Any, init_kwargs: Mapping[str, Any]) -> ModelSize:
    """Counts the parameters of an :func:`empty_model`; in fp32 unless said otherwise."""
    parameters = sum(weight.numel() for weight in empty.parameters())
    return ModelSize(parameters, _dtype(empty.config, init_kwargs).itemsize)


def _dtype(config: Any, init_kwargs: Mapping[str, Any]) -> torch.dtype:
    asked = init_kwargs.get("dtype") or torch.float32
    if asked == "auto":
        asked = config.dtype or torch.float32
    dtype: torch.dtype = getattr(torch, asked) if isinstance(asked, str) else asked
    return dtype
