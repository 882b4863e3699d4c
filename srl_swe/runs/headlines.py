"""The few figures that a run is judged by: how it stands now, and its best."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from srl_swe.charts import averaging_steps
from srl_swe.runs.record import RunRecord


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure of the log. ``good`` says which end is better; None where neither is."""

    label: str
    key: str
    good: Literal["high", "low"] | None = "high"
    digits: int = 3


HEADLINES = (
    Headline("reward", "reward/mean"),
    Headline("reward", "reward"),
    Headline("resolved", "outcome/resolved"),
    Headline("similarity", "similarity/mean"),
    Headline("in the format", "format/ok"),
    Headline("exact", "exact_match"),
    Headline("validation resolved", "validation/resolved"),
    Headline("validation similarity", "validation/similarity"),
    Headline("validation format", "validation/format_rate"),
    Headline("validation exact", "validation/exact_match"),
    Headline("loss", "loss", "low"),
    Headline("token accuracy", "mean_token_accuracy"),
    Headline("groups kept", "dynamic_sampling/kept_frac", None),
    Headline("broken sandboxes", "broken_sandboxes", "low", 1),
    Headline("entropy", "entropy", None),
    Headline("reply tokens", "completions/mean_length", None, 1),
    Headline("seconds a step", "time/step_s", "low", 2),
    Headline("tokens a second", "time/tokens_per_s", "high", 0),
)


def headlines_of(runs: Iterable[RunRecord]) -> list[Headline]:
    """Those that one of the runs has."""
    keys = {key for run in runs for key in run.keys if key not in _hidden(run)}
    return [one for one in HEADLINES if one.key in keys]


def now(run: RunRecord, headline: Headline) -> float | None:
    """The mean of the last tenth of the steps, at least 5; of validation the last value."""
    values = _known(run, headline)
    if not values:
        return None
    count = 1 if headline.key.startswith("validation/") else averaging_steps(len(values))
    last = [value for _, value in values[-count:]]
    return math.fsum(last) / len(last)


def best(run: RunRecord, headline: Headline) -> tuple[int, float] | None:
    """Step and value of the best single step; None where no end is better."""
    values = _known(run, headline)
    if not values or headline.good is None:
        return None
    sign = 1 if headline.good == "high" else -1
    return max(values, key=lambda value: (sign * value[1], -value[0]))


def shown(value: float | None, headline: Headline) -> str:
    """The value as text, a dash for none."""
    return "–" if value is None else f"{value:,.{headline.digits}f}"


def _hidden(run: RunRecord) -> set[str]:
    """GRPO's loss says nothing, and TRL's reward gives way to that over all rounds."""
    hidden = {"loss"} if "reward" in run.keys else set()
    return hidden | ({"reward"} if "reward/mean" in run.keys else set())


def _known(run: RunRecord, headline: Headline) -> list[tuple[int, float]]:
    if headline.key in _hidden(run):
        return []
    return [(step, value) for step, value in run.values(headline.key) if value is not None]
