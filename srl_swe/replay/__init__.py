"""Executes recorded actions again, compares outputs and patch, and certifies the result.

:mod:`~srl_swe.replay.run` defines when a replay is faithful.
"""

from srl_swe.replay.batch import Ending, as_recorded, attempt_all, replay_all
from srl_swe.replay.certificate import certify_all, summarise
from srl_swe.replay.run import checkpoints_at, fork_at, replay_steps, replay_trajectory

__all__ = [
    "Ending",
    "as_recorded",
    "attempt_all",
    "certify_all",
    "checkpoints_at",
    "fork_at",
    "replay_all",
    "replay_steps",
    "replay_trajectory",
    "summarise",
]
