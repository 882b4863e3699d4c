"""The charts of a run's page by section, each with its names of the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from srl_swe.reports.charts import Band, Chart, Series
from srl_swe.reports.record import RunRecord

PHASES = ("generate", "reward", "logprob", "sync", "backward", "optimizer", "other", "validation")
TOKEN_KINDS = ("computed", "real", "needed")
"""Positions of forward passes; those that hold a token; each prompt once, and the replies."""
_FORWARDING = {
    "generate": "Tokens of sampling",
    "logprob": "Tokens of passes without a gradient",
    "backward": "Tokens of training passes",
}
THIRDS = ("first_third", "middle_third", "last_third")
_SHARE = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """The specification of a chart.

    ``lines``: labels with names of the log; the first logged of the names under one label is
    drawn. ``below``: a prefix and a suffix; every name with both is a line too, except those in
    ``leave``. ``band``: a label and the names of its edges. ``holds``: as in :class:`Chart`.
    """

    title: str
    about: str
    y_label: str
    lines: tuple[tuple[str, str], ...] = ()
    below: tuple[str, str] | None = None
    leave: tuple[str, ...] = ()
    band: tuple[str, str, str] | None = None
    holds: tuple[float, ...] = (0.0,)
    smoothed: bool = True


SECTIONS: Mapping[str, Sequence[Figure]] = {
    "Learning": (
        Figure(
            "Reward",
            "Over the sampled replies, refills included; one that breaks SRL's format earns -1.",
            "reward",
            (
                ("mean", "reward/mean"),
                ("mean", "reward"),
                ("std", "reward/std"),
                ("std", "reward_std"),
            ),
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
    ),
    "Validation": (
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
            holds=(),
            smoothed=False,
        ),
    ),
    "Dynamic sampling": (
        Figure(
            "Groups",
            "Kept: share whose rewards spread. Filled: share of the batch that could be filled.",
            "share",
            (("kept", "dynamic_sampling/kept_frac"), ("filled", "dynamic_sampling/filled_frac")),
            holds=_SHARE,
        ),
        Figure("Refill rounds", "In a step.", "rounds", (("rounds", "dynamic_sampling/rounds"),)),
        Figure(
            "Spread of a group",
            "Population std of its rewards, mean over the groups.",
            "std",
            (("std", "group_std"), ("share without any", "frac_reward_zero_std")),
        ),
        Figure(
            "Tokens of a step",
            "Sampled ones include those dropped.",
            "tokens",
            (
                ("sampled", "dynamic_sampling/tokens_sampled"),
                ("trained", "dynamic_sampling/tokens_trained"),
            ),
        ),
    ),
    "Replies in detail": (
        Figure(
            "Why replies break the format",
            "Shares of the sampled replies.",
            "share",
            below=("format/", ""),
            leave=("format/ok",),
        ),
        Figure(
            "Outcomes of the tests",
            "Shares of the sampled replies or episodes.",
            "share",
            below=("outcome/", ""),
        ),
        Figure(
            "How replies and episodes end",
            "Shares; a broken sandbox teaches nothing.",
            "share",
            below=("ended/", ""),
        ),
        Figure("Steps of an episode", "Mean.", "steps", (("steps", "steps/mean"),)),
        Figure(
            "Similarity by the expert's tool",
            "Of the replies in the format.",
            "similarity",
            below=("similarity/", ""),
            leave=tuple(f"similarity/{name}" for name in ("mean", "std", "p10", "p90", *THIRDS)),
            holds=_SHARE,
        ),
        Figure(
            "Similarity by position",
            "By the step's third of its trajectory.",
            "similarity",
            tuple((third.replace("_", " "), f"similarity/{third}") for third in THIRDS),
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
        ),
        Figure(
            "Thought and action",
            "Characters of the replies in the format, and of all.",
            "characters",
            tuple((word, f"{word}_chars") for word in ("thought", "action", "reply")),
        ),
    ),
    "Optimisation": (
        Figure(
            "Loss",
            "GRPO's is about 0 by construction: watch its reward.",
            "loss",
            (("loss",) * 2,),
            holds=(),
        ),
        Figure("Gradient norm", "Before clipping.", "norm", (("norm", "grad_norm"),)),
        Figure("Entropy", "Of the policy, per token.", "nats", (("entropy", "entropy"),), holds=()),
        Figure(
            "Learning rate",
            "",
            "learning rate",
            (("learning rate", "learning_rate"),),
            smoothed=False,
        ),
        Figure(
            "Clipped tokens",
            "Share at PPO's clip.",
            "share",
            (("clipped", "clip_ratio/region_mean"),),
        ),
        Figure(
            "Weight sync alarm",
            "Mean difference of log-probabilities, vLLM to trainer; above 0.01 something is wrong.",
            "difference",
            (("difference", "sampling/sampling_logp_difference/mean"),),
            holds=(0.0, 0.01),
        ),
    ),
    "Time": (
        Figure(
            "Seconds of a step",
            "By phase; other is data, logs, checkpoints and whatever waits between two updates.",
            "seconds",
            tuple((phase, f"time/{phase}_s") for phase in PHASES),
        ),
        Figure("Whole step", "From end to end.", "seconds", (("step", "time/step_s"),)),
        *(
            Figure(
                title,
                "In a step: computed with padding, real, and needed if each prompt is read once.",
                "tokens",
                tuple((kind, f"tokens/{phase}_{kind}") for kind in TOKEN_KINDS),
            )
            for phase, title in _FORWARDING.items()
        ),
        Figure(
            "Tokens a second",
            "Prompts and replies, of all ranks, over the whole step.",
            "tokens/s",
            (("tokens/s", "time/tokens_per_s"),),
        ),
    ),
}

REST = "Everything else that was logged"


def sections(keys: Sequence[str], *, bands: bool = True) -> dict[str, list[Figure]]:
    """Figures by heading, of logs with these keys; every key is drawn, in bands or as lines."""
    found: dict[str, list[Figure]] = {}
    drawn = {"step", "epoch"}
    for title, figures in SECTIONS.items():
        resolved = [replace(figure, lines=_logged_lines(figure, keys)) for figure in figures]
        found[title] = [figure for figure in resolved if figure.lines]
        for figure in found[title]:
            band = (figure.band or ())[1:] if bands else ()
            drawn.update([key for _, key in figure.lines], band)
    rest = [key for key in keys if key not in drawn]
    found[REST] = [Figure(key, "", "", ((key, key),), holds=()) for key in rest]
    return {title: figures for title, figures in found.items() if figures}


def _logged_lines(figure: Figure, keys: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The logged lines, one per label."""
    lines = list(figure.lines)
    if figure.below:
        start, end = figure.below
        for key in keys:
            if key.startswith(start) and key.endswith(end) and key not in figure.leave:
                lines.append((key.removeprefix(start).removesuffix(end).replace("_", " "), key))
    first_logged: dict[str, str] = {}
    for label, key in lines:
        if key in keys:
            first_logged.setdefault(label, key)
    return tuple(first_logged.items())


def chart(figure: Figure, run: RunRecord) -> Chart:
    """The figure's chart of one run."""
    band = None
    if figure.band and figure.band[1] in run.keys:
        label, low, high = figure.band
        band = Band(label, Series(low, run.values(low)), Series(high, run.values(high)))
    series = [Series(label, run.values(key)) for label, key in figure.lines]
    return _chart(figure, figure.title, series, band)


def overlay(figure: Figure, key: str, runs: Sequence[tuple[str, RunRecord]]) -> Chart:
    """One line of the figure for several runs, each under its label."""
    label = next(label for label, name in figure.lines if name == key)
    title = figure.title if len(figure.lines) == 1 else f"{figure.title}: {label}"
    return _chart(figure, title, [Series(name, run.values(key)) for name, run in runs])


def _chart(figure: Figure, title: str, series: Sequence[Series], band: Band | None = None) -> Chart:
    return Chart(title, figure.about, figure.y_label, series, band, figure.holds, figure.smoothed)
