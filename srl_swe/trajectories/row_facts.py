"""Who a row is about, how it ended and what it left: where data sets keep these.

Every family names an instance, an outcome and a patch in a column of its own; the readers of
rows share the search. A row that names no instance is called after its id or its file, and
its trajectory carries the note :data:`NO_INSTANCE`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from srl_swe.trajectories.fields import Fields, kind_of
from srl_swe.trajectories.instance_ids import looks_like_instance_id, plain_instance_id
from srl_swe.trajectories.recorded_patch import tidy_patch
from srl_swe.types import Trajectory

NO_INSTANCE = "the record names no instance"
"""The note of a trajectory whose ``instance_id`` is only what its record or file is called."""

_NAMES = ("trajectory_id", "id", "task", "task_id", "session_id")
"""Fields that name an instance if they look like one, and else a run."""
_PATCHES = ("model_patch", "rollout_patch", "generated_patch", "output_patch", "git_patch", "patch")
_OUTCOMES = ("resolved", "target", "reward")
_IMAGE = re.compile(r"sweb\.eval\.[\w]+\.([\w.-]+?)(?:_1776_|_s_)([\w.-]+?)(?::[\w.-]+)?\Z")


@dataclass(frozen=True, slots=True)
class NamedInstance:
    """An instance id, and the note that belongs to it if it is only a name."""

    id: str
    notes: tuple[str, ...] = ()


def named_instance(row: Fields, names: Sequence[str] = _NAMES) -> NamedInstance:
    """The row's ``instance_id``, else what looks like one, else the first name there is.

    What looks like one is searched in ``names``, in the name of the image, and in that of the
    file; copies' and attempts' numbers are left out.
    """
    given = row.optional_text("instance_id")
    if given:
        return NamedInstance(plain_instance_id(given))
    texts = [text for name in names if isinstance(text := row.get(name), str) and text]
    candidates = [*texts, *_ids_of_images(row)]
    if row.is_whole_file:
        candidates.append(row.file_name)
    for text in map(plain_instance_id, candidates):
        if looks_like_instance_id(text):
            return NamedInstance(text)
    return NamedInstance(texts[0] if texts else row.file_name, (NO_INSTANCE,))


def names_instance(trajectory: Trajectory) -> bool:
    """Whether its record named the instance that it is about."""
    return NO_INSTANCE not in trajectory.notes


def with_instance(trajectory: Trajectory, instance_id: str | None) -> Trajectory:
    """The trajectory under the id given by hand, if its record names no instance."""
    if instance_id is None or names_instance(trajectory):
        return trajectory
    notes = tuple(note for note in trajectory.notes if note != NO_INSTANCE)
    return replace(trajectory, instance_id=instance_id, notes=notes)


def recorded_outcome(row: Fields) -> bool | None:
    """Whether the run resolved its instance; None if no column says so.

    ``resolved`` comes first; a reward counts as resolved if it is 1. Raises BrokenRecord if
    ``resolved`` is neither true nor false.
    """
    for name in _OUTCOMES:
        value = row.get(name)
        outcome = as_outcome(value)
        if outcome is not None:
            return outcome
        if name == "resolved" and value is not None:
            raise row.broken(name, f"expected true or false, found {kind_of(value)}")
    return None


def as_outcome(value: Any) -> bool | None:
    """A flag, or a reward of 0 to 1, also as text; None if it is neither.

    >>> as_outcome("1.0"), as_outcome(0.5), as_outcome("maybe")
    (True, False, None)
    """
    if isinstance(value, str):
        value = {"true": 1, "false": 0}.get(value.lower(), value)
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or math.isnan(value) or value > 1:
        return None
    return bool(value == 1)


def recorded_patch(row: Fields) -> str | None:
    """The patch that the run left; None if no column has one."""
    for name in _PATCHES:
        if isinstance(text := row.get(name), str):
            return tidy_patch(text)
    return None


def _ids_of_images(row: Fields) -> list[str]:
    """Ids in the names of SWE-bench's and SWE-Gym's images."""
    images = (row.get(name) for name in ("image", "image_name", "docker_image"))
    found = (_IMAGE.search(image) for image in images if isinstance(image, str))
    return [f"{match[1]}__{match[2]}" for match in found if match]
