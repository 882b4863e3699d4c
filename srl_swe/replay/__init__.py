"""Executes recorded actions again, compares what they print and leave, and certifies it.

:mod:`~srl_swe.replay.run` has the rule of what is faithful.
"""

from srl_swe.replay.batch import Attempt, Ending, Watch, as_recorded, attempt_all, replay_all
from srl_swe.replay.certificate import (
    Certificate,
    Summary,
    certify_all,
    load_certificates,
    summarise,
)
from srl_swe.replay.compare import compare
from srl_swe.replay.normalise import Cause, Comparison, Match, normalise
from srl_swe.replay.patches import PatchComparison, compare_patches, normalise_patch
from srl_swe.replay.run import (
    Replay,
    ReplayedStep,
    checkpoints_at,
    fork_at,
    replay,
    replay_steps,
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
    "Watch",
    "as_recorded",
    "attempt_all",
    "certify_all",
    "checkpoints_at",
    "compare",
    "compare_patches",
    "fork_at",
    "load_certificates",
    "normalise",
    "normalise_patch",
    "replay",
    "replay_all",
    "replay_steps",
    "summarise",
    "with_fresh_observations",
]
