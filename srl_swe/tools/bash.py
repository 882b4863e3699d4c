"""The tool ``bash``: one command in the sandbox's persistent shell."""

from __future__ import annotations

from collections.abc import Mapping

from srl_swe.sandbox import DEFAULT_TIMEOUT_S, Sandbox
from srl_swe.types import Observation

TIMEOUT_MESSAGE = (
    "The command was cancelled because it took more than {seconds:g} seconds. "
    "Please try a different command that completes more quickly."
)
RESTARTED_MESSAGE = "The shell ended and was restarted; its functions and variables are gone."


def bash(arguments: Mapping[str, str], sandbox: Sandbox) -> Observation:
    """Run ``command``; trailing newlines of its output are dropped, as SWE-agent does."""
    if not arguments.get("command"):
        return Observation("Parameter `command` is required for tool: bash.", exit_code=2)
    result = sandbox.exec(arguments["command"], timeout_s=DEFAULT_TIMEOUT_S)
    notes = []
    if result.timed_out:
        notes.append(TIMEOUT_MESSAGE.format(seconds=DEFAULT_TIMEOUT_S))
    if result.restarted:
        notes.append(RESTARTED_MESSAGE)
    text = "\n".join(part for part in (result.output.rstrip("\r\n"), *notes) if part)
    return Observation(text, result.exit_code, result.elided_chars > 0, result.timed_out)
