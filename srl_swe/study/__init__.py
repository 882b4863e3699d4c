"""The paper's comparison on any suite: the same policy trained in several ways at equal budgets."""

from __future__ import annotations

from srl_swe.study.arms import ARMS, Arm, get_arms
from srl_swe.study.plan import FULL, QUICK, StudyPlan
from srl_swe.study.results import ArmResult, load_results
from srl_swe.study.run import run_study

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
