"""Packages that not every installation has: which extra brings them, and what says so."""

from __future__ import annotations

from importlib.util import find_spec

from srl_swe.errors import UserError

TRAINING = ("torch", "transformers", "trl", "accelerate", "peft")
POLICIES = ("torch", "transformers")
TOKENIZERS = ("transformers",)

_BROUGHT_BY = {
    **dict.fromkeys((*TRAINING, "safetensors", "tokenizers"), "train"),
    "gymnasium": "gym",
    "vllm": "vllm",
}


def need_packages(doing: str, packages: tuple[str, ...]) -> None:
    """Raises UserError that names the extra if one of the packages is not installed.

    Nothing is imported. ``doing`` begins the sentence: "training", "a local policy".
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(_sentence(doing, missing))


def explain_missing(error: ModuleNotFoundError) -> str | None:
    """The sentence for a failed import of an extra's package; None if no extra brings it."""
    package = (error.name or "").partition(".")[0]
    return _sentence("this", [package]) if package in _BROUGHT_BY else None


def _sentence(doing: str, missing: list[str]) -> str:
    extras = sorted({_BROUGHT_BY[name] for name in missing})
    return f"{doing} needs {', '.join(missing)}: pip install 'srl-swe[{','.join(extras)}]'."
