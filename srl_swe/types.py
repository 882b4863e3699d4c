"""The records shared by all parts of the system.

All are frozen and hold plain data without derived values. Sizes and durations have their unit in
the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypedDict


class Message(TypedDict):
    """One message of a chat, as chat templates take it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One benchmark row, in the fields of swebench 5 (data card of SWE-bench/SWE-bench).

    Grading needs the fields after ``image``. Without them, that is if they are empty, an instance
    can be rolled out but not graded.
    """

    instance_id: str
    repo: str
    base_commit: str
    problem_statement: str
    image: str
    workdir: str = "/testbed"
    version: str = ""
    gold_patch: str = ""
    test_patch: str = ""
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    eval_script: str = ""
    log_parser: str = ""
    eval_type: str = ""
    image_assets: str = ""
    """JSON text as the row has it; empty means none."""
    bug_patch: str = ""
    """The diff that adds the bug if the image holds sound code, as SWE-smith's do."""
    built_from: str = ""
    """JSON text about the clean source that the image is a layer on, for generated instances."""


@dataclass(frozen=True, slots=True)
class Action:
    """The parsed decision of the policy: one call of one tool.

    Argument values are text, as an XML dialect writes them; a source with typed values
    (a list for ``view_range``) stores their JSON.
    """

    tool: str
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The canonical string, for comparison by rewards and for logs.

        It is the environment-consumable command of the paper (section 3): the
        ``<function=...>`` block of SWE-smith's XML trajectories, without the thought.
        """
        lines = [f"<function={self.tool}>"]
        for name, value in self.arguments.items():
            on_own_lines = name in BLOCK_ARGUMENTS or value[:1] == "\n" or value[-1:] == "\n"
            written = f"\n{value}\n" if on_own_lines else value
            lines.append(f"<parameter={name}>{written}</parameter>")
        return "\n".join([*lines, "</function>"])


BLOCK_ARGUMENTS = frozenset({"old_str", "new_str", "file_text"})
"""Arguments with their value on separate lines (SWE-smith's transform of trajectories)."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The sandbox's answer to one action.

    ``exit_code`` is None if unknown or if the tool has none. ``truncated``: the middle of ``text``
    was cut out. ``timed_out``: the command was ended at its time limit.
    """

    text: str
    exit_code: int | None = None
    truncated: bool = False
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Translation:
    """A step's call, translated to one of this project's own tools.

    A replay or the record itself has proven that the effect is the same
    (:mod:`srl_swe.tools.translation`). ``action`` is None if no such call exists, for the
    ``reason``. ``observation`` is our tool's answer to ``action``.
    """

    action: Action | None = None
    observation: Observation | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ExpertReply:
    """The thought and action of an expert asked for its next step in a state."""

    thought: str
    action: Action


@dataclass(frozen=True, slots=True)
class Step:
    """One thought, one action, one observation.

    ``action`` is None if the reply held no usable action, ``observation`` if nothing was recorded,
    as for the last step in many sources. ``executed`` is False for a recorded action that was never
    run (blocked, refused, format error); a replay skips it. ``turn`` counts the policy's messages
    from 0: the steps of one message share it and its thought; it is None if every step is a message
    of its own. ``translation`` is None for calls of our own tools and for untranslated ones.
    ``expert``: an expert's answer to the state before this step; None if it was not asked.
    """

    thought: str
    action: Action | None
    observation: Observation | None = None
    executed: bool = True
    turn: int | None = None
    translation: Translation | None = None
    expert: ExpertReply | None = None


class StopReason(StrEnum):
    """Why a rollout or a recorded trajectory ended."""

    SUBMITTED = "submitted"
    STEP_LIMIT = "step_limit"
    TOKEN_LIMIT = "token_limit"
    TIME_LIMIT = "time_limit"
    FORMAT_ERRORS = "format_errors"
    SANDBOX_ERROR = "sandbox_error"
    POLICY_ERROR = "policy_error"
    """The endpoint of the policy failed."""

    @property
    def is_failure(self) -> bool:
        """True if infrastructure ended it: the policy is not to blame, and a resume tries again."""
        return self in {StopReason.SANDBOX_ERROR, StopReason.POLICY_ERROR}

    @property
    def truncated(self) -> bool:
        """True if a limit ended it rather than the policy."""
        return self in {StopReason.STEP_LIMIT, StopReason.TOKEN_LIMIT, StopReason.TIME_LIMIT}


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One attempt at one instance, by an expert or by a policy.

    ``problem_statement``, ``patch``, ``resolved``, ``stop_reason``, ``exit_status`` and
    ``enforced`` are None if the source does not record them. ``patch`` is the resulting unified
    diff.
    """

    instance_id: str
    steps: tuple[Step, ...]
    problem_statement: str | None = None
    stop_reason: StopReason | None = None
    patch: str | None = None
    resolved: bool | None = None
    model: str | None = None
    source: str = "srl-swe"
    """The name of the original format."""
    enforced: Mapping[str, Any] | None = None
    """Conditions enforced by the sandbox: network, limits, image digest (srl_swe.sandbox)."""
    exit_status: str | None = None
    """How it ended, in the word of the source."""
    notes: tuple[str, ...] = ()
    """Known gaps and changes: truncated at the source, fabricated, restored."""
    normal_form: str | None = None
    """Hex digits, equal for patches that differ only in comments, docstrings and layout
    (srl_swe.sandbox.normal_forms). None for other sources, and if nothing else was changed."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A patch to grade, exactly SWE-bench's three fields."""

    instance_id: str
    model_name_or_path: str
    model_patch: str


class Outcome(StrEnum):
    """The result of grading one prediction."""

    RESOLVED = "resolved"
    UNRESOLVED = "unresolved"
    EMPTY_PATCH = "empty_patch"
    PATCH_FAILED = "patch_failed"
    """The patch did not apply."""
    TIMED_OUT = "timed_out"
    """The tests ran longer than the limit."""
    BROKEN_SANDBOX = "broken_sandbox"
    """Infrastructure failed; never a wrong answer, whatever the patch."""
    NOT_ATTEMPTED = "not_attempted"
    """The instance has no prediction."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome with its evidence: passed and failed tests, and the path of the log."""

    instance_id: str
    outcome: Outcome
    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    log_path: str | None = None
    detail: str = ""
    """One line of explanation; may be empty."""
    network: str = ""
    """The engine's network for the tests; empty if none ran or it is not recorded."""
    seconds: float | None = field(default=None, compare=False)
    """Seconds of the tests; None if none ran or they are not recorded."""

    @classmethod
    def broken(cls, instance_id: str, why: str) -> Verdict:
        """The verdict if infrastructure has failed, for the reason ``why``."""
        return cls(instance_id, Outcome.BROKEN_SANDBOX, detail=why)
