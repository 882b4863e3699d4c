"""Several samples of a policy per instance: pass@k, and the best sample of each instance.

pass@k is the chance that at least one of k samples resolves an instance, by the unbiased estimator
of Chen et al. (2021, arXiv 2107.03374), as a mean over the instances.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import TYPE_CHECKING, Any, Literal

from srl_swe.evaluation.details import (
    MOST_BROKEN,
    GradedRun,
    RunDetails,
    details_fields,
    details_tables,
)
from srl_swe.evaluation.report import (
    Report,
    as_text,
    headline,
    percent,
    provenance,
    report_fields,
)
from srl_swe.reports.intervals import ShareInterval, share_interval
from srl_swe.reports.page import Mark, TextTable, counted, render_page
from srl_swe.sandbox import majority
from srl_swe.types import Outcome, Trajectory

if TYPE_CHECKING:
    from rich.table import Table

BestOf = Literal["majority", "tests"]
"""How one sample of an instance is picked: by the most frequent patch, or by its own tests."""
BEST_OF: Mapping[BestOf, str] = {
    "majority": "the most frequent patch of each instance",
    "tests": "a sample that the instance's own tests resolve (an oracle: an upper bound)",
}


def pass_at(counted: int, resolved: int, k: int) -> float:
    """The unbiased estimate for an instance with ``resolved`` of ``counted`` samples >= ``k``.

    >>> pass_at(4, 1, 1), pass_at(4, 1, 2), pass_at(4, 1, 4)
    (0.25, 0.5, 1.0)
    """
    return 1.0 - comb(counted - resolved, k) / comb(counted, k)


@dataclass(frozen=True, slots=True)
class Tally:
    """The samples of an instance: all, those whose sandbox held, and those that resolved it."""

    samples: int
    counted: int
    resolved: int


@dataclass(frozen=True, slots=True)
class PassRate:
    """pass@k over the ``instances`` with at least k counted samples.

    ``rate`` and ``interval`` are None if too many instances lack samples. ``bounds``: over all
    instances, if all broken samples failed, and if all resolved.
    """

    k: int
    rate: float | None
    interval: ShareInterval | None
    bounds: tuple[float, float]
    instances: int

    def __str__(self) -> str:
        """One line for people."""
        low, high = map(percent, self.bounds)
        if self.rate is None or self.interval is None:
            return f"no pass@{self.k}: broken sandboxes, between {low} and {high} %"
        from_, to = percent(self.interval.low), percent(self.interval.high)
        return f"pass@{self.k} = {percent(self.rate)} % (95 %: {from_} to {to} %)"


@dataclass(frozen=True, slots=True)
class SamplesReport:
    """The reports of a policy's samples on the same instances, by the sub-folder of the sample.

    ``best``: the verdicts on the samples that ``best_of`` picked; both None if it was not asked.
    """

    reports: Mapping[str, Report]
    best: Report | None = None
    best_of: BestOf | None = None

    @property
    def tallies(self) -> dict[str, Tally]:
        """The samples by instance id, in the order of the instances."""
        outcomes: dict[str, list[Outcome]] = {}
        for report in self.reports.values():
            for verdict in report.verdicts:
                outcomes.setdefault(verdict.instance_id, []).append(verdict.outcome)
        return {
            name: Tally(
                len(found),
                len(found) - found.count(Outcome.BROKEN_SANDBOX),
                found.count(Outcome.RESOLVED),
            )
            for name, found in outcomes.items()
        }

    def pass_rate(self, k: int) -> PassRate:
        """pass@k; ``k`` is at most the number of samples."""
        tallies = list(self.tallies.values())
        shares = [pass_at(t.counted, t.resolved, k) for t in tallies if t.counted >= k]
        worst = [pass_at(t.samples, t.resolved, k) for t in tallies]
        best = [pass_at(t.samples, t.resolved + t.samples - t.counted, k) for t in tallies]
        bounds = (statistics.fmean(worst or [0.0]), statistics.fmean(best or [0.0]))
        lacking = len(tallies) - len(shares)
        rollouts = sum(tally.samples for tally in tallies)
        broken = rollouts - sum(tally.counted for tally in tallies)
        too_many = lacking > MOST_BROKEN * len(tallies) or broken > MOST_BROKEN * rollouts
        if not shares or too_many:
            return PassRate(k, None, None, bounds, len(shares))
        return PassRate(k, statistics.fmean(shares), share_interval(shares), bounds, len(shares))

    @property
    def pass_rates(self) -> list[PassRate]:
        """pass@1 to pass@n of n samples."""
        return [self.pass_rate(k) for k in range(1, len(self.reports) + 1)]

    @property
    def clean(self) -> SamplesReport | None:
        """The report without the faulty instances; None if the runs have none of them."""
        sound = {name: clean for name, each in self.reports.items() if (clean := each.clean)}
        return SamplesReport(sound) if len(sound) == len(self.reports) else None

    @property
    def runs(self) -> list[GradedRun]:
        """The verdicts and details of each sample."""
        return [(report.verdicts, report.details) for report in self.reports.values()]

    @property
    def resolved_rate(self) -> float | None:
        """pass@1; None if too many sandboxes broke."""
        return self.pass_rate(1).rate

    def __str__(self) -> str:
        """The table of :func:`samples_table`, as text."""
        return as_text(samples_table(self))


def pick_best(
    how: BestOf, rollouts: Sequence[Sequence[Trajectory]], reports: Sequence[Report]
) -> dict[str, int]:
    """The number of the picked sample by instance id.

    ``rollouts`` and ``reports``: one per sample, over the same instances in the same order. Samples
    that infrastructure ended are not picked while there are others.
    """
    picked: dict[str, int] = {}
    by_sample = [{v.instance_id: v.outcome for v in report.verdicts} for report in reports]
    for attempts in zip(*rollouts, strict=True):
        name = attempts[0].instance_id
        outcomes = [verdicts[name] for verdicts in by_sample]
        if how == "majority":
            votes = _votes(attempts)
            if (found := majority(votes)) is not None:
                alike = (n for n, vote in enumerate(votes) if vote == votes[found])
                judged = (n for n in alike if outcomes[n] is not Outcome.BROKEN_SANDBOX)
                found = next(judged, None)
        else:
            found = outcomes.index(Outcome.RESOLVED) if Outcome.RESOLVED in outcomes else None
        whole = (n for n, outcome in enumerate(outcomes) if outcome is not Outcome.BROKEN_SANDBOX)
        picked[name] = next(whole, 0) if found is None else found
    return picked


def _votes(attempts: Sequence[Trajectory]) -> list[str | None]:
    """The normal forms of an instance's patches; their texts if no form was recorded."""
    forms = [attempt.normal_form for attempt in attempts]
    if any(forms):
        return forms
    return [attempt.patch if (attempt.patch or "").strip() else None for attempt in attempts]


