"""Expert scripts: trajectories written by hand, without observations.

A script is a sequence of thoughts and actions in the XML dialect. ``srl-swe replay --record``
executes it and records the observations.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from srl_swe.dialects import xml
from srl_swe.trajectories.fields import BrokenRecord, Reader, describe_type, name_record
from srl_swe.types import Step, Trajectory

_REPLY = re.compile(r"<think>.*?\n</function>", re.DOTALL)


def load_expert_script(path: Path) -> Trajectory:
    """The script as a trajectory without observations; the file's stem is the instance id."""
    return read_expert_script(path.read_text(encoding="utf-8"), str(path))


def is_expert_script(record: Any) -> bool:
    """Whether it is plain text with a call in it: no other format is plain text."""
    return isinstance(record, str) and "<function=" in record


def read_expert_script(record: Any, where: str) -> Trajectory:
    """The text of a script; the instance is the file's name."""
    if not isinstance(record, str):
        raise BrokenRecord(where, "", f"expected a text, found {describe_type(record)}")
    leftover = _REPLY.sub("", record).strip()
    if leftover:
        raise BrokenRecord(where, "", f"text outside of a reply: {leftover[:60]!r}")
    steps = []
    for number, text in enumerate(_REPLY.findall(record), 1):
        reply = xml.parse_reply(text)
        if reply.action is None:
            raise BrokenRecord(where, f"reply {number}", f"{reply.reason}: {text[:60]!r}")
        steps.append(Step(reply.thought, reply.action))
    return Trajectory(name_record(where), tuple(steps), model="expert", source=EXPERT_SCRIPT.name)


EXPERT_SCRIPT = Reader("expert-script", is_expert_script, read_expert_script)
