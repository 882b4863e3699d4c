"""Supervised Reinforcement Learning (arXiv 2510.25992) for software-engineering agents.

The names of ``__all__`` are the public API (:mod:`srl_swe.api`); each is imported on first use.
"""

from importlib import import_module

TYPE_CHECKING = False  # true to type checkers; the import of `typing` would take 10 ms
if TYPE_CHECKING:
    from srl_swe.api import (
        evaluate,
        grade,
        load_instances,
        load_trajectories,
        make_expert_trajectories,
        make_steps,
        run_rollouts,
        train,
    )
    from srl_swe.errors import UserError
    from srl_swe.evaluation.report import Report
    from srl_swe.evaluation.samples import SamplesReport
    from srl_swe.evaluation_run import EvalSettings
    from srl_swe.expert_run import ExpertSettings
    from srl_swe.types import Instance, Trajectory

__version__ = "0.2.0"

__all__ = [
    "EvalSettings",
    "ExpertSettings",
    "Instance",
    "Report",
    "SamplesReport",
    "Trajectory",
    "UserError",
    "evaluate",
    "grade",
    "load_instances",
    "load_trajectories",
    "make_expert_trajectories",
    "make_steps",
    "run_rollouts",
    "train",
]

_HOMES = {
    "EvalSettings": "srl_swe.evaluation_run",
    "ExpertSettings": "srl_swe.expert_run",
    "Instance": "srl_swe.types",
    "Report": "srl_swe.evaluation.report",
    "SamplesReport": "srl_swe.evaluation.samples",
    "Trajectory": "srl_swe.types",
    "UserError": "srl_swe.errors",
}

if not TYPE_CHECKING:  # a type checker would take any name for one that exists

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES.get(name, "srl_swe.api")), name)

    def __dir__():
        return [*__all__, "__version__"]
