"""Executes recorded actions again, compares outputs and patch, and certifies the result.

:mod:`~srl_swe.replay.run` defines when a replay is faithful.
"""

from srl_swe.replay.batch import Attempt, Ending, as_recorded, attempt_all, replay_all
from srl_swe.replay.certificate import (
    Certificate,
    Summary,
    certify_all,
    load_certificates,
    summarise,
)
from srl_swe.replay.compare import compare_observations
from srl_swe.replay.normalise import Cause, Comparison, Match
from srl_swe.replay.patches import PatchComparison, compare_patches
from srl_swe.replay.run import (
    Replay,
    ReplayedStep,
    checkpoints_at,
    fork_at,
    replay_steps,
    replay_trajectory,
    with_fresh_observations,
)

__all__ = [
    "Attempt",
    "Cause",
    "Certificate",
    "Comparison",
    "Ending",
    "Match",
    "PatchComparison",
    "Replay",
    "ReplayedStep",
    "Summary",
    "as_recorded",
    "attempt_all",
    "certify_all",
    "checkpoints_at",
    "compare_observations",
    "compare_patches",
    "fork_at",
    "load_certificates",
    "replay_all",
    "replay_steps",
    "replay_trajectory",
    "summarise",
    "with_fresh_observations",
]
