"""The columns of a data set of step contexts, and what each is for.

| column | its use |
|---|---|
| `prompt`, `completion` | messages: the input of SFT, SRL and RLVR; what SFT imitates |
| `expert_action` | what the similarity reward compares |
| `instance_id` | the tests of RLVR; splits and rates by instance |
| `step_index`, `n_steps` | similarity by position in the trajectory |
| `tool` | similarity by tool |
| `trajectory_id` | the steps of one attempt, among several at an instance |
| `observations` | `replayed` in a container of ours, or as `recorded` at the source |
| `source`, `model` | mixing and comparing families and teachers |
| `prompt_tokens`, `completion_tokens` | sorting and filtering by length; null without a tokenizer |
| `elided` | what the token budget left out: leave such rows out, or look at them |
| `has_thought` | SFT leaves out replies without a thought, which the format does not allow |
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from srl_swe.dialects import get_dialect
from srl_swe.run_folder import CONFIG_FILE
from srl_swe.steps.contexts import Dropped, StepContext, make_step_contexts, trajectory_id
from srl_swe.steps.prompt import PAPER_WINDOW, CountTokens, Window
from srl_swe.trajectories.select import is_held_out
from srl_swe.types import Trajectory

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("completion", _MESSAGES),
        ("expert_action", pa.string()),
        ("instance_id", pa.string()),
        ("step_index", pa.int64()),
        ("n_steps", pa.int64()),
        ("tool", pa.string()),
        ("trajectory_id", pa.string()),
        ("observations", pa.string()),
        ("source", pa.string()),
        ("model", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("elided", pa.int64()),
        ("has_thought", pa.bool_()),
    ]
)


def make_batch(contexts: Sequence[StepContext]) -> Any:
    """A record batch of :data:`SCHEMA`, one row a context."""
    return pa.RecordBatch.from_pylist([_row(context) for context in contexts], schema=SCHEMA)


def _row(context: StepContext) -> dict[str, Any]:
    """The columns that a context doesn't have under the same name are the two of messages."""
    same = {name: getattr(context, name) for name in SCHEMA.names if name not in _BUILT}
    completion = [{"role": "assistant", "content": context.expert_reply}]
    return {**same, "prompt": list(context.prompt), "completion": completion}


_BUILT = frozenset({"prompt", "completion"})


# Reads from a data set's config.json how its prompts were made.


@dataclass(frozen=True, slots=True)
class Recorded:
    """``window``: of its prompts. ``tokenizer_sha256``: ``TokenCounter.digest`` of the tokenizer
    that counted ``prompt_tokens`` and ``completion_tokens``. None if it is not recorded.
    """

    window: Window | None = None
    tokenizer_sha256: str | None = None


def recorded_settings(folder: Path) -> Recorded:
    """Read them. A folder without a config, or with somebody else's, records nothing."""
    config = read_config(folder)
    tokenizer = config.get("tokenizer")
    digest = tokenizer.get("sha256") if isinstance(tokenizer, dict) else None
    try:
        window = TypeAdapter(Window | None).validate_python(config.get("window"))
    except ValidationError:
        window = None
    return Recorded(window, digest if isinstance(digest, str) else None)


def read_config(folder: Path) -> Mapping[str, Any]:
    """The config of a data set; empty if there is none."""
    try:
        content = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


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
        for_validation = is_held_out(trajectory, self.settings.validation, self.settings.seed)
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
        return make_step_contexts(
            trajectory,
            get_dialect(settings.dialect),
            settings.window,
            include_last=settings.include_last,
            count_tokens=counter,
        )
