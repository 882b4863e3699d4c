"""From messages to steps: rules shared by all readers.

A reader yields the events of a run in order, as :class:`Turn` and :class:`Answer`;
:func:`make_steps` pairs every observation with its call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from srl_swe.tools.own_calls import SUBMIT_MARK
from srl_swe.trajectories.fields import Fields
from srl_swe.types import Action, Observation, Step, StopReason, Translation

CUT_MARK = re.compile(
    r"<response clipped>(?:<NOTE>.{0,400}?</NOTE>)?"  # editors of all harnesses
    r"|\[\d+ characters elided\]"  # mini-swe-agent, as its reader writes it
    r"|<elided_chars>[\s\S]{0,80}?</elided_chars>"
    r"|\[\.\.\. Observation truncated due to length \.\.\.\]"  # OpenHands
    r"|<Observation (?:truncated in middle|condensed) for saving context>"  # R2E-Gym
    r"|Old (?:environment|output).{0,60}(?:omitted|elided)\S*(?: \S{1,20})?"  # SWE-agent's history
    r"|Outdated window with .{0,60}omitted\S*"
    r"|\[\.\.\. omitted \d+ of \d+ lines \.\.\.\]|…\d+ (?:tokens|chars) truncated…"  # Codex
    r"|\.\.\. \[\d+ characters truncated\] \.\.\."  # Claude Code
    r"|\[\d+ characters left out\]"  # our own sandbox
)
"""The marks of observations that were cut before they were recorded."""
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
        r"Commands?(?:\(s\))? not executed\. ",  # by the person at mini-swe-agent's terminal
        # OpenHands: several commands, an unknown tool, wrong arguments; V1 without "ERROR:"
        r"Cannot execute multiple commands at once\.",
        r"(?:Stop button pressed\. )?The action has not been executed",
        r"Tool '?[^'\n]{1,200}'? (?:not found\. Available|is not registered)",
        r"Error validating (?:tool|args) ",
        r"Missing required argument \S{1,200} in tool call ",
        r"Failed to parse tool call arguments",
        r"Missing required parameters for function '",
        r"Parameter '[^'\n]{1,200}' (?:is )?not allowed for function ",
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
        r"patch rejected: ",
        r"Tool execution (?:for \"[^\"\n]{1,200}\" requires user confirmation|denied by policy)",
        r"This (?:\w+ )?command (?:contains multiple operations\. The following parts? )?"
        r"requires? approval",
        r"File has (?:not been read yet|been modified since read)",
        r"You must read (?:the )?file ",
        # this project
        r"Unknown tool '[^'\n]{1,200}'\. Known: ",
        # rejected by a person
        r"Action (?:has been )?rejected",
        r"The user (?:doesn't|does not) want to (?:proceed with this tool use|take this action)",
        r"The user (?:rejected permission|has specified a rule)",
        r"\[Request interrupted by user",
        r"\[Operation Cancelled\]",
        r"User (?:rejected|denied|declined|did not allow) (?:the |this )?"
        r"(?:tool|command|action|edit|call|request|permission|change)",
        r"(?:The )?(?:tool|exec|command|patch)[\w ]{0,40} (?:was )?rejected by (?:the )?user",
        r"Permission to use \S{1,200}(?: with command .{0,2000})? has been denied",
        r"Claude requested permissions? to ",
    )
)
"""Beginnings of answers to calls that never ran; :data:`_ERROR_HEADS` may precede them."""
_NEVER_RAN_AT_END = re.compile(  # OpenHands, below the output of the command that still runs
    r'" is NOT executed\. The previous command is still running'
)
_ERROR_HEADS = re.compile(
    r"(?:OBSERVATION:\s*|ERROR:\s*|Error:\s*|Error executing tool \S{1,200}: "
    r"|\[An error occurred during execution\.\]\s*)*"
)
_HEAD = 20_000
"""A refusal that quotes the call is recognizable within so many characters."""
_TAIL = 1000
"""OpenHands' line about a timeout lies within so many characters of the end."""


