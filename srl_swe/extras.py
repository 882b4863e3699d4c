"""Checks for optional packages, and names the extra that installs a missing one."""

from __future__ import annotations

from importlib.util import find_spec

from srl_swe.errors import UserError

TRAINING = ("torch", "transformers", "trl", "accelerate", "peft")
POLICIES = ("torch", "transformers")
TOKENIZERS = ("transformers",)

_BROUGHT_BY = {
    **dict.fromkeys((*TRAINING, "safetensors", "tokenizers"), "train"),
    "gymnasium": "gym",
    "textual": "view",
    "vllm": "vllm",
    "ray": "ray",
    "gguf": "gguf",
    "math_verify": "math",
    **dict.fromkeys(("swesmith", "libcst", "tree_sitter", "astor"), "generate"),
}


def need_packages(doing: str, packages: tuple[str, ...]) -> None:
    """Raises UserError with the name of the extra if a package is not installed.

    Imports nothing. ``doing`` begins the sentence: "training", "a local policy".
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(_sentence(doing, missing))


def explain_missing(error: ModuleNotFoundError) -> str | None:
    """The error message for a failed import; None if no extra installs the package."""
    package = (error.name or "").partition(".")[0]
    return _sentence("this", [package]) if package in _BROUGHT_BY else None


def _sentence(doing: str, missing: list[str]) -> str:
    extras = sorted({_BROUGHT_BY[name] for name in missing})
    return f"{doing} needs {', '.join(missing)}: pip install 'srl-swe[{','.join(extras)}]'."
