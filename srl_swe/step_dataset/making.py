"""What a worker does: trajectories in, rows as Arrow writes them out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from srl_swe.context_window import PAPER_WINDOW, CountTokens, Window
from srl_swe.dialects import get_dialect
from srl_swe.step_contexts import Dropped, StepContext, step_contexts, trajectory_id
from srl_swe.step_dataset.columns import make_batch
from srl_swe.trajectories.selection import held_out
from srl_swe.types import Trajectory

Split = Literal["train", "validation"]
OpenCounter = Callable[[str], CountTokens]
"""The counter of a tokenizer by its name. A function of a module, as workers import it, that
remembers what it opened, as it is called for every trajectory."""


@dataclass(frozen=True, slots=True)
class StepSettings:
    """How trajectories become step contexts, and which are held out. The defaults: the paper's.

    ``tokenizer`` None: nobody counts tokens. ``validation`` is the share of the instances whose
    trajectories are held out, as ``seed`` decides.
    """

    dialect: str = "xml"
    window: Window = PAPER_WINDOW
    include_last: bool = False
    tokenizer: str | None = None
    validation: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """What one trajectory gave: a serialised record batch, and its steps that gave no row.

    ``dropped`` counts those by reason, ``not_writable`` details that reason, and ``translated``
    counts rows by the tool of the expert whose call was translated.
    """

    trajectory_id: str
    split: Split
    rows: int
    batch: bytes
    dropped: Mapping[str, int] = field(default_factory=dict)
    not_writable: Mapping[str, int] = field(default_factory=dict)
    translated: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Making:
    """The work on a few trajectories, to be sent to a worker with them."""

    settings: StepSettings
    open_counter: OpenCounter | None = None

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Made]:
        """One result each, in order."""
        return [self._make(trajectory) for trajectory in trajectories]

    def rows(self, trajectory: Trajectory) -> list[dict[str, Any]]:
        """The rows that it gives, with the columns of the data set."""
        contexts = [item for item in self._items(trajectory) if isinstance(item, StepContext)]
        rows: list[dict[str, Any]] = make_batch(contexts).to_pylist()
        return rows

    def _make(self, trajectory: Trajectory) -> Made:
        items = list(self._items(trajectory))
        rows = [item for item in items if isinstance(item, StepContext)]
        dropped = [item for item in items if isinstance(item, Dropped)]
        for_validation = held_out(trajectory, self.settings.validation, self.settings.seed)
        return Made(
            trajectory_id(trajectory),
            "validation" if for_validation else "train",
            len(rows),
            make_batch(rows).serialize().to_pybytes() if rows else b"",
            Counter(item.reason.value for item in dropped),
            Counter(item.detail for item in dropped if item.detail),
            Counter(item.translated for item in rows if item.translated),
        )

    def _items(self, trajectory: Trajectory) -> Iterator[StepContext | Dropped]:
        settings, counter = self.settings, None
        if settings.tokenizer is not None and self.open_counter is not None:
            counter = self.open_counter(settings.tokenizer)
        return step_contexts(
            trajectory,
            get_dialect(settings.dialect),
            settings.window,
            include_last=settings.include_last,
            count_tokens=counter,
        )
