"""``completions/step-000010.parquet``: every reply that a logged step was trained on, or not.

TRL's ``log_completions`` has neither the refills of dynamic sampling nor which groups were kept,
and repeats each prompt for every reply; here a row names its prompt by instance and step.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from srl_swe.files import write_atomic
from srl_swe.rollout.replies import decode_reply
from srl_swe.training.grpo.sampled import SampledReply


class CompletionsLog(TrainerCallback):
    """Writes the first step, the last, and every so many; a resumed run replaces what it redoes.

    The trainer has ``sampled``, this rank's replies; the first rank writes those of all. A step
    that sampled none, since it reuses a batch, is shown with the batch that it was trained on.
    """

    def __init__(self, trainer: Any, folder: Path, every: int) -> None:
        self._trainer = trainer
        self._folder = folder
        self._every = every

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the steps that are about to be redone."""
        if state.is_world_process_zero:
            for path in self._folder.glob("step-*.parquet"):
                if int(path.stem.partition("-")[2]) > state.global_step:
                    path.unlink()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called on every rank, and due on all of them or on none."""
        step = state.global_step
        if not (step == 1 or step >= state.max_steps or step % self._every == 0):
            return
        rows = gather_object(list(self._rows(step)))
        if state.is_world_process_zero:
            write_atomic(self._folder / f"step-{step:06d}.parquet", as_parquet(rows))

    def _rows(self, step: int) -> Iterator[dict[str, Any]]:
        trainer = self._trainer
        ends = getattr(trainer, "eos_token_ids", ())
        for reply in trainer.sampled.replies:
            text, ended = decode_reply(trainer.processing_class, reply.ids, ends)
            yield {
                "step": step,
                "rank": trainer.accelerator.process_index,
                **completion_row(reply, text, ended, trainer.reward_func_names),
            }


def completion_row(
    reply: SampledReply, text: str, ended: bool, reward_names: Sequence[str]
) -> dict[str, Any]:
    """One row: the target, the text, every reward, and what became of it."""
    rewards = {
        f"rewards/{name}": None if math.isnan(value) else value
        for name, value in zip(reward_names, reply.rewards, strict=True)
    }
    return {
        "round": reply.round,
        "group": reply.group,
        **{**reply.row, **reply.extras},
        "completion": text,
        "tokens": len(reply.ids),
        "truncated": not ended,
        **rewards,
        "advantage": reply.advantage,
        "kept": reply.trained,
    }


def as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as a table with every column that one of them has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _array([row.get(name) for row in rows]) for name in names}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def _array(values: Sequence[Any]) -> pa.Array:
    """What Arrow has no one type for becomes JSON."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else json.dumps(value) for value in values])
