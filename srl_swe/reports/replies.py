"""The sampled replies of a training run, read from its completion tables for the run's page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from srl_swe.reports.charts import evenly_spaced
from srl_swe.reports.page import cut_long, visible

COMPLETIONS = "completions"
SHOWN_STEPS, SHOWN_GROUPS = 24, 100
"""Most steps of a page, and most groups of a step."""
_SHOWN_CHARS = 4000
_TEXTS = ("completion", "expert_action", "expert_solution")
"""Columns that are read for the best and the worst reply alone."""


@dataclass(frozen=True, slots=True)
class ShownReply:
    """One reply. ``reward``: the weighted sum of ``rewards``, in which None is not given.

    ``place``: its instance and step. ``ending``: its format, or how its episode ended.
    ``expert`` is empty if the table has no expert's action.
    """

    round: int
    group: int
    place: str
    ending: str
    text: str
    expert: str
    tokens: int
    reward: float
    rewards: Mapping[str, float | None]
    advantage: float
    kept: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The rewards of the replies to one prompt, in sampling order; round 0 is the batch itself."""

    round: int
    number: int
    place: str
    rewards: tuple[float, ...]
    kept: bool


@dataclass(frozen=True, slots=True)
class StepReplies:
    """The replies of one training step. ``damage``: why the table can't be read, else empty."""

    step: int
    replies: int = 0
    groups: Sequence[Group] = ()
    endings: Mapping[str, int] = field(default_factory=dict)
    best: ShownReply | None = None
    worst: ShownReply | None = None
    damage: str = ""

    @property
    def kept(self) -> int:
        """The number of groups trained on."""
        return sum(group.kept for group in self.groups)


def written_steps(run: Path) -> dict[int, Path]:
    """The completion tables of the run by training step."""
    tables = {path: path.stem.partition("-")[2] for path in (run / COMPLETIONS).glob("step-*")}
    return {
        int(step): path
        for path, step in sorted(tables.items())
        if path.suffix == ".parquet" and step.isdecimal()
    }


def load_replies(run: Path, weights: Mapping[str, float]) -> list[StepReplies]:
    """The replies of at most :data:`SHOWN_STEPS` steps, evenly spaced, in their order.

    ``weights``: of the rewards by name; an unknown reward counts 1.
    """
    tables = written_steps(run)
    chosen = evenly_spaced(sorted(tables), SHOWN_STEPS)
    return [_of_step(step, tables[step], weights) for step in chosen]


def _of_step(step: int, table: Path, weights: Mapping[str, float]) -> StepReplies:
    try:
        written = table.stat().st_mtime_ns
        return _read_table(step, table, written, tuple(sorted(weights.items())))
    except (OSError, ValueError, KeyError, TypeError) as error:  # Arrow's errors are among these
        reason = " ".join(str(error).split())[:200]
        return StepReplies(step, damage=f"{table.name} can't be read: {reason}")


@lru_cache(maxsize=2 * SHOWN_STEPS)
def _read_table(
    step: int, path: Path, written_ns: int, weights: tuple[tuple[str, float], ...]
) -> StepReplies:
    """Read a table once: the page of a run under way is written again and again.

    ``written_ns`` belongs to the key only.
    """
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path)
    texts = [name for name in _TEXTS if name in table.schema_arrow.names]
    facts = [name for name in table.schema_arrow.names if name not in {*_TEXTS, "action"}]
    rows = table.read(columns=facts).to_pylist()
    if not rows:
        return StepReplies(step, damage=f"{path.name} holds no reply")
    totals = [total_reward(row, dict(weights)) for row in rows]
    ranked = sorted(range(len(rows)), key=lambda n: (totals[n], rows[n].get("advantage") or 0.0))
    worst, best = ranked[0], ranked[-1]
    shown = table.read(columns=texts).take([best, worst]).to_pylist()
    return StepReplies(
        step,
        replies=len(rows),
        groups=_groups(rows, totals),
        endings=dict(Counter(describe_ending(row) for row in rows).most_common()),
        best=_reply({**rows[best], **shown[0]}, totals[best]),
        worst=_reply({**rows[worst], **shown[1]}, totals[worst]),
    )


def rewards_of(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The rewards of a sampled reply by name; None for one that was not given."""
    prefix = "rewards/"
    return {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}


def total_reward(row: Mapping[str, Any], weights: Mapping[str, float]) -> float:
    """The weighted sum of the rewards that were given, as TRL forms it."""
    given = [(weights.get(k, 1.0), v) for k, v in rewards_of(row).items() if v is not None]
    return math.fsum(weight * value for weight, value in given)


def _groups(rows: Sequence[Mapping[str, Any]], totals: Sequence[float]) -> list[Group]:
    def key(index: int) -> tuple[int, int]:
        return rows[index].get("round") or 0, rows[index].get("group") or 0

    order = sorted(range(len(rows)), key=key)
    found = []
    for (of_round, number), members in groupby(order, key):
        mine = list(members)
        kept = any(bool(rows[index].get("kept")) for index in mine)
        rewards = tuple(totals[index] for index in mine)
        found.append(Group(of_round, number, _place(rows[mine[0]]), rewards, kept))
    return found


def _reply(row: Mapping[str, Any], total: float) -> ShownReply:
    expert = row.get("expert_action") or row.get("expert_solution") or ""
    rewards = rewards_of(row)
    return ShownReply(
        round=row.get("round") or 0,
        group=row.get("group") or 0,
        place=_place(row),
        ending=describe_ending(row),
        text=cut_long(str(row["completion"]), _SHOWN_CHARS),
        expert=cut_long(str(expert), _SHOWN_CHARS),
        tokens=row["tokens"],
        reward=total,
        rewards=rewards if len(rewards) > 1 else {},
        advantage=row.get("advantage") or 0.0,
        kept=bool(row.get("kept")),
    )


def _place(row: Mapping[str, Any]) -> str:
    """The instance, and the step of the expert's trajectory if there is one, from 0."""
    instance = visible(str(row.get("instance_id", "unknown instance")))
    step = row.get("step_index")
    return instance if step is None else f"{instance}, step {step} of {row.get('n_steps', '?')}"


def describe_ending(row: Mapping[str, Any]) -> str:
    """The format of a reply in SRL; in RLVR how the episode ended and its tests' outcome."""
    held = [row.get(name) for name in ("format", "ended", "outcome")]
    words = [visible(str(word)) for word in held if word]
    words = ["in the format" if word == "ok" else word.replace("_", " ") for word in words]
    if row.get("truncated") and "truncated" not in words:
        words.append("cut at the token limit")
    return ", ".join(words) or "not recorded"
