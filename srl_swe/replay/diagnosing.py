"""Why two texts differ that ought not to: a table of signs, the first that tells them apart."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from srl_swe.replay.drift import Cause
from srl_swe.replay.edits import edit_succeeded, is_edit
from srl_swe.replay.listings import is_listing
from srl_swe.types import Action, Observation


@dataclass(frozen=True, slots=True)
class Sign:
    """The cause where the pattern finds something else in one text than in the other."""

    cause: Cause
    pattern: re.Pattern[str]


def _sign(cause: Cause, pattern: str) -> Sign:
    return Sign(cause, re.compile(pattern, re.MULTILINE))


SIGNS = (
    _sign(
        Cause.MISSING_TOOL,
        r"^Unknown tool |^.{0,200}(?:command not found|: not found$|No module named pytest)",
    ),
    _sign(
        Cause.NETWORK,
        r"Could not resolve host|[Tt]emporary failure in name resolution|Network is unreachable"
        r"|No matching distribution found|Max retries exceeded|Could not find a version that"
        r"|Failed to establish a new connection|Connection refused",
    ),
    _sign(Cause.MISSING_MODULE, r"No module named \S{1,100}|cannot import name \S{1,100}"),
    _sign(Cause.MISSING_FILE, r"No such file or directory|[Dd]oes not exist|[Ff]ile not found"),
    _sign(
        Cause.TESTS,
        r"\b\d{1,7} (?:passed|failed|errors?|skipped|xfailed|xpassed|deselected)\b"
        r"|^Ran \d{1,7} tests?|^(?:OK|FAILED)(?: \(.{1,80}\))?$",
    ),
    _sign(
        Cause.VERSIONS,
        r"\b(?:Python|pytest|pluggy|pip|py|git version)[- ]v?\d[\w.]{0,40}"
        r"|^plugins: .{1,400}|\bpython\d\.\d{1,2}\b|^configfile: .{1,100}|-\d{1,9}(?:\.\d{1,9})+\b",
    ),
)


def diagnose(
    action: Action, recorded: Observation, fresh: Observation, then: str, now: str
) -> Cause:
    """The cause, given the observations and their normalised texts."""
    if recorded.timed_out != fresh.timed_out:
        return Cause.TIMED_OUT
    for sign in SIGNS:
        if Counter(sign.pattern.findall(then)) != Counter(sign.pattern.findall(now)):
            return sign.cause
    succeeded = edit_succeeded(recorded)
    if is_edit(action) and succeeded is not None and succeeded is edit_succeeded(fresh):
        return Cause.WORDING
    return Cause.ENTRIES if is_listing(then, action) else Cause.UNKNOWN
