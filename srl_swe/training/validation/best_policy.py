"""``best/``: the policy that did best in validation so far, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]

from srl_swe.runs.record import BEST, read_best
from srl_swe.training.run.folder import save_policy

NOTE = BEST.name


class BestPolicy:
    """Keeps one folder beside the checkpoints, which ``save_total_limit`` does not count.

    A run resumed before the step that was best keeps that policy: it has earned its score, and
    the same weights would earn the same again.
    """

    def __init__(self, folder: Path, notes: Mapping[str, str] | None = None) -> None:
        """``notes``: files that the policy gets beside its own, by name."""
        self._folder = folder
        self._notes = dict(notes or {})
        self._score = float("-inf")

    def recall(self, accelerator: Any) -> None:
        """Take up what an earlier start left; the ranks follow the first, who has the folder."""
        held = [read_best(self._folder / NOTE)] if accelerator.is_main_process else [{}]
        if accelerator.num_processes > 1:
            broadcast_object_list(held)
        if held[0]:
            self._score = held[0]["score"]

    def offer(self, trainer: Any, step: int, metric: str, figures: Mapping[str, float]) -> None:
        """Save the live policy if it is better than all before; called by every rank.

        Nothing is known of it where every sandbox broke: ``figures`` then lacks the metric.
        """
        score = figures.get(metric)
        if score is None or score <= self._score:
            return
        self._score = score
        note = {"step": step, "metric": metric, "score": score, "figures": dict(figures)}
        notes = {**self._notes, NOTE: json.dumps(note, indent=2) + "\n"}
        save_policy(trainer, self._folder, notes)
