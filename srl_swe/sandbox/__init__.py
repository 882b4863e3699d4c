"""The contract of a rollout's sandbox, and the patch of its changes."""

from __future__ import annotations

from srl_swe.sandbox.contract import (
    DEFAULT_TIMEOUT_S,
    MAX_FILE_BYTES,
    EngineRecord,
    ExecResult,
    ForkableSandbox,
    OpenSandbox,
    Sandbox,
    enforced,
    engine_record,
)
from srl_swe.sandbox.normal_forms import majority, normal_form
from srl_swe.sandbox.patches import (
    DIFF_TIMEOUT_S,
    MAX_PATCH_BYTES,
    Patch,
    bug_command,
    diff,
    take_patch,
)
from srl_swe.sandbox.working_tree import Omitted

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "DIFF_TIMEOUT_S",
    "MAX_FILE_BYTES",
    "MAX_PATCH_BYTES",
    "EngineRecord",
    "ExecResult",
    "ForkableSandbox",
    "Omitted",
    "OpenSandbox",
    "Patch",
    "Sandbox",
    "bug_command",
    "diff",
    "enforced",
    "engine_record",
    "majority",
    "normal_form",
    "take_patch",
]
