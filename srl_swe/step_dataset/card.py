"""The data card: README.md for people and the hub, card.json with the same for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from srl_swe.files import damage_named
from srl_swe.step_dataset import columns
from srl_swe.step_dataset.facts import Facts, Lengths
from srl_swe.step_dataset.making import Split

README, CARD = "README.md", "card.json"
_BAR = 40
"""The width of a histogram's longest bar."""
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M"}


@dataclass(frozen=True, slots=True)
class CardShard:
    """A table of the data set."""

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Card:
    """All that is known of a data set of step contexts.

    ``config`` is all that decided its rows. ``records`` came in and ``dropped_records`` are
    those that were not used, by reason; both are of all splits together. ``steps`` are those of
    this split's ``trajectories``: as many as rows and ``dropped_steps``. ``not_writable`` details
    the steps dropped for that reason, by the expert's tool; ``translated`` counts rows whose call
    is a translation, by the expert's tool. ``sha256`` is that of the shards' digests in order.
    """

    split: Split
    config: Mapping[str, Any]
    records: int
    dropped_records: Mapping[str, int]
    trajectories: int
    steps: int
    dropped_steps: Mapping[str, int]
    facts: Facts
    shards: tuple[CardShard, ...]
    sha256: str
    not_writable: Mapping[str, int] = field(default_factory=dict)
    translated: Mapping[str, int] = field(default_factory=dict)


def load_card(folder: Path) -> Card:
    """The card of a data set on disk. Raises UserError if it is damaged or not there."""
    path = folder / CARD
    with damage_named(str(path), "delete the folder to build the data set anew"):
        return _adapter().validate_json(path.read_bytes() if path.is_file() else b"")


def dump_card(card: Card) -> str:
    """The text that :func:`load_card` reads."""
    return _adapter().dump_json(card, indent=2).decode() + "\n"


@cache
def _adapter() -> TypeAdapter[Card]:
    return TypeAdapter(Card)


def render_readme(card: Card) -> str:
    """The card with the front matter that the hub reads."""
    import yaml

    front = {
        "pretty_name": "Step contexts",
        "task_categories": ["text-generation"],
        "tags": ["srl-swe", "step-contexts", "software-engineering", "agent-trajectories"],
        "size_categories": [_size(card.facts.rows)],
    }
    title = f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n# Step contexts: {card.split}"
    parts = [title, _INTRODUCTION, render_summary(card), _columns(), _settings(card), _shards(card)]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = """\
One row for a step of an expert: `prompt` is what the policy sees before the step, `completion` the
expert's reply, `expert_action` the part of it that the similarity reward compares (arXiv
2510.25992, section 3). Made by `srl-swe steps`."""


def render_summary(card: Card) -> str:
    """The counts and the lengths."""
    facts = card.facts
    rows = [
        ("examples", f"{facts.rows}"),
        ("trajectories", f"{card.trajectories}"),
        ("instances", f"{facts.instances}"),
        ("by tool", _counts(facts.by_tool)),
        ("by family", _counts(facts.by_source)),
        ("by teacher", _counts(facts.by_model)),
        ("observations", _counts(facts.by_observations)),
        ("cut by the token budget", f"{facts.elided}"),
        ("steps", f"{card.steps}"),
        ("steps dropped", _counts(card.dropped_steps) or "none"),
        ("not writable", _counts(card.not_writable) or "none"),
        ("translated calls", _counts(card.translated) or "none"),
        ("records read", f"{card.records}"),
        ("records dropped", _counts(card.dropped_records) or "none"),
    ]
    lengths = (_lengths("Prompts", facts.prompt), _lengths("Completions", facts.completion))
    return "\n\n".join([_table(("", ""), rows), *lengths])


def _columns() -> str:
    """What the module of the columns says of each."""
    table = (columns.__doc__ or "").partition("\n\n")[2].strip()
    return f"## Columns\n{table}"


def _settings(card: Card) -> str:
    rows = [(name, f"`{json.dumps(value)}`") for name, value in _flat(card.config)]
    return f"## Settings\n{_table(('setting', 'value'), rows)}"


def _shards(card: Card) -> str:
    rows = [(shard.file, f"{shard.rows}", f"`{shard.sha256}`") for shard in card.shards]
    whole = f"All of them, in order: `{card.sha256}`"
    return f"## SHA-256\n{_table(('file', 'rows', 'sha256'), rows)}\n\n{whole}"


def _table(names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    ruler = "|---" * len(names) + "|"
    lines = [f"| {' | '.join(cells)} |" for cells in (names, *rows)]
    return "\n".join([lines[0], ruler, *lines[1:]])


def _lengths(of: str, lengths: Lengths) -> str:
    heading = (
        f"{of}, {lengths.unit}: median {lengths.p50}, 90 % up to {lengths.p90}, 99 % up to "
        f"{lengths.p99}, longest {lengths.longest}."
    )
    return f"{heading}\n\n" + "\n".join(_bars(lengths))


def _bars(lengths: Lengths) -> Iterator[str]:
    most = max(lengths.histogram)
    digits = len(str(len(lengths.histogram) * lengths.bin_width))
    for index, count in enumerate(lengths.histogram):
        bar = "█" * round(_BAR * count / most) or ("▏" if count else "")
        yield f"    {index * lengths.bin_width:>{digits}}+ {bar} {count}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _size(rows: int) -> str:
    return next((name for most, name in _SIZES.items() if rows < most), "1M<n<10M")
