"""The XML dialect of SWE-agent and SWE-smith, with the paper's ``<think>`` before the action.

    <think>
    why
    </think>

    <function=bash>
    <parameter=command>ls</parameter>
    </function>

Of a value exactly one newline is stripped on each side, as in SWE-smith's trajectories, and
nothing else, so that indentation survives.
"""

from __future__ import annotations

import re
from importlib import resources

from srl_swe.dialects.reply import FormatReason, Reply, Solution, Strictness
from srl_swe.dialects.thoughts import (
    check_read_back,
    join_thought,
    split_thought,
    thought_fault,
)
from srl_swe.types import Action, Observation

FAMILY = "srl-swe"
EDITOR = "str_replace_editor"
TOOLS = ("bash", EDITOR, "submit")
EDITOR_COMMANDS = ("view", "create", "str_replace", "insert")
"""Those that the system prompt describes."""
_PROMPTS = resources.files("srl_swe").joinpath("prompts")
SYSTEM_PROMPT = _PROMPTS.joinpath("xml_system.md").read_text("utf-8")
SOLUTION_PROMPT = _PROMPTS.joinpath("xml_solution.md").read_text("utf-8")
NO_OUTPUT = "Your command ran successfully and did not produce any output."

_FUNCTION = re.compile(  # never goes back within a block, so that no reply takes long
    r"<function=([^>\n]+)>\s*+"
    r"((?:<parameter=[^<]*+(?:<(?!/parameter>)[^<]*+)*+</parameter>\s*+)*+)</function>"
)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>(.*?)</parameter>", re.DOTALL)

_EXPLANATIONS = {
    FormatReason.NO_THINK: "it did not begin with <think>...</think>",
    FormatReason.EMPTY_THOUGHT: "the thought between <think> and </think> was empty",
    FormatReason.NO_ACTION: "it held no <function=...> block",
    FormatReason.TWO_ACTIONS: "it held more than one <function=...> block",
    FormatReason.BAD_ACTION: "its <function=...> block was not well formed",
    FormatReason.BAD_TOOL: f"it called an unknown tool; the tools are {', '.join(TOOLS)}",
    FormatReason.TRAILING_TEXT: "text followed the action",
}


def render_action(action: Action) -> str:
    """The canonical text itself, for a tool that the dialect does not have as well."""
    return action.text


def declare(action: Action) -> str:
    """A line of the list of tools for a call that the system prompt does not describe.

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
    """Thought and action as one reply. Raises UnwritableStep where it could not be read back."""
    text = join_thought(thought, render_action(action))
    check_read_back(parse_reply(text), thought, action)
    return text


def parse_reply(
    text: str, strictness: Strictness = "strict", *, think_opened: bool = False
) -> Reply:
    """Read a reply; only what follows the thought is searched for the action."""
    read = _parse(text, strictness, think_opened, most_actions=1)
    return Reply(read.thought, read.actions[0] if read.actions else None, read.reason)


def parse_solution(
    text: str, strictness: Strictness = "strict", *, think_opened: bool = False
) -> Solution:
    """Read a reply of one thought and any number of actions after it."""
    return _parse(text, strictness, think_opened, most_actions=None)


def read_actions(text: str) -> list[Action]:
    """Every well-formed ``<function=...>`` block of the text in order, whatever its tool.

    The inverse of :attr:`Action.text`, unless a value holds a tag of the dialect itself.
    """
    return [_action(block) for block in _FUNCTION.finditer(text)]


def _parse(
    text: str, strictness: Strictness, think_opened: bool, most_actions: int | None
) -> Solution:
    thought, rest = split_thought(text, think_opened=think_opened)
    fault = thought_fault(thought, strictness)
    if fault is not None:
        return Solution("", (), fault)
    return _parse_actions(thought or "", rest, strictness, most_actions)


def _parse_actions(
    thought: str, rest: str, strictness: Strictness, most_actions: int | None
) -> Solution:
    blocks = list(_FUNCTION.finditer(rest))
    if not blocks:
        malformed = "<function=" in rest
        return Solution(
            thought, (), FormatReason.BAD_ACTION if malformed else FormatReason.NO_ACTION
        )
    if most_actions is not None and len(blocks) > most_actions:
        return Solution(thought, (), FormatReason.TWO_ACTIONS)
    if strictness == "strict" and _FUNCTION.sub("", rest).strip():
        return Solution(thought, (), FormatReason.TRAILING_TEXT)
    if any(_repeats_a_parameter(block) for block in blocks):
        return Solution(thought, (), FormatReason.BAD_ACTION)
    actions = tuple(_action(block) for block in blocks)
    if any(action.tool not in TOOLS for action in actions):
        return Solution(thought, (), FormatReason.BAD_TOOL)
    return Solution(thought, actions)


def _repeats_a_parameter(block: re.Match[str]) -> bool:
    """Whether a parameter is given twice: no reader could know which of the values is meant."""
    names = [name for name, _ in _PARAMETER.findall(block[2])]
    return len(set(names)) < len(names)


def _action(block: re.Match[str]) -> Action:
    arguments = {name: _unwrap(value) for name, value in _PARAMETER.findall(block[2])}
    return Action(block[1], arguments)


def _unwrap(value: str) -> str:
    return value.removeprefix("\n").removesuffix("\n")


def render_observation(observation: Observation) -> str:
    """SWE-agent's form; the exit code is no part of it, as the experts did not see one."""
    return f"OBSERVATION:\n{observation.text or NO_OUTPUT}"


def explain(reason: FormatReason) -> str:
    """What the policy reads after a reply that could not be used."""
    return (
        f"Your reply was not executed: {_EXPLANATIONS[reason]}. Reply with one thought in "
        "<think>...</think> and then exactly one <function=...>...</function> block."
    )
