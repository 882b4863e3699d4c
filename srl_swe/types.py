"""The records that every part of the system passes around.

All are frozen, hold plain data, and derive nothing that can be derived later. Sizes and
durations carry their unit in the name.
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

    Everything after ``image`` is what grading needs; None or empty means that the source
    does not say, and such an instance can be rolled out but not graded.
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
    """The diff that makes the bug where the image holds sound code, as SWE-smith's do."""


@dataclass(frozen=True, slots=True)
class Action:
    """What the policy decided, parsed: one call of one tool.

    Argument values are text, as an XML dialect writes them; a source with typed values
    (a list for ``view_range``) stores their JSON.
    """

    tool: str
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The canonical string that rewards compare and logs show.

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
"""Arguments whose value stands on lines of its own (SWE-smith's transform of trajectories)."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What the sandbox answered to one action.

    ``exit_code`` None means that the tool has none or that it is not known; ``truncated``
    that ``text`` was cut in the middle; ``timed_out`` that the command was ended.
    """

    text: str
    exit_code: int | None = None
    truncated: bool = False
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Translation:
    """A step's call as one of this project's own tools, with the same effect.

    A replay, or the record itself, has proven that effect (:mod:`srl_swe.tools.translation`).
    ``action`` None: there is no such call, for the ``reason``. ``observation`` is what the own
    tool answers to ``action``.
    """

    action: Action | None = None
    observation: Observation | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One thought, one action, one observation.

    ``action`` None: the reply held no usable action. ``observation`` None: nothing was
    recorded, as for the last step of many sources. ``executed`` False: recorded but never
    run (blocked, refused, format error), so a replay leaves it out. ``turn`` counts the
    policy's messages from 0: the steps of one message share it, and its thought; None where
    every step is a message of its own. ``translation`` None: the call is one of our own tools,
    or nobody has tried.
    """

    thought: str
    action: Action | None
    observation: Observation | None = None
    executed: bool = True
    turn: int | None = None
    translation: Translation | None = None


class StopReason(StrEnum):
    """Why a rollout or a recorded trajectory ended."""

    SUBMITTED = "submitted"
    STEP_LIMIT = "step_limit"
    TOKEN_LIMIT = "token_limit"
    TIME_LIMIT = "time_limit"
    FORMAT_ERRORS = "format_errors"
    SANDBOX_ERROR = "sandbox_error"

    @property
    def truncated(self) -> bool:
        """True where a limit ended it, and not the policy's own doing."""
        return self in {StopReason.STEP_LIMIT, StopReason.TOKEN_LIMIT, StopReason.TIME_LIMIT}


@dataclass(frozen=True, slots=True)
class Trajectory:
    """What happened in one attempt at one instance, by an expert or by a policy.

    ``problem_statement``, ``patch``, ``resolved``, ``stop_reason``, ``exit_status`` and
    ``enforced`` are None where the source does not say. ``patch`` is the unified diff that the
    attempt left behind.
    """

    instance_id: str
    steps: tuple[Step, ...]
    problem_statement: str | None = None
    stop_reason: StopReason | None = None
    patch: str | None = None
    resolved: bool | None = None
    model: str | None = None
    source: str = "srl-swe"
    """Name of the format it was read from."""
    enforced: Mapping[str, Any] | None = None
    """What the sandbox was held to: network, limits, image digest (srl_swe.sandbox)."""
    exit_status: str | None = None
    """How the source says that it ended, in the source's own word."""
    notes: tuple[str, ...] = ()
    """What is known to be missing or altered: elided at the source, fabricated, restored."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A patch to grade, exactly SWE-bench's three fields."""

    instance_id: str
    model_name_or_path: str
    model_patch: str


class Outcome(StrEnum):
    """What grading one prediction came to."""

    RESOLVED = "resolved"
    UNRESOLVED = "unresolved"
    EMPTY_PATCH = "empty_patch"
    PATCH_FAILED = "patch_failed"
    """The patch did not apply."""
    TIMED_OUT = "timed_out"
    """The tests ran longer than the limit."""
    BROKEN_SANDBOX = "broken_sandbox"
    """Infrastructure failed: says nothing about the patch, and is never a wrong answer."""
    NOT_ATTEMPTED = "not_attempted"
    """The instance has no prediction."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome with its evidence: the tests by what became of them, and where the log is."""

    instance_id: str
    outcome: Outcome
    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    log_path: str | None = None
    detail: str = ""
    """One line for a person; empty where the outcome says it all."""
    network: str = ""
    """The engine's network that the tests ran in; empty if none ran or it is not recorded."""
