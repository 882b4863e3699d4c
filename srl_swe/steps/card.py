"""The data card: README.md for people and the hub, card.json with the same for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from srl_swe.errors import UserError
from srl_swe.files import damage_named, flatten, write_atomic
from srl_swe.steps import rows as columns

_BINS = 12


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of texts. ``histogram[i]`` counts those from i to before i + 1 ``bin_width``."""

    unit: Literal["tokens", "characters"]
    p50: int
    p90: int
    p99: int
    longest: int
    bin_width: int
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Counts and lengths of all rows, read from the shards alone.

    ``elided`` counts the rows with a prompt shortened by the token budget.
    """

    rows: int
    instances: int
    by_tool: Mapping[str, int]
    by_source: Mapping[str, int]
    by_model: Mapping[str, int]
    by_observations: Mapping[str, int]
    elided: int
    prompt: Lengths
    completion: Lengths


def read_facts(shards: Iterable[Path]) -> Facts:
    """Reads the shards one batch at a time."""
    counted = ("instance_id", "tool", "source", "model", "observations")
    counts: dict[str, Counter[str]] = {name: Counter() for name in counted}
    tokens: dict[str, list[int]] = {"prompt": [], "completion": []}
    characters: dict[str, list[int]] = {"prompt": [], "completion": []}
    elided = 0
    for batch in _batches(shards):
        for name, counter in counts.items():
            counter.update(value or "unknown" for value in batch[name].to_pylist())
        for name in tokens:
            lengths = pc.utf8_length(batch[name].flatten().field("content"))
            rows = pc.list_parent_indices(batch[name])
            of_rows = np.bincount(rows, lengths, minlength=batch.num_rows)
            characters[name] += of_rows.astype(int).tolist()
            tokens[name] += batch[f"{name}_tokens"].drop_null().to_pylist()
        elided += pc.sum(pc.greater(batch["elided"], 0)).as_py() or 0
    instances = counts.pop("instance_id")
    by_tool, by_source, by_model, by_observations = (
        dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))
        for counter in counts.values()
    )
    return Facts(
        rows=instances.total(),
        instances=len(instances),
        by_tool=by_tool,
        by_source=by_source,
        by_model=by_model,
        by_observations=by_observations,
        elided=elided,
        prompt=_measure(tokens["prompt"], characters["prompt"]),
        completion=_measure(tokens["completion"], characters["completion"]),
    )


def _batches(shards: Iterable[Path]) -> Iterator[Any]:
    for path in shards:
        with pa.memory_map(str(path)) as file:
            yield from pa.ipc.open_stream(file)


def _measure(tokens: Sequence[int], characters: Sequence[int]) -> Lengths:
    """In tokens if every row has a count, else in characters."""
    counted = len(tokens) == len(characters)
    lengths = sorted(tokens if counted else characters) or [0]
    p50, p90, p99 = (lengths[(len(lengths) - 1) * share // 100] for share in (50, 90, 99))
    widths = (digit * 10**zeros for zeros in count() for digit in (1, 2, 5))
    width = next(width for width in widths if width >= lengths[-1] / _BINS)
    return Lengths(
        unit="tokens" if counted else "characters",
        p50=p50,
        p90=p90,
        p99=p99,
        longest=lengths[-1],
        bin_width=width,
        histogram=tuple(np.bincount([length // width for length in lengths]).tolist()),
    )


Split = Literal["train", "validation"]
README, CARD = "README.md", "card.json"
_BAR = 40
"""The width of a histogram's longest bar."""
_TAGS: Mapping[str | None, Sequence[str]] = {
    None: ("software-engineering", "agent-trajectories"),
    "math": ("mathematics",),
}
"""By domain; None is software."""
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M"}


