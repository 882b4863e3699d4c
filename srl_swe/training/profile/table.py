"""What a profile of steps is on disk, and the card of those that are kept."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srl_swe.files import damage_named, read_json_lines

_BAR, _BINS = 40, 10
_REMEDY = "delete that line, and its step is sampled again"


@dataclass(frozen=True, slots=True)
class StepProfile:
    """What one row earned: ``row`` counts from 0, ``std`` is that of the population."""

    row: int
    mean: float
    std: float
    rewards: tuple[float, ...]


def profile_line(profile: StepProfile, row: Mapping[str, Any]) -> str:
    """The profile of that row of the step contexts as a line of ``profile.jsonl``."""
    where = {name: row[name] for name in ("instance_id", "step_index", "tool")}
    return json.dumps({**where, **dataclasses.asdict(profile)})


def read_profiles(path: Path) -> list[StepProfile]:
    """The profiles in the file by their row; none if there is no file.

    Raises UserError for a damaged line.
    """
    profiles = []
    for where, row in read_json_lines(path, _REMEDY):
        with damage_named(where, _REMEDY):
            rewards = tuple(map(float, row["rewards"]))
            numbers = (int(row["row"]), float(row["mean"]), float(row["std"]))
            profiles.append(StepProfile(*numbers, rewards))
    return sorted(profiles, key=lambda profile: profile.row)


def profile_card(
    config: Mapping[str, Any],
    profiles: Sequence[StepProfile],
    kept: Sequence[StepProfile],
    min_std: float,
    max_mean: float,
) -> str:
    """Markdown; ``config`` is what decided the rewards."""
    settings = "".join(f"| {name} | {value} |\n" for name, value in config.items())
    dead = sum(profile.std <= min_std for profile in profiles)
    easy = len(profiles) - dead - len(kept)
    return (
        f"# Steps worth training on\n\n{len(kept)} of {len(profiles)} rows: those with a reward "
        f"std above {min_std} and a mean below {max_mean}. {dead} have rewards too much alike, "
        f"{easy} more are learned already. `profile_mean` and `profile_std` are of the policy "
        f"named here, before training.\n\n| | |\n|---|---|\n{settings}\n"
        f"Mean reward, rows (kept):\n\n"
        f"{_histogram([one.mean for one in profiles], [one.mean for one in kept], -1.0)}\n"
        f"Standard deviation, rows (kept):\n\n"
        f"{_histogram([one.std for one in profiles], [one.std for one in kept], 0.0)}"
    )


def _histogram(values: Sequence[float], kept: Sequence[float], low: float) -> str:
    """A line a bin from ``low`` to 1, drawn with #; the last one holds its upper end too."""
    counts, of_kept = _counts(values, low), _counts(kept, low)
    scale = _BAR / max(counts)
    lines = [
        f"    {low + (1 - low) * index / _BINS:+.1f} {'#' * round(count * scale):{_BAR}} "
        f"{count} ({of_kept[index]})\n"
        for index, count in enumerate(counts)
    ]
    return "".join(lines)


def _counts(values: Sequence[float], low: float) -> list[int]:
    bins = Counter(min(_BINS - 1, int((value - low) / (1 - low) * _BINS)) for value in values)
    return [bins[index] for index in range(_BINS)]