def best_report(picked: Mapping[str, int], reports: Sequence[Report]) -> Report:
    """The verdicts, marks and conditions of the picked samples; ``picked`` by instance id."""
    by_sample = [{v.instance_id: v for v in report.verdicts} for report in reports]
    return Report(
        tuple(by_sample[sample][name] for name, sample in picked.items()),
        reports[0].grader,
        {n: held for n, s in picked.items() if (held := reports[s].enforced.get(n))},
        {n: marked for n, s in picked.items() if (marked := reports[s].marks.get(n))},
        details=RunDetails(reports[0].details.repos, faulty=reports[0].details.faulty),
    )


def samples_fields(report: SamplesReport) -> dict[str, Any]:
    """The report as JSON.

    With a best sample per instance its verdicts have SWE-bench's fields.
    """
    best = report_fields(report.best) if report.best else {}
    clean = report.clean
    return {
        **best,
        **details_fields(report.runs),
        "total_instances": len(report.tallies),
        "samples": len(report.reports),
        "sample_folders": list(report.reports),
        "best_of": report.best_of,
        "pass_at": _pass_fields(report),
        "clean_pass_at": _pass_fields(clean) if clean else None,
        "sample_reports": {
            folder: {
                "resolved_instances": len(each.ids(Outcome.RESOLVED)),
                "counted_instances": each.counted,
                "resolved_rate": each.resolved_rate,
                "infra_failure_ids": each.ids(Outcome.BROKEN_SANDBOX),
                "marked_ids": sorted(each.marks),
            }
            for folder, each in report.reports.items()
        },
        "tallies": {name: asdict(tally) for name, tally in report.tallies.items()},
        "schema_version": 2,
    }


