"""mini-swe-agent's dialect: bash alone, in one fenced block, after the paper's ``<think>``.

    <think>
    why
    </think>

    ```bash
    ls
    ```

The command is exactly the text between the fences; a longer fence may enclose one of three
backticks. Submitting is a command too (:data:`SUBMIT_COMMAND`), read as the tool ``submit``. Calls
of other tools, such as an expert's edits, have no text here: an equivalent in bash would not be the
expert's text, which rewards compare.

Source: mini-swe-agent 1.15 and 2.0, ``config/`` (mini.yaml, extra/swebench.yaml).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources

from srl_swe.dialects.reply import (
    FormatReason,
    Reply,
    Solution,
    Strictness,
    UnwritableStep,
    split_thought,
    thought_fault,
    write_reply,
)
from srl_swe.types import Action, Observation

_OPENING = re.compile(r"(`{3,})([\w-]+)[^\S\n]*")
_BACKTICKS = re.compile(r"`+")
_SHORTEST = 3


@dataclass(frozen=True, slots=True)
class Blocks:
    """The contents of a text's blocks. ``around`` is the text without them."""

    found: tuple[str, ...]
    before: str
    """The text before the first block."""
    around: str
    is_open: bool
    """A fence is opened and never closed; no block is searched below it."""


def find_blocks(text: str, languages: Collection[str]) -> Blocks:
    """The blocks of these languages, in time linear in any text.

    A fence begins its line.
    """
    lines = text.split("\n")
    found, around = list[str](), list[str]()
    at, first, is_open = 0, len(lines), False
    while at < len(lines):
        opening = None if is_open else _OPENING.fullmatch(lines[at])
        if opening and opening[2] in languages:
            rest = range(at + 1, len(lines))
            last = next((n for n in rest if lines[n].rstrip() == opening[1]), None)
            if last is not None:
                found.append("\n".join(lines[at + 1 : last]))
                first, at = min(first, at), last + 1
                continue
            is_open = True
        around.append(lines[at])
        at += 1
    return Blocks(tuple(found), "\n".join(lines[:first]), "\n".join(around), is_open)


def render_block(content: str, language: str) -> str:
    r"""The block; its fence is longer than any row of backticks within.

    >>> render_block("echo '```'", "bash")
    "````bash\necho '```'\n````"
    """
    longest = max((len(row) for row in _BACKTICKS.findall(content)), default=0)
    fence = "`" * max(_SHORTEST, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}"


TOOLSET = "mini-swe-agent"
_PROMPTS = resources.files("srl_swe").joinpath("prompts")
SYSTEM_PROMPT = _PROMPTS.joinpath("bash_block_system.md").read_text("utf-8")
SOLUTION_PROMPT = _PROMPTS.joinpath("bash_block_solution.md").read_text("utf-8")

SUBMIT_COMMAND = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
_SUBMITS = re.compile(  # as in mini's prompts, whose further commands only print the patch
    rf"\s*{SUBMIT_COMMAND}(?:\s*&&\s*git add -A\s*&&\s*git diff --cached|\s*&&\s*cat [\w./-]+)?\s*"
)
_LANGUAGES = {"strict": ("bash",), "lenient": ("bash", "mswea_bash_command")}
_OTHER_BLOCK = re.compile(r"^```", re.MULTILINE)

_EXPLANATIONS = {
    FormatReason.NO_THINK: "it did not begin with <think>...</think>",
    FormatReason.EMPTY_THOUGHT: "the thought between <think> and </think> was empty",
    FormatReason.NO_ACTION: "it held no ```bash block",
    FormatReason.TWO_ACTIONS: "it held more than one ```bash block",
    FormatReason.BAD_ACTION: "its ```bash block was never closed",
    FormatReason.BAD_TOOL: "its block was not marked as bash",
    FormatReason.TRAILING_TEXT: "there was text besides the thought and the block",
}


def render_action(action: Action) -> str:
    """The block of the command. Raises UnwritableStep for another tool than bash and submit."""
    if action.tool == "submit" and not action.arguments:
        return render_block(SUBMIT_COMMAND, "bash")
    if action.tool != "bash" or action.arguments.keys() != {"command"}:
        raise UnwritableStep(f"a call of {action.tool} has no form as a command")
    return render_block(action.arguments["command"], "bash")


def declare(action: Action) -> str:
    """Empty: the dialect has no list of tools."""
    return ""


def read_actions(text: str) -> list[Action]:
    """Every closed block of the text in order; the inverse of :func:`render_action`."""
    return list(map(_action, find_blocks(text, _LANGUAGES["strict"]).found))


def render_reply(thought: str, action: Action) -> str:
    """Thought and action as one reply. Raises UnwritableStep if it could not be read back."""
    return write_reply(thought, action, render_action, parse_reply)


def parse_reply(
    text: str, strictness: Strictness = "strict", *, think_opened: bool = False
) -> Reply:
    """Read a reply; the block must follow the thought.

    Without tags, a lenient reader takes the text before the block as the thought.
    """
    read = _parse(text, strictness, think_opened, single=True)
    return Reply(read.thought, read.actions[0] if read.actions else None, read.reason)


def parse_solution(
    text: str, strictness: Strictness = "strict", *, think_opened: bool = False
) -> Solution:
    """Read a reply of one thought and any number of blocks after it."""
    return _parse(text, strictness, think_opened, single=False)


def _parse(text: str, strictness: Strictness, think_opened: bool, *, single: bool) -> Solution:
    thought, rest = split_thought(text, think_opened=think_opened)
    fault = thought_fault(thought, rest, strictness)
    if fault is not None:
        return Solution("", (), fault)
    blocks = find_blocks(rest, _LANGUAGES[strictness])
    if thought is None:
        thought = blocks.before.strip() if blocks.found else ""
    if not blocks.found and blocks.is_open:
        fault = FormatReason.BAD_ACTION
    elif not blocks.found:
        fault = FormatReason.BAD_TOOL if _OTHER_BLOCK.search(rest) else FormatReason.NO_ACTION
    elif single and len(blocks.found) > 1:
        fault = FormatReason.TWO_ACTIONS
    elif strictness == "strict" and blocks.around.strip():
        fault = FormatReason.TRAILING_TEXT
    actions = () if fault else tuple(map(_action, blocks.found))
    return Solution(thought, actions, fault)


def _action(command: str) -> Action:
    if _SUBMITS.fullmatch(command):
        return Action("submit")
    return Action("bash", {"command": command})


def render_observation(observation: Observation) -> str:
    r"""Mini's form: the return code if it is known, then the output.

    >>> render_observation(Observation("hi", exit_code=0))
    '<returncode>0</returncode>\n<output>\nhi\n</output>'
    """
    text = observation.text
    body = text if not text or text.endswith("\n") else f"{text}\n"
    if observation.timed_out:
        head = "<exception>the command timed out and was ended</exception>\n<returncode>-1"
        head += "</returncode>\n"
    elif observation.exit_code is None:
        head = ""
    else:
        head = f"<returncode>{observation.exit_code}</returncode>\n"
    return f"{head}<output>\n{body}</output>"


def explain(reason: FormatReason) -> str:
    """The answer to a reply that could not be used."""
    return (
        f"Your reply was not executed: {_EXPLANATIONS[reason]}. Reply with one thought in "
        "<think>...</think> and then exactly one ```bash block, which holds the command."
    )
