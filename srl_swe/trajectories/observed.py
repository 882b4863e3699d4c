"""What the text of a recorded observation says about itself: cut, timed out, never run.

The marks are those that the harnesses print; the text stays as it was recorded.
"""

from __future__ import annotations

import re

from srl_swe.types import Observation

_CUT = (
    "<response clipped>",  # str_replace_editor of all harnesses, SWE-agent
    "<Observation truncated in middle for saving context>",  # R2E-Gym
    "<Observation condensed for saving context>",  # R2E-Gym
    "[... Observation truncated due to length ...]",  # OpenHands
    "<elided_chars>",  # mini-swe-agent
)
_TIMED_OUT = re.compile(
    r"The command took too long to execute \(>"  # R2E-Gym
    r"|EXECUTION TIMED OUT"  # SWE-agent 0.x
    r"|The command '.*' was cancelled because it took more than "  # SWE-agent 1.x
    r"|The last command <command>.*</command> timed out and has been killed",  # mini-swe-agent
    re.DOTALL,
)
_TIMED_OUT_AT_END = re.compile(  # OpenHands: after the output
    r"\[(?:The command has no new output after [\d.]+ seconds"
    r"|The command timed out after [\d.]+ seconds"
    r"|Command timed out)"
)
_NEVER_RAN = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        # SWE-agent: blocked, not parsed, refused by the linter
        r"Operation '.*' is not supported by this environment",
        r"Your bash command contained syntax errors and was NOT executed",
        r"\[?Your proposed edit has introduced new syntax error\(s\)",  # OpenHands of 2024 too
        r"Your edit was not applied \(file not modified\)",
        # R2E-Gym, mini-swe-agent 2
        r"Bash command '[^']*' is not allowed",
        r"(?:<exception>)?action was not executed",
        # OpenHands: several commands, an unknown tool, wrong arguments; V1 without "ERROR:"
        r"Cannot execute multiple commands at once\.",
        r"Tool '?[^'\n]{1,200}'? (?:not found\. Available|is not registered)",
        r"Error validating (?:tool|args) ",
        r"Missing required argument \S{1,200} in tool call ",
        r"Failed to parse tool call arguments",
        # Claude Code, OpenCode, Gemini CLI, Codex
        r"<tool_use_error>",
        r"No such tool available: ",
        r"InputValidationError: ",
        r"The \S{1,200} tool was called with invalid arguments",
        r"Model tried to call unavailable tool ",
        r"Tool \"[^\"\n]{1,200}\" (?:not found in registry|does not exist)",
        r"Invalid parameters provided\. Reason: ",
        r"failed to parse function arguments",
        r"unsupported (?:custom tool )?call: ",
        # this project
        r"Unknown tool '[^'\n]{1,200}'\. Known: ",
        # a person said no
        r"Action (?:has been )?rejected",
        r"The user (?:doesn't|does not) want to (?:proceed with this tool use|take this action)",
        r"\[Request interrupted by user",
        r"\[Operation Cancelled\]",
        r"User (?:rejected|denied|declined|did not allow) (?:the |this )?"
        r"(?:tool|command|action|edit|call|request|permission|change)",
        r"(?:The )?(?:tool|exec|command|patch)[\w ]{0,40} (?:was )?rejected by (?:the )?user",
        r"Permission to use \S{1,200}(?: with command .{0,2000})? has been denied",
        r"Claude requested permissions? to ",
    )
)
"""How a text begins that answers a call which never ran; :data:`_ERROR_HEADS` may stand before."""
_ERROR_HEADS = re.compile(
    r"(?:OBSERVATION:\s*|ERROR:\s*|Error:\s*|\[An error occurred during execution\.\]\s*)*"
)
_HEAD = 20_000
"""A refusal that quotes the call says what it is within so many characters."""
_TAIL = 1000
"""OpenHands' line about a timeout stands within so many characters of the end."""


def observed(text: str, exit_code: int | None = None) -> Observation:
    """The observation, marked as truncated or timed out where its text says so.

    >>> observed("The command took too long to execute (>90s)").timed_out
    True
    """
    timed_out = _TIMED_OUT.match(text.lstrip()) or _TIMED_OUT_AT_END.search(text[-_TAIL:])
    cut = any(mark in text for mark in _CUT)
    return Observation(text, exit_code, truncated=cut, timed_out=timed_out is not None)


def never_ran(observation: Observation | None) -> bool:
    """Whether the text says that the call was refused, so that it changed nothing.

    >>> never_ran(Observation("Bash command 'git' is not allowed. Please use a different tool."))
    True
    """
    text = observation.text[:_HEAD].lstrip() if observation else ""
    heads = _ERROR_HEADS.match(text)
    starts = {0, heads.end() if heads else 0}
    return any(mark.match(text, start) for mark in _NEVER_RAN for start in starts)
