"""Step contexts on disk: Hugging Face data sets with a card, built as a stream and resumable.

OUT/data-00000.arrow ...          the rows; one shard per 256 trajectories
OUT/state.json, dataset_info.json
OUT/README.md, card.json          the data card, for people and for machines
OUT/config.json                   the settings that decide the rows
"""

from __future__ import annotations

from srl_swe.steps.card import Card, load_card, render_summary
from srl_swe.steps.dataset import Pace, StepJob, StepMaker, StepSettings, build_step_dataset
from srl_swe.steps.rows import save_dataset, save_step_contexts
from srl_swe.steps.source import StepSource

__all__ = [
    "Card",
    "Pace",
    "StepJob",
    "StepMaker",
    "StepSettings",
    "StepSource",
    "build_step_dataset",
    "load_card",
    "render_summary",
    "save_dataset",
    "save_step_contexts",
]
