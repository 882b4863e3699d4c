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

from srl_swe.dialects.reply import FormatReason, Reply, Strictness, UnwritableStep
from srl_swe.types import Action, Observation

TOOLS = ("bash", "str_replace_editor", "submit")
SYSTEM_PROMPT = resources.files("srl_swe").joinpath("prompts/xml_system.md").read_text("utf-8")
NO_OUTPUT = "Your command ran successfully and did not produce any output."

_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)
_FUNCTION = re.compile(  # each parameter has one way to match, so that no reply takes long
    r"<function=([^>\n]+)>\s*((?:<parameter=(?:(?!</parameter>).)*</parameter>\s*)*)</function>",
    re.DOTALL,
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


def render_reply(thought: str, action: Action) -> str:
    """Thought and action as one reply. Raises UnwritableStep where it could not be read back."""
    text = f"<think>\n{thought}\n</think>\n\n{action.text}"
    reply = parse_reply(text)
    if reply.action != action or reply.thought != thought.strip():
        raise UnwritableStep(f"this step would be read back as something else ({reply.reason})")
    return text


def parse_reply(
    text: str, strictness: Strictness = "strict", *, think_opened: bool = False
) -> Reply:
    """Read a reply; only what follows the thought is searched for the action."""
    if think_opened and not text.lstrip().startswith("<think>"):
        text = f"<think>{text}"
    match = _THOUGHT.match(text)
    thought = match[1].strip() if match else ""
    rest = text[match.end() :] if match else text
    if strictness == "strict" and not match:
        return Reply("", None, FormatReason.NO_THINK)
    if strictness == "strict" and not thought:
        return Reply("", None, FormatReason.EMPTY_THOUGHT)
    return _parse_action(thought, rest, strictness)


def _parse_action(thought: str, rest: str, strictness: Strictness) -> Reply:
    blocks = list(_FUNCTION.finditer(rest))
    if not blocks:
        malformed = "<function=" in rest
        return Reply(
            thought, None, FormatReason.BAD_ACTION if malformed else FormatReason.NO_ACTION
        )
    if len(blocks) > 1:
        return Reply(thought, None, FormatReason.TWO_ACTIONS)
    block = blocks[0]
    around = rest[: block.start()] + rest[block.end() :]
    if strictness == "strict" and around.strip():
        return Reply(thought, None, FormatReason.TRAILING_TEXT)
    if block[1] not in TOOLS:
        return Reply(thought, None, FormatReason.BAD_TOOL)
    arguments = {name: _unwrap(value) for name, value in _PARAMETER.findall(block[2])}
    return Reply(thought, Action(block[1], arguments))


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