@dataclass(frozen=True, slots=True)
class CardShard:
    """A table of the data set."""

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Card:
    """The facts about a data set of step contexts.

    ``config`` holds all settings that decide its rows. ``records`` counts the records read,
    ``dropped_records`` the unused ones by reason; both are of all splits together. ``steps``
    counts those of this split's ``trajectories``: the sum of rows and ``dropped_steps``.
    ``not_writable`` details the steps dropped for that reason, by the expert's tool;
    ``translated`` counts rows whose call is a translation, by the expert's tool. ``sha256`` is
    that of the shards' digests in order.
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
    """The card of a data set on disk. Raises UserError if it is damaged or missing."""
    path = folder / CARD
    with damage_named(str(path), "delete the folder to build the data set anew"):
        content = path.read_bytes() if path.is_file() else b""
        return TypeAdapter(Card).validate_json(content)


def save_card(card: Card, folder: Path) -> None:
    """Write both files of the card."""
    write_atomic(folder / README, render_readme(card))
    write_atomic(folder / CARD, TypeAdapter(Card).dump_json(card, indent=2).decode() + "\n")


def render_readme(card: Card) -> str:
    """The card with the front matter that the hub reads."""
    import yaml

    size = next((name for most, name in _SIZES.items() if card.facts.rows < most), "1M<n<10M")
    front = {
        "pretty_name": "Step contexts",
        "task_categories": ["text-generation"],
        "tags": ["srl-swe", "step-contexts", *_TAGS.get(card.config.get("domain"), _TAGS[None])],
        "size_categories": [size],
    }
    table_of_columns = (columns.__doc__ or "").partition("\n\n")[2]
    settings = [(name, f"`{json.dumps(value)}`") for name, value in flatten(card.config).items()]
    shards = [(shard.file, f"{shard.rows}", f"`{shard.sha256}`") for shard in card.shards]
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n# Step contexts: {card.split}",
        _INTRODUCTION,
        render_summary(card),
        f"## Columns\n{table_of_columns.strip()}",
        f"## Settings\n{_table(('setting', 'value'), settings)}",
        f"## SHA-256\n{_table(('file', 'rows', 'sha256'), shards)}",
        f"All of them, in order: `{card.sha256}`",
    ]
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
        *_on_policy(card.config.get("on_policy")),
        ("records read", f"{card.records}"),
        ("records dropped", _counts(card.dropped_records) or "none"),
    ]
    lengths = (_lengths("Prompts", facts.prompt), _lengths("Completions", facts.completion))
    return "\n\n".join([_table(("", ""), rows), *lengths])


def _on_policy(settings: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Where on-policy examples are from, and how many of both splits were kept of each kind."""
    if settings is None:
        return []
    rows, policy = settings["rows"], f"{settings['policy']} ({settings['weights'][:12]})"
    kept = f"{rows['on_policy_kept']} of {rows['on_policy']} in states of {policy}"
    others = f"{rows['experts_kept']} of {rows['experts']} of experts' trajectories"
    return [("on-policy share", f"{settings['share']:g}: {kept}; {others}")]


def _table(names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    ruler = "|---" * len(names) + "|"
    escaped = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (names, *escaped)]
    return "\n".join([lines[0], ruler, *lines[1:]])


def _lengths(of: str, lengths: Lengths) -> str:
    lines = [
        f"{of}, {lengths.unit}: median {lengths.p50}, 90 % up to {lengths.p90}, 99 % up to "
        f"{lengths.p99}, longest {lengths.longest}.",
        "",
    ]
    most = max(lengths.histogram)
    digits = len(str(len(lengths.histogram) * lengths.bin_width))
    for index, rows in enumerate(lengths.histogram):
        bar = "█" * round(_BAR * rows / most) or ("▏" if rows else "")
        lines.append(f"    {index * lengths.bin_width:>{digits}}+ {bar} {rows}")
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {rows}" for name, rows in counts.items())


def push(folders: Mapping[Split, Path], repository: str) -> None:
    """Upload the data sets as splits of ``OWNER/NAME``, with the training split's card.

    The card goes first: `push_to_hub` then adds the splits to its front matter. An existing
    repository keeps its other files, a new one is private. Raises UserError if the hub
    refuses it.
    """
    from datasets import load_from_disk
    from huggingface_hub import HfApi, errors

    not_to_be_had = (errors.HTTPError, errors.LocalTokenNotFoundError)  # type: ignore[attr-defined]
    api = HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            folder_path=folders["train"],
            allow_patterns=[README, CARD],
            repo_id=repository,
            repo_type="dataset",
        )
        for split, folder in folders.items():
            load_from_disk(str(folder)).push_to_hub(repository, split=split, private=True)
    except (*not_to_be_had, OSError, ValueError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{repository} can't be pushed to the hub ({why}); "
            "log in with `hf auth login`, check OWNER/NAME, and run the same command again."
        ) from error
