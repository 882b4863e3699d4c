"""The paper's comparison on any suite: the same policy trained in several ways at equal budgets."""

from __future__ import annotations

from srl_swe.experiments.plan import (
    ARMS,
    FULL,
    QUICK,
    Arm,
    ArmResult,
    StudyPlan,
    get_arms,
    load_results,
)
from srl_swe.experiments.study import run_study

__all__ = [
    "ARMS",
    "FULL",
    "QUICK",
    "Arm",
    "ArmResult",
    "StudyPlan",
    "get_arms",
    "load_results",
    "run_study",
]
