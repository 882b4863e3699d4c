"""Reads from a data set's config.json how its prompts were made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from srl_swe.context_window import Window
from srl_swe.run_folder import CONFIG_FILE


@dataclass(frozen=True, slots=True)
class Recorded:
    """``window``: of its prompts. ``tokenizer_sha256``: ``TokenCounter.digest`` of the tokenizer
    that counted ``prompt_tokens`` and ``completion_tokens``. None if it is not recorded.
    """

    window: Window | None = None
    tokenizer_sha256: str | None = None


def recorded_settings(folder: Path) -> Recorded:
    """Read them. A folder without a config, or with somebody else's, records nothing."""
    config = read_config(folder)
    tokenizer = config.get("tokenizer")
    digest = tokenizer.get("sha256") if isinstance(tokenizer, dict) else None
    try:
        window = TypeAdapter(Window | None).validate_python(config.get("window"))
    except ValidationError:
        window = None
    return Recorded(window, digest if isinstance(digest, str) else None)


def read_config(folder: Path) -> Mapping[str, Any]:
    """The config of a data set; empty if there is none."""
    try:
        content = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
