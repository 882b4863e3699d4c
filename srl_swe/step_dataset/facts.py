"""What the rows of a data set come to: counts and lengths, read from its shards alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

_BINS = 12


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long texts are. ``histogram[i]`` counts those from i to before i + 1 ``bin_width``."""

    unit: Literal["tokens", "characters"]
    p50: int
    p90: int
    p99: int
    longest: int
    bin_width: int
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Of all rows. ``elided`` counts those that the token budget left something out of."""

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
    counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
    tokens: dict[str, list[int]] = {"prompt": [], "completion": []}
    characters: dict[str, list[int]] = {"prompt": [], "completion": []}
    elided = 0
    for batch in _batches(shards):
        for name, counter in counts.items():
            counter.update(value or "unknown" for value in batch[name].to_pylist())
        for name in tokens:
            tokens[name] += batch[f"{name}_tokens"].drop_null().to_pylist()
            characters[name] += _characters(batch[name])
        elided += pc.sum(pc.greater(batch["elided"], 0)).as_py() or 0
    return Facts(
        rows=counts["instance_id"].total(),
        instances=len(counts["instance_id"]),
        by_tool=_ranked(counts["tool"]),
        by_source=_ranked(counts["source"]),
        by_model=_ranked(counts["model"]),
        by_observations=_ranked(counts["observations"]),
        elided=elided,
        prompt=_lengths(tokens["prompt"], characters["prompt"]),
        completion=_lengths(tokens["completion"], characters["completion"]),
    )


_COUNTED = ("instance_id", "tool", "source", "model", "observations")


def _batches(shards: Iterable[Path]) -> Iterator[Any]:
    for path in shards:
        with pa.memory_map(str(path)) as file:
            yield from pa.ipc.open_stream(file)


def _characters(messages: Any) -> list[int]:
    """Of each row's messages together, from a column of lists of messages."""
    of_each = pc.utf8_length(messages.flatten().field("content")).to_numpy(zero_copy_only=False)
    ends = np.cumsum(messages.value_lengths().to_numpy(zero_copy_only=False))
    until = np.concatenate(([0], np.cumsum(of_each)))
    return [int(length) for length in np.diff(until[np.concatenate(([0], ends))])]


def _ranked(counter: Counter[str]) -> dict[str, int]:
    """The most frequent first, and those of one count by name."""
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _lengths(tokens: Sequence[int], characters: Sequence[int]) -> Lengths:
    """In tokens where every row has them."""
    counted = len(tokens) == len(characters)
    lengths = sorted(tokens if counted else characters) or [0]
    width = _round_width(lengths[-1] / _BINS)
    p50, p90, p99 = (lengths[(len(lengths) - 1) * share // 100] for share in (50, 90, 99))
    return Lengths(
        unit="tokens" if counted else "characters",
        p50=p50,
        p90=p90,
        p99=p99,
        longest=lengths[-1],
        bin_width=width,
        histogram=tuple(np.bincount([length // width for length in lengths]).tolist()),
    )


def _round_width(width: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50 and so on."""
    steps: Iterator[int] = (digit * zeros for zeros in _POWERS for digit in (1, 2, 5))
    return next(step for step in steps if step >= width)


_POWERS = [10**zeros for zeros in range(20)]
