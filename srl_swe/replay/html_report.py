"""One HTML page of many replays, complete in itself: a strip of coloured cells a trajectory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from srl_swe.files import write_atomic
from srl_swe.html_page import page
from srl_swe.replay.certificate import Certificate, StepRecord
from srl_swe.replay.drift import Match
from srl_swe.replay.summary import FamilySummary, Summary

_COLOURS = {
    Match.EQUAL: "#2f9e5b",
    Match.NORMALISED: "#8fce8f",
    Match.NOT_RECORDED: "#8aa4c8",
    Match.SKIPPED: "#9a9a9a55",
    Match.SIMILAR: "#e8c24a",
    Match.DIFFERENT: "#e0803a",
    Match.EXIT_CODE: "#c53030",
}
_STYLE = "\n".join(
    [
        "td { vertical-align: top } .strip { display: flex; flex-wrap: wrap; gap: 2px }",
        "i { border-radius: 2px; display: inline-block; height: 1.1em; width: .7em }",
        ".bad { color: #c53030 } .good { color: #2a8a3e } .none { color: #b7791f }",
        "ul.key { display: flex; flex-wrap: wrap; gap: 1.2rem; list-style: none; padding: 0 }",
        "td.n, th.n { text-align: right } small { opacity: .75 }",
        *(f"i.{match} {{ background: {colour} }}" for match, colour in _COLOURS.items()),
    ]
)


def save_html(summary: Summary, certificates: Sequence[Certificate], path: Path) -> None:
    """Writes :func:`render_html`, whole or not at all."""
    write_atomic(path, render_html(summary, certificates))


def render_html(summary: Summary, certificates: Sequence[Certificate]) -> str:
    """The page; all that trajectories and models wrote is escaped."""
    return page("Replay", "".join(_lines(summary, certificates)), _STYLE)


def _lines(summary: Summary, certificates: Sequence[Certificate]) -> Iterator[str]:
    faithful = sum(family.faithful for family in summary.families)
    yield f"<h1>{faithful} of {len(certificates)} replays are faithful</h1>\n"
    yield (
        "<p>Faithful means by effects: the recorded patch was left or, where none was recorded, "
        "every edit and every exit code was as recorded. What was printed may drift.</p>\n"
    )
    yield from _family_table(summary)
    yield from _cause_table(summary)
    yield "<h2>By trajectory</h2>\n<ul class='key'>"
    yield "".join(f"<li><i class='{match}'></i> {match}</li>" for match in Match)
    yield "</ul>\n<table><thead><tr><th>instance<th>family<th>steps<th>effects"
    yield "</tr></thead><tbody>\n"
    for one in certificates:
        yield _row(one)
    yield "</tbody></table>\n"


def _family_table(summary: Summary) -> Iterator[str]:
    shown = [match for match in Match if any(match in f.matches for f in summary.families)]
    heads = ["trajectories", "faithful", "not", "not replayed", *shown]
    yield "<h2>By family</h2>\n<table><thead><tr><th>family"
    yield "".join(f"<th class='n'>{head}" for head in heads) + "</tr></thead><tbody>\n"
    for family in summary.families:
        yield f"<tr><td>{escape(family.family)}" + _numbers(family, shown) + "</tr>\n"
    yield "</tbody></table>\n"


def _numbers(family: FamilySummary, shown: Sequence[Match]) -> str:
    counts = [family.trajectories, family.faithful, family.unfaithful, family.not_replayed]
    counts += [family.matches.get(match, 0) for match in shown]
    return "".join(f"<td class='n'>{count or '-'}" for count in counts)


def _cause_table(summary: Summary) -> Iterator[str]:
    if not summary.causes:
        return
    yield "<h2>By cause of drift</h2>\n<table><thead><tr><th>cause<th class='n'>steps<th>of these"
    yield "</tr></thead><tbody>\n"
    for cause, matches in summary.causes.items():
        kinds = ", ".join(f"{count} {match}" for match, count in matches.items())
        yield f"<tr><td>{cause}<td class='n'>{sum(matches.values())}<td>{kinds}</tr>\n"
    yield "</tbody></table>\n"


def _row(one: Certificate) -> str:
    cells = "".join(_cell(index, step) for index, step in enumerate(one.steps))
    model = f"<br><small>{escape(one.model)}</small>" if one.model else ""
    return (
        f"<tr><td>{escape(one.instance_id)}{model}<td>{escape(one.family)}"
        f"<td><div class='strip'>{cells}</div><td>{_effects(one)}</tr>\n"
    )


def _cell(index: int, step: StepRecord) -> str:
    words = [f"step {index}: {step.tool or 'no action'}", str(step.match)]
    words += [str(step.cause)] if step.cause else []
    words += [f"ratio {step.ratio:.2f}"] if step.ratio is not None else []
    title = escape(", ".join([*words, f"{step.seconds:.2f} s"]))
    return f"<i class='{step.match}' title=\"{title}\"></i>"


def _effects(one: Certificate) -> str:
    parts = []
    if one.faithful is None:
        parts.append(f"<span class='none'>{one.ending}</span><br>{escape(one.reason)}")
    else:
        word, kind = ("faithful", "good") if one.faithful else ("not faithful", "bad")
        parts.append(f"<span class='{kind}'>{word}</span>")
    if one.patch:
        for label in ("missing", "extra", "differing", "left_over"):
            if paths := getattr(one.patch, label):
                parts.append(f"<br>{label.replace('_', ' ')}: {escape(', '.join(paths))}")
    if one.verdict:
        parts.append(f"<br>graded: {one.verdict.outcome}")
    return "".join(parts)