def make_observation(text: str, exit_code: int | None = None) -> Observation:
    """The observation, marked as truncated or timed out if its text has a harness's mark.

    >>> make_observation("The command took too long to execute (>90s)").timed_out
    True
    """
    timed_out = _TIMED_OUT.match(text.lstrip()) or _TIMED_OUT_AT_END.search(text[-_TAIL:])
    truncated = CUT_MARK.search(text) is not None
    return Observation(text, exit_code, truncated=truncated, timed_out=timed_out is not None)


def never_ran(observation: Observation | None) -> bool:
    """Whether the harness's words show that the call was refused and changed nothing.

    >>> never_ran(Observation("Bash command 'git' is not allowed. Please use a different tool."))
    True
    """
    if observation is None:
        return False
    text = observation.text[:_HEAD].lstrip()
    heads = _ERROR_HEADS.match(text)
    starts = {0, heads.end() if heads else 0}
    at_end = _NEVER_RAN_AT_END.search(observation.text[-3 * _TAIL :])
    return bool(at_end) or any(m.match(text, start) for m in _NEVER_RAN for start in starts)


@dataclass(frozen=True, slots=True)
class Call:
    """One action of a message; ``id`` is None if the source has no ids.

    ``runnable`` False: the harness could not or would not run it, whatever the answer.
    """

    action: Action
    id: str | None = None
    runnable: bool = True


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the policy with all its calls.

    ``answered_as_one``: one text answers all its calls (terminus-2's terminal).
    """

    thought: str
    calls: tuple[Call, ...] = ()
    answered_as_one: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An observation, with the id of its call if the source has one.

    ``refused``: the source itself marks the call as never run.
    """

    observation: Observation
    id: str | None = None
    refused: bool = False
    translation: Translation | None = None
    """The call's effect on a file as a call of our own, if the source shows it."""


@dataclass(slots=True)
class _Open:
    """A step during pairing; ``call`` is None for a message without calls."""

    turn: int
    thought: str
    call: Call | None
    may_be_silent: bool = False
    answer: Answer | None = None


def make_steps(events: Iterable[Turn | Answer]) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """The steps, and a note if some answers belong to no step.

    An answer belongs to the call with its id. If call or answer has no id, it belongs to the
    first unanswered call of the latest message (to the last call, if it answers all of them).

    A call did not run if

    - it is not runnable, or its observation or its source marks it as refused;
    - it has no observation and is not in the last message (a final ``submit`` often has none),
      unless the source has no observations at all;
    - it follows the call that ended the run.
    """
    groups: list[tuple[Turn, list[Answer]]] = []
    unpaired = 0
    for event in events:
        if isinstance(event, Turn):
            groups.append((event, []))
        elif groups:
            groups[-1][1].append(event)
        else:
            unpaired += 1
    steps: list[_Open] = []
    by_id: dict[str, list[_Open]] = {}
    for number, (turn, answers) in enumerate(groups):
        ids = {call.id for call in turn.calls if call.id}
        is_named = any(answer.id in ids for answer in answers)
        as_one = turn.answered_as_one and len(answers) < 2 and not is_named
        latest = [_Open(number, turn.thought, call, as_one) for call in turn.calls or (None,)]
        steps += latest
        named: dict[str, list[_Open]] = {}
        for step in latest:
            if step.call and step.call.id:
                named.setdefault(step.call.id, []).append(step)
        by_id |= named
        for answer in answers:
            if own := by_id.get(answer.id or ""):
                own.pop(0).answer = answer
                continue
            unanswered = [step for step in latest if step.answer is None]
            free = [s for s in unanswered if not (answer.id and s.call and s.call.id)]
            if free:
                free[-1 if as_one else 0].answer = answer
            unpaired += not free
    notes = (f"{unpaired} recorded observations answer no recorded call",) if unpaired else ()
    return tuple(_close(steps)), notes


def _close(steps: Sequence[_Open]) -> Iterator[Step]:
    recorded = any(step.answer for step in steps)
    ended_in = None
    for step in steps:
        call, answer = step.call, step.answer
        seen = answer.observation if answer else None
        is_last = step.turn == steps[-1].turn
        ran = (
            bool(call and call.runnable)
            and (seen is not None or step.may_be_silent or not recorded or is_last)
            and not never_ran(seen)
            and not (answer and answer.refused)
            and not (is_last and ended_in == step.turn)
        )
        translation = answer.translation if answer and ran else None
        action = call.action if call else None
        yield Step(step.thought, action, seen, ran, step.turn, translation)
        if ran and action and ends_run(action):
            ended_in = step.turn


_LAST_TOOLS = frozenset({"finish", "submit", "mark_task_complete"})


def ends_run(action: Action) -> bool:
    """Whether the call ends the run: a tool that submits, or mini's command."""
    command = action.arguments.get("command", "")
    return action.tool in _LAST_TOOLS or bool(re.match(rf"\s*{SUBMIT_MARK}", command))


def find_stop_reason(steps: Sequence[Step]) -> StopReason | None:
    """SUBMITTED if a call of the last message ended the run, else None."""
    turn = steps[-1].turn if steps else None
    last = steps[-1:] if turn is None else [step for step in steps if step.turn == turn]
    ends = any(step.executed and step.action and ends_run(step.action) for step in last)
    return StopReason.SUBMITTED if ends else None


# mini-swe-agent's templates of observations.

_RETURN_CODE = re.compile(
    r"(?:<exception>(.*?)</exception>\n)?<returncode>(-?\d{1,9})</returncode>\n?", re.DOTALL
)
_MINI_TIMED_OUT = "</command> timed out and has been killed."
_TRUNCATED_INTO = ("output_head", "elided_chars", "output_tail")
_NOT_EXECUTED = "action was not executed"


def is_mini_output(text: str) -> bool:
    """Whether a message is an observation in mini's template."""
    return _RETURN_CODE.match(text) is not None


def read_mini_answer(message: Fields) -> Observation:
    """The output and exit code: version 2 records them, else they are in the message's text."""
    extra = message.mapping("extra")
    raw, code = extra.optional_text("raw_output"), extra.optional_int("returncode")
    if raw is None:
        return read_mini_output(message.content() or message.content("output"))
    exception = extra.optional_text("exception_info") or ""
    if _NOT_EXECUTED in exception:
        return Observation(_NOT_EXECUTED)
    return Observation(raw, code, timed_out="timed out" in exception)


def read_mini_output(text: str) -> Observation:
    r"""The output within its template; a text without one, such as a complaint, is kept.

    >>> read_mini_output("<returncode>1</returncode>\n<output>\nno such file\n</output>")
    Observation(text='no such file\n', exit_code=1, truncated=False, timed_out=False)
    """
    if text.startswith("The last command <command>") and _MINI_TIMED_OUT in text:
        return Observation(_within(text, "output") or "", timed_out=True)
    code = _RETURN_CODE.match(text)
    if code is None:
        return make_observation(text)
    exception, exit_code, rest = code[1] or "", int(code[2]), text[code.end() :]
    if _NOT_EXECUTED in exception:
        return Observation(_NOT_EXECUTED)
    timed_out = "timed out" in exception
    head, note, tail = (_within(rest, tag) for tag in _TRUNCATED_INTO)
    if head is not None and tail is not None:
        parts = (head, f"[{(note or '').strip()}]\n", tail)
        return Observation("".join(parts), exit_code, truncated=True, timed_out=timed_out)
    output = _within(rest, "output")
    seen = make_observation(rest if output is None else output)
    return replace(seen, exit_code=exit_code, timed_out=timed_out or seen.timed_out)


def _within(text: str, tag: str) -> str | None:
    """The text between the first opening and the last closing tag; None without both.

    A newline after the opening tag belongs to the template. One before the closing tag is kept:
    in some versions it belongs to the output.
    """
    start, end = text.find(f"<{tag}>"), text.rfind(f"</{tag}>")
    if start < 0 or end < start:
        return None
    return text[start + len(tag) + 2 : end].removeprefix("\n")
