"""The charts of a run's page by section, each with its names of the log."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from srl_swe.reports.charts import Band, Chart, Series
from srl_swe.reports.record import RunRecord

PHASES = ("generate", "reward", "logprob", "sync", "backward", "optimizer", "other", "validation")
_THIRDS = ("first_third", "middle_third", "last_third")
_SHARE = (0.0, 1.0)
_ZERO = (0.0,)


@dataclass(frozen=True, slots=True)
class Figure:
    """The specification of a chart.

    ``lines``: labels with names of the log; the first logged of the names under one label is
    drawn. ``below``: a prefix and a suffix; every name with both is a line too, except those in
    ``leave``. ``band``: a label and the names of its edges.
    """

    title: str
    about: str
    y_label: str
    lines: tuple[tuple[str, str], ...] = ()
    below: tuple[str, str] | None = None
    leave: tuple[str, ...] = ()
    band: tuple[str, str, str] | None = None
    holds: tuple[float, ...] = ()
    smoothed: bool = True


LEARNING = (
    Figure(
        "Reward",
        "Over the sampled replies, refills included; a reply that breaks SRL's format earns -1.",
        "reward",
        (("mean", "reward/mean"), ("mean", "reward"), ("std", "reward/std"), ("std", "reward_std")),
        band=("p10 to p90, in the format", "reward/p10", "reward/p90"),
        holds=_SHARE,
    ),
    Figure(
        "Similarity",
        "Of the replies in the format to the expert's action.",
        "similarity",
        (("mean", "similarity/mean"), ("std", "similarity/std")),
        band=("p10 to p90", "similarity/p10", "similarity/p90"),
        holds=_SHARE,
    ),
    Figure(
        "Format and exact replies",
        "Shares of the sampled replies.",
        "share",
        (("in the format", "format/ok"), ("exact", "exact_match"), ("cut", "truncated")),
        holds=_SHARE,
    ),
    Figure(
        "Token accuracy",
        "Share of the expert's tokens that the policy would have chosen.",
        "share",
        (("token accuracy", "mean_token_accuracy"),),
        holds=_SHARE,
    ),
)

VALIDATION = (
    Figure(
        "Greedy replies",
        "One per step; a reply that breaks the format has similarity 0 and reward -1.",
        "mean",
        (
            ("similarity", "validation/similarity"),
            ("in the format", "validation/format_rate"),
            ("exact", "validation/exact_match"),
            ("reward", "validation/reward"),
        ),
        holds=_SHARE,
        smoothed=False,
    ),
    Figure(
        "Greedy episodes on instances",
        "One per instance; broken sandboxes are not counted.",
        "share",
        (("resolved", "validation/resolved"), ("submitted", "validation/submitted")),
        holds=_SHARE,
        smoothed=False,
    ),
    Figure(
        "Broken sandboxes in validation",
        "Episodes without a verdict.",
        "episodes",
        (("broken sandboxes", "validation/broken_sandboxes"),),
        smoothed=False,
    ),
)

DYNAMIC_SAMPLING = (
    Figure(
        "Groups",
        "Kept: share whose rewards spread. Filled: share of the batch that could be filled.",
        "share",
        (("kept", "dynamic_sampling/kept_frac"), ("filled", "dynamic_sampling/filled_frac")),
        holds=_SHARE,
    ),
    Figure(
        "Refill rounds",
        "In a step.",
        "rounds",
        (("rounds", "dynamic_sampling/rounds"),),
        holds=_ZERO,
    ),
    Figure(
        "Spread of a group",
        "Population std of its rewards, mean over the groups.",
        "std",
        (("std", "group_std"), ("share without any", "frac_reward_zero_std")),
        holds=_ZERO,
    ),
    Figure(
        "Tokens of a step",
        "Sampled ones include those dropped.",
        "tokens",
        (
            ("sampled", "dynamic_sampling/tokens_sampled"),
            ("trained", "dynamic_sampling/tokens_trained"),
        ),
        holds=_ZERO,
    ),
)

REPLIES = (
    Figure(
        "Why replies break the format",
        "Shares of the sampled replies.",
        "share",
        below=("format/", ""),
        leave=("format/ok",),
        holds=_ZERO,
    ),
    Figure(
        "Outcomes of the tests",
        "Shares of the sampled replies or episodes.",
        "share",
        below=("outcome/", ""),
        holds=_ZERO,
    ),
    Figure(
        "How replies and episodes end",
        "Shares; a broken sandbox teaches nothing.",
        "share",
        below=("ended/", ""),
        holds=_ZERO,
    ),
    Figure("Steps of an episode", "Mean.", "steps", (("steps", "steps/mean"),), holds=_ZERO),
    Figure(
        "Similarity by the expert's tool",
        "Of the replies in the format.",
        "similarity",
        below=("similarity/", ""),
        leave=tuple(f"similarity/{name}" for name in ("mean", "std", "p10", "p90", *_THIRDS)),
        holds=_SHARE,
    ),
    Figure(
        "Similarity by position",
        "By the step's third of its trajectory.",
        "similarity",
        tuple((third.replace("_", " "), f"similarity/{third}") for third in _THIRDS),
        holds=_SHARE,
    ),
    Figure(
        "Rewards by name",
        "Means of the mixed rewards.",
        "reward",
        below=("rewards/", "/mean"),
        holds=_SHARE,
    ),
    Figure(
        "Reply length",
        "Tokens of a reply.",
        "tokens",
        tuple((word, f"completions/{word}_length") for word in ("mean", "min", "max")),
        holds=_ZERO,
    ),
    Figure(
        "Thought and action",
        "Characters of the replies in the format, and of all.",
        "characters",
        tuple((word, f"{word}_chars") for word in ("thought", "action", "reply")),
        holds=_ZERO,
    ),
)

OPTIMISATION = (
    Figure(
        "Loss", "GRPO's is about 0 by construction: watch its reward.", "loss", (("loss",) * 2,)
    ),
    Figure("Gradient norm", "Before clipping.", "norm", (("norm", "grad_norm"),), holds=_ZERO),
    Figure("Entropy", "Of the policy, per token.", "nats", (("entropy", "entropy"),)),
    Figure(
        "Learning rate",
        "",
        "learning rate",
        (("learning rate", "learning_rate"),),
        holds=_ZERO,
        smoothed=False,
    ),
    Figure(
        "Clipped tokens",
        "Share at PPO's clip.",
        "share",
        (("clipped", "clip_ratio/region_mean"),),
        holds=_ZERO,
    ),
    Figure(
        "Weight sync alarm",
        "Mean difference of log-probabilities, vLLM to trainer; above 0.01 something is wrong.",
        "difference",
        (("difference", "sampling/sampling_logp_difference/mean"),),
        holds=(0.0, 0.01),
    ),
)

TIME = (
    Figure(
        "Seconds of a step",
        "By phase; other is data, logs, checkpoints and whatever waits between two updates.",
        "seconds",
        tuple((phase, f"time/{phase}_s") for phase in PHASES),
        holds=_ZERO,
    ),
    Figure("Whole step", "From end to end.", "seconds", (("step", "time/step_s"),), holds=_ZERO),
    Figure(
        "Tokens a second",
        "Prompts and replies, of all ranks, over the whole step.",
        "tokens/s",
        (("tokens/s", "time/tokens_per_s"),),
        holds=_ZERO,
    ),
)

SECTIONS = (
    ("Learning", LEARNING),
    ("Validation", VALIDATION),
    ("Dynamic sampling", DYNAMIC_SAMPLING),
    ("Replies in detail", REPLIES),
    ("Optimisation", OPTIMISATION),
    ("Time", TIME),
)

REST = "Everything else that was logged"


@dataclass(frozen=True, slots=True)
class Section:
    """Charts under a heading."""

    title: str
    figures: tuple[Figure, ...]


def sections(keys: Sequence[str]) -> list[Section]:
    """The sections of a page for logs with these keys; every key is drawn."""
    known = [
        Section(title, tuple(figure for figure in _resolved(figures, keys) if figure.lines))
        for title, figures in SECTIONS
    ]
    drawn = {key for section in known for figure in section.figures for key in _names(figure)}
    rest = [key for key in keys if key not in drawn and key not in {"step", "epoch"}]
    known.append(Section(REST, tuple(Figure(key, "", "", ((key, key),)) for key in rest)))
    return [section for section in known if section.figures]


def chart(figure: Figure, run: RunRecord) -> Chart:
    """The figure's chart of one run."""
    band = None
    if figure.band and figure.band[1] in run.keys:
        label, low, high = figure.band
        band = Band(label, Series(low, run.values(low)), Series(high, run.values(high)))
    series = (Series(label, run.values(key)) for label, key in figure.lines)
    return _chart(figure, figure.title, tuple(series), band)


