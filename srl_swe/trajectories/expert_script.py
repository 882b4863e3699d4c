"""Expert scripts: an expert's replies, one after the other, with no observations yet.

A script is how a trajectory is written by hand: only thoughts and actions, in the XML
dialect; ``srl-swe replay --record`` executes it and writes down what the container printed.
"""

from __future__ import annotations

import re
from pathlib import Path

from srl_swe.dialects import xml
from srl_swe.errors import UserError
from srl_swe.types import Step, Trajectory

_REPLY = re.compile(r"<think>.*?\n</function>", re.DOTALL)


def load_expert_script(path: Path) -> Trajectory:
    """The script as a trajectory without observations; the file's stem is the instance id."""
    text = path.read_text(encoding="utf-8")
    leftover = _REPLY.sub("", text).strip()
    if leftover:
        raise UserError(f"{path}: text outside of a reply: {leftover[:60]!r}.")
    steps = [_parse_step(reply, f"{path}: reply {n}") for n, reply in enumerate(_replies(text), 1)]
    return Trajectory(path.stem, tuple(steps), model="expert", source="expert-script")


def _replies(text: str) -> list[str]:
    return _REPLY.findall(text)


def _parse_step(text: str, where: str) -> Step:
    reply = xml.parse_reply(text)
    if reply.action is None:
        raise UserError(f"{where}: {reply.reason}: {text[:60]!r}.")
    return Step(reply.thought, reply.action)
