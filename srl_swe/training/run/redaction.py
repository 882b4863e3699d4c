"""Keeps tokens and passwords out of what a run writes about itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

HIDDEN = "<hidden>"
_SECRET = re.compile(r"(hub|auth|access|api|wandb|hf)_?(token|key)$|password|secret", re.IGNORECASE)


def without_secrets(value: Any) -> Any:
    """The value with what secret-sounding keys hold hidden; unset ones stay unset.

    >>> without_secrets({"seed": 1, "push": {"hub_token": "abc", "api_key": None}})
    {'seed': 1, 'push': {'hub_token': '<hidden>', 'api_key': None}}
    """
    if isinstance(value, dict):
        return {
            key: HIDDEN if held and _SECRET.search(str(key)) else without_secrets(held)
            for key, held in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value


def command_without_secrets(arguments: Sequence[str]) -> list[str]:
    """A command line with the values of secret-sounding options hidden.

    >>> command_without_secrets(["train", "--hub_token", "abc", "--api-key=x", "--seed", "1"])
    ['train', '--hub_token', '<hidden>', '--api-key=<hidden>', '--seed', '1']
    """
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        name, is_set, _ = argument.partition("=")
        secret = name.startswith("--") and bool(_SECRET.search(name.replace("-", "_")))
        if hide_next:
            shown.append(HIDDEN)
        else:
            shown.append(f"{name}={HIDDEN}" if secret and is_set else argument)
        hide_next = secret and not is_set and not hide_next
    return shown
