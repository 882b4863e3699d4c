"""The course of the rollouts beside their verdicts: ends, steps, tokens, cost and seconds.

All functions take the graded runs of a report: one, or one per sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from srl_swe.reports.intervals import ShareInterval, share_interval
from srl_swe.reports.page import TextTable
from srl_swe.rollout.usage import Prices, RolloutUsage, median_and_p95
from srl_swe.types import Outcome, StopReason, Trajectory, Verdict

MOST_BROKEN = 0.05
"""Above this share of broken sandboxes a report has bounds only, not a rate."""


@dataclass(frozen=True, slots=True)
class Course:
    """The course of one rollout.

    ``stop_reason``: empty if it is not recorded. ``format_errors``: replies out of the format.
    ``empty_because``: why the patch is empty; empty if it is not, and if infrastructure ended the
    rollout. ``usage`` is None if no reply was recorded.
    """

    stop_reason: str
    steps: int
    format_errors: int
    empty_because: str = ""
    usage: RolloutUsage | None = None


@dataclass(frozen=True, slots=True)
class RunDetails:
    """A run beside its verdicts. ``repos`` and ``courses`` are by instance id.

    ``courses`` is empty for patches from elsewhere. ``faulty``: instances that a second rate
    leaves out. ``prices`` give the cost; None: it is not known.
    """

    repos: Mapping[str, str] = field(default_factory=dict)
    courses: Mapping[str, Course] = field(default_factory=dict)
    faulty: frozenset[str] = frozenset()
    prices: Prices | None = None


GradedRun = tuple[Sequence[Verdict], RunDetails]
"""The verdicts of one run, and its details."""


def courses(rollouts: Sequence[Trajectory], usage: Mapping[str, RolloutUsage]) -> dict[str, Course]:
    """The courses by instance id; ``usage`` by instance id too."""
    return {rollout.instance_id: _course(rollout, usage) for rollout in rollouts}


def _course(rollout: Trajectory, usage: Mapping[str, RolloutUsage]) -> Course:
    reason = rollout.stop_reason
    is_failure = reason is not None and reason.is_failure
    steps = rollout.steps[:-1] if is_failure else rollout.steps
    empty_because = ""
    if not is_failure and not (rollout.patch or "").strip():
        empty_because = _why_empty(rollout)
    return Course(
        reason.value if reason else "",
        len(steps),
        sum(step.action is None and not step.executed for step in steps),
        empty_because,
        usage.get(rollout.instance_id),
    )


def _why_empty(rollout: Trajectory) -> str:
    """One line; notes of the patch come first, as a change may have been left out of it."""
    if rollout.patch is None:
        return "the patch could not be taken from the repository"
    if any(note.startswith("left out of the patch") for note in rollout.notes):
        return "all changes were left out of the patch"
    steps = rollout.steps
    if steps and not any(step.executed or step.action for step in steps):
        return "no reply had a usable action"
    answer = steps[-1].observation if steps and steps[-1].action is None else None
    if answer and rollout.stop_reason is StopReason.SUBMITTED:  # a reply of edits, or of paths
        return answer.text.partition("\n")[0].rstrip(".").lower()
    match rollout.stop_reason:
        case StopReason.SUBMITTED:
            return "submitted without a change"
        case None:
            return "ended without a change"
        case reason:
            return f"{reason.value} before a change"


def by_repository(
    runs: Sequence[GradedRun],
) -> dict[str, tuple[list[float], ShareInterval | None]]:
    """Per repository, the resolved share of each instance over the runs that count it.

    The interval is that of their mean; None without an instance, or if too many sandboxes broke.
    """
    outcomes: dict[str, dict[str, list[bool]]] = {}
    for verdicts, details in runs:
        for verdict in verdicts:
            if (repo := details.repos.get(verdict.instance_id)) is None:
                continue
            found = outcomes.setdefault(repo, {}).setdefault(verdict.instance_id, [])
            if verdict.outcome is not Outcome.BROKEN_SANDBOX:
                found.append(verdict.outcome is Outcome.RESOLVED)
    shares = {
        repo: [fmean(found) for found in instances.values() if found]
        for repo, instances in sorted(outcomes.items())
    }
    enough = {
        repo: len(shares[repo]) >= (1 - MOST_BROKEN) * len(instances)
        for repo, instances in outcomes.items()
    }
    return {
        repo: (of, share_interval(of) if of and enough[repo] else None)
        for repo, of in shares.items()
    }


def stop_reasons(runs: Sequence[GradedRun]) -> dict[str, int]:
    """The number of rollouts by stop reason, the most frequent first."""
    found = Counter(course.stop_reason or "not recorded" for course, _ in _each(runs))
    return dict(found.most_common())


def empty_patches(runs: Sequence[GradedRun]) -> dict[str, list[str]]:
    """The instances with an empty patch, by its reason."""
    found: dict[str, list[str]] = {}
    for _, details in runs:
        for name, course in details.courses.items():
            if course.empty_because:
                found.setdefault(course.empty_because, []).append(name)
    return {reason: sorted(names) for reason, names in sorted(found.items())}


def format_errors(runs: Sequence[GradedRun]) -> dict[str, int]:
    """The replies without a usable action, by instance id; only instances that have any."""
    found: Counter[str] = Counter()
    for _, details in runs:
        found.update({name: course.format_errors for name, course in details.courses.items()})
    return {name: count for name, count in sorted(found.items()) if count}


_COUNTS = {
    "replies": "replies",
    "tokens in": "prompt_tokens",
    "tokens out": "completion_tokens",
    "replies cut": "truncated",
}
_PHASES = {"open the sandbox": "open_s", "wait for replies": "policy_s", "act": "act_s"}
"""Names of the figures, and the fields of RolloutUsage."""


def figures(runs: Sequence[GradedRun]) -> dict[str, list[float]]:
    """Counts per rollout by name, and the US dollars if prices are known."""
    each = list(_each(runs))
    found: dict[str, list[float]] = {
        "steps": [course.steps for course, _ in each],
        "format errors": [course.format_errors for course, _ in each],
        **_of_usage(runs, _COUNTS),
        "US dollars": [
            details.prices.cost(course.usage.prompt_tokens, course.usage.completion_tokens)
            for course, details in each
            if details.prices and course.usage
        ],
    }
    return {name: values for name, values in found.items() if values}


def seconds(runs: Sequence[GradedRun]) -> dict[str, list[float]]:
    """Seconds per rollout by phase; those of the tests too."""
    tests = [v.seconds for verdicts, _ in runs for v in verdicts if v.seconds is not None]
    found = {**_of_usage(runs, _PHASES), "test": tests}
    return {name: values for name, values in found.items() if values}


def _of_usage(runs: Sequence[GradedRun], fields: Mapping[str, str]) -> dict[str, list[float]]:
    usages = [course.usage for course, _ in _each(runs) if course.usage]
    return {
        name: [value for usage in usages if (value := getattr(usage, of)) is not None]
        for name, of in fields.items()
    }


def _each(runs: Sequence[GradedRun]) -> Iterator[tuple[Course, RunDetails]]:
    for _, details in runs:
        for course in details.courses.values():
            yield course, details


def details_fields(runs: Sequence[GradedRun]) -> dict[str, Any]:
    """The details as JSON. ``seconds`` are the only fields that a resumed run changes."""
    errors = format_errors(runs)
    return {
        "by_repository": {
            repo: {
                "counted_instances": len(shares),
                "resolved_rate": fmean(shares) if shares else None,
                "resolved_rate_95": interval and (interval.low, interval.high),
            }
            for repo, (shares, interval) in by_repository(runs).items()
        },
        "stop_reasons": stop_reasons(runs),
        "format_errors": {"total": sum(errors.values()), "by_instance": errors},
        "empty_patch_reasons": empty_patches(runs),
        "rollout_figures": _spread(figures(runs)),
        "seconds": _spread(seconds(runs)),
    }


def _spread(figures: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    found = {}
    for name, values in figures.items():
        p50, p95 = median_and_p95(values)
        found[name.replace(" ", "_")] = {"sum": sum(values), "p50": p50, "p95": p95}
    return found


def details_tables(runs: Sequence[GradedRun]) -> dict[str, TextTable]:
    """The details as tables by title, without empty ones."""
    repositories = []
    for repo, (shares, by) in by_repository(runs).items():
        rate = f"{100 * fmean(shares):.1f}" if by else ""
        interval = f"{100 * by.low:.1f} to {100 * by.high:.1f}" if by else ""
        repositories.append([repo, str(len(shares)), _shown(sum(shares)), rate, interval])
    ended = [[reason, f"{count:,}"] for reason, count in stop_reasons(runs).items()]
    empty = [[why, f"{len(ids):,}"] for why, ids in empty_patches(runs).items()]
    columns = ("", "sum", "median", "p95")
    tables = {
        "By repository": TextTable(
            ("repository", "counted", "resolved", "%", "95 % interval"), repositories
        ),
        "How the rollouts ended": TextTable(("stop reason", "rollouts"), ended),
        "Why patches are empty": TextTable(("reason", "rollouts"), empty),
        "Per rollout": TextTable(columns, _spread_rows(figures(runs))),
        "Seconds": TextTable(columns, _spread_rows(seconds(runs))),
    }
    return {title: table for title, table in tables.items() if table.rows}


def _spread_rows(figures: Mapping[str, Sequence[float]]) -> list[list[str]]:
    return [
        [name, *map(_shown, (sum(values), *median_and_p95(values)))]
        for name, values in figures.items()
    ]


def _shown(value: float) -> str:
    """Whole numbers without decimals, small ones with two significant digits, others with two.

    Below 0.0001 it is 0.
    """
    if float(value).is_integer() or value < 1e-4:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if value >= 0.1 else f"{value:.2g}"
