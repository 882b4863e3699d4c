"""Reads and writes trajectories: one file per family of formats, all giving ``Trajectory``."""

from __future__ import annotations

from srl_swe.trajectories.fields import BrokenRecord
from srl_swe.trajectories.jsonl import json_schema, load_jsonl, save_jsonl
from srl_swe.trajectories.load import Reading, load_trajectories, stream_trajectories
from srl_swe.trajectories.select import ReadReport, parse_filter

__all__ = [
    "BrokenRecord",
    "ReadReport",
    "Reading",
    "json_schema",
    "load_jsonl",
    "load_trajectories",
    "parse_filter",
    "save_jsonl",
    "stream_trajectories",
]
