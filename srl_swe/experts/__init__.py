"""Experts that know the gold patch and act like a person who does not."""

from __future__ import annotations

from srl_swe.experts.expert import EXPERT_NAME, Expert, ExpertAgent
from srl_swe.experts.on_policy import LabellingAgent
from srl_swe.experts.reading import find_leak

__all__ = ["EXPERT_NAME", "Expert", "ExpertAgent", "LabellingAgent", "find_leak"]
