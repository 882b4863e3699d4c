"""The XML dialect of SWE-agent and SWE-smith, with the paper's ``<think>`` before the action.

    <think>
    why
    </think>

    <function=bash>
    <parameter=command>ls</parameter>
    </function>

Exactly one newline is stripped on each side of a value, as in SWE-smith's trajectories:
indentation survives.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from importlib import resources

from srl_swe.dialects.reply import (
    FormatReason,
    Reply,
    Solution,
    Strictness,
    split_thought,
    thought_fault,
    write_reply,
)
from srl_swe.types import Action, Observation

TOOLSET = "srl-swe"
EDITOR = "str_replace_editor"
TOOLS = ("bash", EDITOR, "submit")
EDITOR_COMMANDS = ("view", "create", "str_replace", "insert")
"""The commands in the system prompt."""
_PROMPTS = resources.files("srl_swe").joinpath("prompts")
SYSTEM_PROMPT = _PROMPTS.joinpath("xml_system.md").read_text("utf-8")
SOLUTION_PROMPT = _PROMPTS.joinpath("xml_solution.md").read_text("utf-8")
NO_OUTPUT = "Your command ran successfully and did not produce any output."

_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
_UP_TO_BRACKET = re.compile(r"[^>\n]+>?")
_SPACE = re.compile(r"\s*")
_NAME_AND_VALUE = re.compile(r"([^>\n]+)>(.*)", re.DOTALL)

_EXPLANATIONS = {
    FormatReason.NO_THINK: "it did not begin with <think>...</think>",
    FormatReason.EMPTY_THOUGHT: "the thought between <think> and </think> was empty",
    FormatReason.NO_ACTION: "it held no <function=...> block",
    FormatReason.TWO_ACTIONS: "it held more than one <function=...> block",
    FormatReason.BAD_ACTION: "its <function=...> block was not well formed",
    FormatReason.BAD_TOOL: f"it called an unknown tool; the tools are {', '.join(TOOLS)}",
    FormatReason.TRAILING_TEXT: "there was text besides the thought and the action",
}


def render_action(action: Action) -> str:
    """The canonical text, also of tools that the dialect does not have."""
    return action.text


def declare(action: Action) -> str:
    """A line about a call that the system prompt does not describe.

    >>> declare(Action("think", {"thought": "hm"}))
    '- think(thought): it was there before; you can no longer call it.'
    """
    if action.tool != EDITOR and action.tool in TOOLS:
        return ""
    command = action.arguments.get("command", "")
    if action.tool == EDITOR and command in EDITOR_COMMANDS:
        return ""
    name = f"{EDITOR} {command}" if action.tool == EDITOR else action.tool
    names = (name, *(key for key in action.arguments if action.tool != EDITOR or key != "command"))
    tool, *given = (" ".join(text.split()) for text in names)
    return f"- {tool}({', '.join(given)}): it was there before; you can no longer call it."


def render_reply(thought: str, action: Action) -> str:
    """Thought and action as one reply. Raises UnwritableStep if it could not be read back."""
    return write_reply(thought, action, render_action, parse_reply)


def parse_reply(
    text: str, strictness: Strictness = "strict", *, think_opened: bool = False
) -> Reply:
    """Read a reply; the action must follow the thought."""
    read = _parse(text, strictness, think_opened, single=True)
    return Reply(read.thought, read.actions[0] if read.actions else None, read.reason)


def parse_solution(
    text: str, strictness: Strictness = "strict", *, think_opened: bool = False
) -> Solution:
    """Read a reply of one thought and any number of actions after it."""
    return _parse(text, strictness, think_opened, single=False)


def read_actions(text: str) -> list[Action]:
    """Every well-formed ``<function=...>`` block of the text in order, whatever its tool.

    The inverse of :attr:`Action.text`, unless a value holds a tag of the dialect itself.
    """
    return [block.action for block in _blocks(text)]


def _parse(text: str, strictness: Strictness, think_opened: bool, *, single: bool) -> Solution:
    thought, rest = split_thought(text, think_opened=think_opened)
    fault = thought_fault(thought, rest, strictness)
    if fault is not None:
        return Solution("", (), fault)
    blocks = _blocks(rest)
    starts, ends = [block.start for block in blocks], [block.end for block in blocks]
    around = zip([0, *ends], [*starts, len(rest)], strict=True)
    if not blocks:
        fault = FormatReason.BAD_ACTION if _FUNCTION in rest else FormatReason.NO_ACTION
    elif single and len(blocks) > 1:
        fault = FormatReason.TWO_ACTIONS
    elif strictness == "strict" and any(rest[start:end].strip() for start, end in around):
        fault = FormatReason.TRAILING_TEXT
    elif any(block.repeats_a_parameter for block in blocks):
        fault = FormatReason.BAD_ACTION
    elif any(block.action.tool not in TOOLS for block in blocks):
        fault = FormatReason.BAD_TOOL
    actions = () if fault else tuple(block.action for block in blocks)
    return Solution(thought or "", actions, fault)


@dataclass(frozen=True, slots=True)
class _Block:
    """A well-formed ``<function=...>`` block, and ``text[start:end]`` that holds it."""

    action: Action
    repeats_a_parameter: bool
    """A call with two values of one parameter is ambiguous."""
    start: int
    end: int


def _blocks(text: str) -> list[_Block]:
    """Every well-formed block in order, in time linear in the length of the text.

    Scanned by hand: one regex either backtracks for minutes on a hostile reply or needs
    possessive quantifiers, which Python 3.11.2 gets wrong.
    """
    chains, blocks = _ParameterChains(text), list[_Block]()
    for piece in _UP_TO_BRACKET.finditer(text) if _FUNCTION in text else ():
        _, tag, name = piece[0].partition(_FUNCTION)
        start = piece.end() - len(tag) - len(name)
        if not tag or len(name) < 2 or not name.endswith(">"):
            continue
        if blocks and start < blocks[-1].end:
            continue  # inside a value of the last block
        at = _after_space(text, piece.end())
        if (end := chains.end_of_block(at)) is not None:
            given = chains.parameters(at)
            arguments = dict(given)
            repeats = len(arguments) < len(given)
            blocks.append(_Block(Action(name[:-1], arguments), repeats, start, end))
    return blocks


class _ParameterChains:
    """Chains of parameters in a text, each up to its ``</function>``."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends = [match.start() for match in re.finditer(_PARAMETER_END, text)]
        self._broken: set[int] = set()
        """Places on chains without ``</function>``, which are not walked twice."""

    def end_of_block(self, at: int) -> int | None:
        """The end of ``</function>`` after the parameters from ``at`` on; None if malformed."""
        passed = []
        while at not in self._broken and (parameter := self._parameter(at)) is not None:
            passed.append(at)
            at = parameter[1]
        if self._text.startswith(_FUNCTION_END, at):
            return at + len(_FUNCTION_END)
        self._broken.update(passed)
        return None

    def parameters(self, at: int) -> list[tuple[str, str]]:
        """Names and values of the parameters from ``at`` on."""
        given = []
        while (parameter := self._parameter(at)) is not None:
            match, at = parameter
            given.append((match[1], match[2].removeprefix("\n").removesuffix("\n")))
        return given

    def _parameter(self, at: int) -> tuple[re.Match[str], int] | None:
        """Name and value of the parameter at ``at``, and the place after it."""
        if not self._text.startswith(_PARAMETER, at):
            return None
        start = at + len(_PARAMETER)
        index = bisect_left(self._ends, start)
        if index == len(self._ends):
            return None
        end = self._ends[index]
        match = _NAME_AND_VALUE.fullmatch(self._text, start, end)
        return match and (match, _after_space(self._text, end + len(_PARAMETER_END)))


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def render_observation(observation: Observation) -> str:
    """SWE-agent's form, without the exit code, which the experts did not see either."""
    return f"OBSERVATION:\n{observation.text or NO_OUTPUT}"


def explain(reason: FormatReason) -> str:
    """The answer to a reply that could not be used."""
    return (
        f"Your reply was not executed: {_EXPLANATIONS[reason]}. Reply with one thought in "
        "<think>...</think> and then exactly one <function=...>...</function> block."
    )