def _pass_fields(report: SamplesReport) -> dict[str, dict[str, Any]]:
    return {
        str(rate.k): {
            "rate": rate.rate,
            "rate_95": (rate.interval.low, rate.interval.high) if rate.interval else None,
            "interval": rate.interval.method if rate.interval else None,
            "bounds": rate.bounds,
            "instances": rate.instances,
        }
        for rate in report.pass_rates
    }


def pass_table(report: SamplesReport) -> TextTable:
    """pass@k with intervals, a row per k."""
    rows = []
    for rate in report.pass_rates:
        low, high = map(percent, rate.bounds)
        shown = "none: too many sandboxes broke" if rate.rate is None else percent(rate.rate)
        by = rate.interval
        interval = f"{percent(by.low)} to {percent(by.high)} ({by.method})" if by else ""
        rows.append([f"pass@{rate.k}", shown, interval, f"{low} to {high}", str(rate.instances)])
    return TextTable(["", "%", "95 % interval", "bounds", "instances"], rows)


def samples_headline(report: SamplesReport) -> str:
    """pass@1 and pass@n in one line."""
    return f"{report.pass_rate(1)}; {report.pass_rate(len(report.reports))}"


def _clean_line(report: SamplesReport) -> str:
    """pass@1 and pass@n without the faulty instances; empty without any."""
    if (clean := report.clean) is None:
        return ""
    left_out = counted(len(report.tallies) - len(clean.tallies), "faulty instance")
    return f"without {left_out}: {samples_headline(clean)}"


def _sample_line(report: Report) -> str:
    marked = f"; {counted(len(report.marks), 'instance')} marked as suspicious"
    return headline(report) + (marked if report.marks else "")


def samples_table(report: SamplesReport) -> Table:
    """A table for the terminal: pass@k, the best of n, and each sample."""
    from rich.text import Text

    table = pass_table(report).draw(f"{len(report.reports)} samples per instance")
    lines = [f"{name}: {_sample_line(each)}" for name, each in report.reports.items()]
    if report.best is not None and report.best_of is not None:
        lines.append(f"best of {len(lines)} by {report.best_of}: {headline(report.best)}")
        lines.append(f"({report.best_of}: {BEST_OF[report.best_of]})")
    table.caption = Text("\n".join(filter(None, [*lines, _clean_line(report)])))
    return table


def render_samples_page(report: SamplesReport) -> str:
    """The page; it links to those of the samples."""
    reports = report.reports.values()
    by_sample = [{v.instance_id: v.outcome for v in each.verdicts} for each in reports]
    return render_page(
        "samples.html",
        title="Evaluation of samples",
        headline=samples_headline(report),
        clean=_clean_line(report),
        provenance=sorted({provenance(each) for each in reports}),
        passes=pass_table(report),
        best=headline(report.best) if report.best else "",
        best_of=report.best_of,
        best_how=BEST_OF[report.best_of] if report.best_of else "",
        samples={name: _sample_line(each) for name, each in report.reports.items()},
        outcomes={
            name: [
                [Mark(found[name], f"{sample}/report.html#{name}")]
                for sample, found in zip(report.reports, by_sample, strict=True)
            ]
            for name in report.tallies
        },
        details=details_tables(report.runs),
        spread=sorted(Counter(t.resolved for t in report.tallies.values()).items()),
    )
