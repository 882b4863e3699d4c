"""``prompting.json``: a policy's prompting in training, saved beside its weights.

Rollouts, evaluation and validation take their defaults from it and warn if they differ: one
policy resolved 3 of 3 as it was trained, and 0 of 3 with the whole past in its prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from srl_swe.dialects import Strictness
from srl_swe.errors import UserError
from srl_swe.steps.prompt import Window
from srl_swe.types import Message

FILE = "prompting.json"
_SHORT = 12


@dataclass(frozen=True, slots=True)
class Prompting:
    """Settings for prompts and for parsing replies.

    ``window``: None if unknown, as for data without its settings. ``system_prompt``: its version,
    by :func:`prompt_version`; None if unknown. ``template``: variables of the chat template, such
    as ``enable_thinking``.
    """

    dialect: str
    strictness: Strictness
    window: Window | None = None
    system_prompt: str | None = None
    template: Mapping[str, Any] = field(default_factory=dict)


def prompt_version(prompt: Sequence[Message]) -> str:
    """The system prompt's file and digest, ``xml_system@1a2b3c4d5e6f``; ``none`` without one.

    A text of no release is ``other@...``.
    """
    if not prompt or prompt[0]["role"] != "system":
        return "none"
    digest = _digest(prompt[0]["content"])
    return f"{_shipped().get(digest, 'other')}@{digest}"


def version_of_text(system_prompt: str) -> str:
    """:func:`prompt_version` of a prompt that begins with this text."""
    return prompt_version([{"role": "system", "content": system_prompt}])


def dump_prompting(prompting: Prompting) -> str:
    """The text that :func:`load_prompting` reads."""
    return TypeAdapter(Prompting).dump_json(prompting, indent=2).decode() + "\n"


def load_prompting(policy: str) -> Prompting | None:
    """Read it from a policy's folder or the hub; None for a policy without the file.

    Raises UserError for a damaged file.
    """
    path = Path(policy) / FILE if Path(policy).is_dir() else _from_hub(policy)
    if path is None or not path.is_file():
        return None
    try:
        return TypeAdapter(Prompting).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} does not say how the policy is prompted ({why}).") from None


def differences(trained: Prompting, used: Prompting) -> str:
    """One phrase per differing field: ``pairs 2 in training, all here``; empty if all agree.

    A field unknown to either can't differ.
    """
    before, now = _fields(trained), _fields(used)
    return "; ".join(
        f"{name} {_shown(before[name])} in training, {_shown(now[name])} here"
        for name in before
        if name in now and before[name] != now[name]
    )


def _fields(prompting: Prompting) -> dict[str, Any]:
    """The known fields by name, with the window's."""
    fields = {**asdict(prompting), "template": dict(prompting.template)}
    window = fields.pop("window")
    if window is not None:
        fields |= {**window, "pairs": "all" if window["pairs"] is None else window["pairs"]}
    if prompting.system_prompt is None:
        del fields["system_prompt"]
    return fields


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _from_hub(name: str) -> Path | None:
    from huggingface_hub import HfApi, errors, hf_hub_download

    with suppress(errors.HTTPError, OSError, ValueError):  # type: ignore[attr-defined]
        if HfApi().file_exists(name, FILE):
            return Path(hf_hub_download(name, FILE))
    with suppress(OSError, ValueError):
        return Path(hf_hub_download(name, FILE, local_files_only=True))
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_SHORT]


@cache
def _shipped() -> Mapping[str, str]:
    """The names of the bundled prompts by digest."""
    folder = resources.files("srl_swe").joinpath("prompts")
    files = [file for file in folder.iterdir() if file.name.endswith(".md")]
    return {_digest(file.read_text("utf-8")): file.name.removesuffix(".md") for file in files}