def overlay(figure: Figure, key: str, runs: Sequence[tuple[str, RunRecord]]) -> Chart:
    """One line of the figure for several runs, each under its label."""
    label = next(label for label, name in figure.lines if name == key)
    title = figure.title if len(figure.lines) == 1 else f"{figure.title}: {label}"
    return _chart(figure, title, tuple(Series(name, run.values(key)) for name, run in runs), None)


def _chart(figure: Figure, title: str, series: tuple[Series, ...], band: Band | None) -> Chart:
    return Chart(title, figure.about, figure.y_label, series, band, figure.holds, figure.smoothed)


def _resolved(figures: Sequence[Figure], keys: Sequence[str]) -> list[Figure]:
    return [dataclasses.replace(figure, lines=_lines(figure, keys)) for figure in figures]


def _lines(figure: Figure, keys: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The logged lines, one per label."""
    lines: dict[str, str] = {}
    for label, key in [*figure.lines, *_below(figure, keys)]:
        if key in keys:
            lines.setdefault(label, key)
    return tuple(lines.items())


def _below(figure: Figure, keys: Sequence[str]) -> list[tuple[str, str]]:
    if figure.below is None:
        return []
    start, end = figure.below
    found = [key for key in keys if key.startswith(start) and key.endswith(end)]
    return [
        (key.removeprefix(start).removesuffix(end).replace("_", " "), key)
        for key in found
        if key not in figure.leave
    ]


def _names(figure: Figure) -> set[str]:
    return {key for _, key in figure.lines} | set((figure.band or ())[1:])
